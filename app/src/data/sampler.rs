//! The order in which rows are visited.

/// `group_by_length`: groups rows of similar length into micro-batches, and keeps the order random. `permutation` (a
/// random order of `0..lengths.len()`) is cut into mega-batches, each of which is sorted, longest first. Then the
/// longest row overall is moved to the front, so that a run that does not fit into memory fails at once.
///
/// `batch` counts the rows of an optimizer step: batch size × accumulation, as in `transformers`.
pub fn group_by_length(lengths: &[usize], batch: usize, permutation: Vec<usize>) -> Vec<usize> {
    let mega = batch * (lengths.len() / (batch * 4)).clamp(1, 50);
    let mut order = permutation;
    // Stable, so that equal lengths keep the random order.
    order.chunks_mut(mega).for_each(|rows| rows.sort_by_key(|&row| std::cmp::Reverse(lengths[row])));
    let first = |&a: &usize, &b: &usize| lengths[order[a]].cmp(&lengths[order[b]]).then(b.cmp(&a));
    if let Some(longest) = (0..order.len()).step_by(mega).max_by(first) {
        order.swap(0, longest);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_rows_than_a_mega_batch_are_simply_sorted() {
        assert_eq!(group_by_length(&[3, 9, 5], 4, vec![2, 0, 1]), [1, 2, 0]);
        assert_eq!(group_by_length(&[], 4, vec![]), [] as [usize; 0]);
    }
}
