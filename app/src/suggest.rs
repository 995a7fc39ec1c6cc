//! Finds the known name nearest to a mistyped one, for "did you mean" hints.

use strsim::damerau_levenshtein;

/// The candidate with the fewest typing errors between it and `name` (letters missing, added, replaced or swapped), or
/// None when even that one has more than 1 + a third of the letters.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = 1 + name.chars().count() / 3;
    let scored = candidates.into_iter().map(|candidate| (damerau_levenshtein(name, candidate), candidate));
    scored.filter(|(errors, _)| *errors <= limit).min_by_key(|(errors, _)| *errors).map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_suggested_only_when_it_is_near() {
        let keys = ["learning_rate", "lr_scheduler_type", "warmup_steps"];
        assert_eq!(nearest("learning_rat", keys), Some("learning_rate"));
        assert_eq!(nearest("warmpu_step", keys), Some("warmup_steps"));
        assert_eq!(nearest("color", keys), None);
        // Swapping two letters is one error, not two.
        assert_eq!(nearest("kq", ["xy", "qk"]), Some("qk"));
    }
}
