//! Selects rows: slices of a split name, `shuffle`, `train_test_split` and `select`, as the `datasets` library does.

use crate::config::data::TestSize;
use crate::data::random::Pcg64;
use crate::suggest::nearest;
use halfbyte_core::error::{Error, Result};

/// Rows `start..end` of the split `split`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Slice {
    /// Name of the split: "train".
    pub split: String,
    /// The first row.
    pub start: usize,
    /// One past the last row; may be below `start` if the slice is empty.
    pub end: usize,
}

/// The names of the splits in `spec` ("train\[:10%\]+test" has two), for finding their files before counting rows.
pub fn split_names(spec: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for part in spec.split('+') {
        let name = SplitTerm::parse(spec, part)?.split;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// Resolves a split with slices, given the sizes of the splits: "train", "train\[:10%\]",
/// "train\[100:200\]+test\[-5:\]". Percentages round to the nearest row, or, after "(pct1_dropremainder)", to whole
/// hundredths of the split.
pub fn slices(spec: &str, sizes: &[(String, usize)]) -> Result<Vec<Slice>> {
    spec.split('+').map(|part| SplitTerm::parse(spec, part)?.resolve(spec, sizes)).collect()
}

/// One term of a split specification such as `train[:10%]+test`, as written.
struct SplitTerm {
    split: String,
    from: Option<i64>,
    to: Option<i64>,
    unit: SliceUnit,
}

#[derive(Clone, Copy, PartialEq)]
enum SliceUnit {
    Rows,
    PercentClosest,
    PercentDropRemainder,
}

impl SplitTerm {
    fn parse(spec: &str, part: &str) -> Result<SplitTerm> {
        let wrong = || {
            Error::usage(format!("split `{spec}`: cannot read `{}`", part.trim()))
                .hint("write train, train[:10%], train[100:200] or a sum of such, train[:50]+test")
        };
        let text = part.trim();
        let (text, rounding) = match text.strip_suffix(')') {
            Some(rest) => rest.split_once('(').map(|(t, r)| (t, Some(r))).ok_or_else(wrong)?,
            None => (text, None),
        };
        let (split, range) = match text.strip_suffix(']') {
            Some(rest) => rest.split_once('[').map(|(s, r)| (s, Some(r))).ok_or_else(wrong)?,
            None => (text, None),
        };
        if split.is_empty() || !split.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '.') {
            return Err(wrong());
        }
        let mut part = SplitTerm { split: split.into(), from: None, to: None, unit: SliceUnit::Rows };
        if let Some(range) = range {
            let (from, to) = range.split_once(':').ok_or_else(wrong)?;
            let mut bound = |text: &str| -> Result<Option<i64>> {
                let digits = text.strip_suffix('%').inspect(|_| part.unit = SliceUnit::PercentClosest).unwrap_or(text);
                match digits {
                    "" if text.is_empty() => Ok(None),
                    _ => digits.replace('_', "").parse().map(Some).map_err(|_| wrong()),
                }
            };
            (part.from, part.to) = (bound(from)?, bound(to)?);
            let percents = [part.from, part.to].into_iter().flatten();
            if part.unit != SliceUnit::Rows && percents.into_iter().any(|p| !(-100..=100).contains(&p)) {
                return Err(wrong());
            }
        }
        match rounding {
            None | Some("closest") => {}
            Some("pct1_dropremainder") if part.unit != SliceUnit::Rows => part.unit = SliceUnit::PercentDropRemainder,
            Some(_) => return Err(wrong()),
        }
        Ok(part)
    }

    fn resolve(self, spec: &str, sizes: &[(String, usize)]) -> Result<Slice> {
        let Some(&(_, rows)) = sizes.iter().find(|(name, _)| *name == self.split) else {
            let names = sizes.iter().map(|(name, _)| name.as_str());
            let hint = match nearest(&self.split, names.clone()) {
                Some(name) => format!("did you mean `{name}`?"),
                None => format!("it has {}", names.collect::<Vec<_>>().join(", ")),
            };
            return Err(Error::usage(format!("split `{spec}`: the data has no split `{}`", self.split)).hint(hint));
        };
        if self.unit == SliceUnit::PercentDropRemainder && rows < 100 {
            return Err(Error::usage(format!("split `{spec}`: pct1_dropremainder of {rows} rows is always empty"))
                .hint("leave (pct1_dropremainder) out to round to the nearest row"));
        }
        let rows_i = rows as i64;
        let absolute = |bound: i64| match self.unit {
            SliceUnit::Rows => bound,
            // Ties round to even, as in Python.
            SliceUnit::PercentClosest => (bound as f64 * rows as f64 / 100.0).round_ties_even() as i64,
            SliceUnit::PercentDropRemainder => bound.saturating_mul(rows_i / 100),
        };
        let bound = |bound: Option<i64>, open: i64| {
            let bound = bound.map_or(open, absolute);
            let from_end = if bound < 0 { rows_i.saturating_add(bound).max(0) } else { bound };
            from_end.min(rows_i) as usize
        };
        Ok(Slice { start: bound(self.from, 0), end: bound(self.to, rows_i), split: self.split })
    }
}

/// `Dataset.shuffle(seed)` of `rows` rows: the row number at each position.
pub fn shuffle(rows: usize, seed: u64) -> Vec<usize> {
    Pcg64::new(&[seed]).permutation(rows)
}

/// `Dataset.train_test_split(test_size, seed)`: the rows of the training part and those of the test part.
pub fn train_test_split(rows: usize, size: TestSize, seed: u64) -> Result<(Vec<usize>, Vec<usize>)> {
    let (test, written) = match size {
        TestSize::Share(share) if share > 0.0 && share < 1.0 => ((share * rows as f64).ceil() as usize, share),
        TestSize::Share(share) => (0, share),
        TestSize::Rows(n) => (n, n as f64),
    };
    if test == 0 || test >= rows {
        return Err(Error::usage(format!("test_size {written} of {rows} rows leaves one part empty"))
            .hint("give a share between 0 and 1, or fewer rows than there are"));
    }
    let mut order = shuffle(rows, seed);
    let train = order.split_off(test);
    Ok((train, order))
}

/// `select(range(n))`: the first `n` of `rows`; an error if there are fewer.
pub fn select(mut rows: Vec<usize>, n: usize) -> Result<Vec<usize>> {
    if n > rows.len() {
        return Err(Error::usage(format!("select: {n} rows requested, but there are only {}", rows.len()))
            .hint("lower `select`, or leave it out to take all rows"));
    }
    rows.truncate(n);
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_that_cannot_be_read_is_quoted() {
        let sizes = [("train".to_string(), 10), ("test".to_string(), 5)];
        for bad in
            ["", "train[", "train[1]", "train[a:b]", "train[:%]", "train[:101%]", "train[:5](near)", "tr ain", "train+"]
        {
            let error = slices(bad, &sizes).unwrap_err().to_string();
            assert!(error.contains(&format!("split `{bad}`: cannot read")), "{bad}: {error}");
        }
        let error = slices("trian[:2]", &sizes).unwrap_err().to_string();
        assert_eq!(error, "split `trian[:2]`: the data has no split `trian`\n  hint: did you mean `train`?");
        assert!(slices("train[:50%](pct1_dropremainder)", &sizes).is_err());
        assert_eq!(split_names("train[:2]+test+train[5:]").unwrap(), ["train", "test"]);
    }

    #[test]
    fn parts_that_would_be_empty_are_errors() {
        for size in [TestSize::Share(0.0), TestSize::Share(1.0), TestSize::Rows(0), TestSize::Rows(10)] {
            assert!(train_test_split(10, size, 0).is_err(), "{size:?}");
        }
        assert!(select(vec![4, 5], 3).is_err());
        assert_eq!(select(vec![4, 5, 6], 2).unwrap(), [4, 5]);
    }
}
