//! Finds the known name nearest to a mistyped one, for "did you mean" hints, and makes foreign text safe to print.

use std::borrow::Cow;
use strsim::damerau_levenshtein;

/// Longer names are not compared: it takes the product of both lengths, and they are not typing errors.
const LONGEST_NAME: usize = 200;

/// The candidate with the fewest typing errors between it and `name` (letters missing, added, replaced or swapped), or
/// None when even that one has more than 1 + a third of the letters.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > LONGEST_NAME {
        return None;
    }
    let limit = 1 + name.chars().count() / 3;
    let candidates = candidates.into_iter().filter(|candidate| candidate.len() <= LONGEST_NAME);
    let scored = candidates.map(|candidate| (damerau_levenshtein(name, candidate), candidate));
    scored.filter(|(errors, _)| *errors <= limit).min_by_key(|(errors, _)| *errors).map(|(_, candidate)| candidate)
}

/// `text` with a symbol in place of each control character except tab and newline, so that text from a file cannot
/// control the terminal: `␛[2J`.
pub fn printable(text: &str) -> Cow<'_, str> {
    let controls = |c: char| c.is_control() && c != '\n' && c != '\t';
    if !text.contains(controls) {
        return Cow::Borrowed(text);
    }
    let symbol = |c: char| match u32::from(c) {
        _ if !controls(c) => c,
        0x7F => '␡',
        low @ 0..0x20 => char::from_u32(0x2400 + low).unwrap_or('\u{FFFD}'),
        _ => '\u{FFFD}',
    };
    Cow::Owned(text.chars().map(symbol).collect())
}

/// `text`, or its first `most` characters and an ellipsis.
pub fn shortened(text: &str, most: usize) -> Cow<'_, str> {
    match text.char_indices().nth(most) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_cannot_control_the_terminal() {
        assert_eq!(printable("a\u{1b}[31m\r\u{9b}2J\u{7f}\n\tß"), "a␛[31m␍\u{FFFD}2J␡\n\tß");
        assert!(matches!(printable("plain"), Cow::Borrowed("plain")));
        assert_eq!((shortened("abc", 2), shortened("abc", 3)), ("ab…".into(), "abc".into()));
    }

    #[test]
    fn a_very_long_name_is_not_compared() {
        let (long, other) = ("a".repeat(5_000_000), "b".repeat(5_000_000));
        assert_eq!(nearest(&long, [other.as_str(), "a"]), None);
        assert_eq!(nearest("a", [other.as_str()]), None);
    }

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
