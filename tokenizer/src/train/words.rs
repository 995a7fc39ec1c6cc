//! Counts words. A word is a part of the text, and no piece crosses its ends.

use std::collections::HashMap;

use rayon::prelude::*;

use super::Trainer;
use crate::error::Result;
use crate::model_file::ModelFile;
use crate::pieces::PieceKind;
use crate::sentencepiece::{Normalizer, UserDefined};

/// Words and their counts, in the order of their texts.
pub(super) type Words = Vec<(Box<str>, u64)>;

/// Counts the words of all texts; `model` has the settings and the user-defined pieces.
pub(super) fn count<T: AsRef<str> + Sync>(trainer: &Trainer, model: &ModelFile, texts: &[T]) -> Result<Words> {
    let normalizer = Normalizer::new(model)?;
    let mut user = UserDefined::new(normalizer.escape);
    for (piece, id) in model.pieces.iter().zip(0..).filter(|(p, _)| p.kind == PieceKind::UserDefined) {
        user.insert(piece.text, id);
    }
    let counted = texts
        .par_iter()
        .fold(HashMap::<Box<str>, u64>::new, |mut counts, text| {
            let mut normalized = String::new();
            normalizer.run(text.as_ref(), normalizer.prefix, &user, &mut normalized, None);
            split(trainer, &user, &normalized, |word| match counts.get_mut(word) {
                Some(count) => *count += 1,
                None => {
                    counts.insert(word.into(), 1);
                }
            });
            counts
        })
        .reduce(HashMap::new, |a, b| {
            let (mut large, small) = if a.len() >= b.len() { (a, b) } else { (b, a) };
            for (word, count) in small {
                *large.entry(word).or_insert(0) += count;
            }
            large
        });
    let mut words: Words = counted.into_iter().collect();
    words.sort_unstable();
    Ok(words)
}

/// Calls `each` with the words of a canonical text. A word is an optional space and a run of letters, of digits or of
/// other characters.
fn split<'a>(trainer: &Trainer, user: &UserDefined, text: &'a str, mut each: impl FnMut(&'a str)) {
    let mut start = 0;
    let mut last = None;
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        if let Some((len, _)) = user.longest(&text[at..]) {
            if start < at {
                each(&text[start..at]);
            }
            at += len;
            (start, last) = (at, None);
            continue;
        }
        let next = at + c.len_utf8();
        let class = Class::of(c);
        let cut = match (last, class) {
            (None, _) => false,
            // The last space of a run belongs to the next word. Those before it are one word, or one word each.
            (Some(Class::Space), Class::Space) => !trainer.whitespace_pieces || !text[next..].starts_with(' '),
            (Some(Class::Space), _) => false,
            (Some(_), Class::Space) => true,
            (Some(Class::Digit), Class::Digit) => trainer.split_digits,
            (Some(before), now) => before != now,
        };
        if cut {
            each(&text[start..at]);
            start = at;
        }
        last = Some(class);
        at = next;
    }
    if start < at {
        each(&text[start..]);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Space,
    Letter,
    Digit,
    Other,
}

impl Class {
    fn of(c: char) -> Self {
        match c {
            ' ' => Class::Space,
            _ if c.is_alphabetic() => Class::Letter,
            _ if c.is_numeric() => Class::Digit,
            // Combining marks are not alphabetic, but must stay with their letter.
            _ if !c.is_ascii() && !c.is_control() && !c.is_whitespace() => Class::Letter,
            _ => Class::Other,
        }
    }
}

/// The characters that get a piece: the most frequent ones, up to a share of `coverage` of the text, and always the
/// space. The most frequent come first, ties by code point.
pub(super) fn covered_chars(words: &Words, coverage: f64) -> Vec<char> {
    let mut counts: HashMap<char, u64> = HashMap::new();
    for (word, count) in words {
        for c in word.chars() {
            *counts.entry(c).or_insert(0) += count;
        }
    }
    let mut counts: Vec<(char, u64)> = counts.into_iter().collect();
    counts.sort_unstable_by_key(|&(c, count)| (std::cmp::Reverse(count), c));
    let total: u64 = counts.iter().map(|c| c.1).sum();
    let mut covered = 0;
    let mut chars = Vec::new();
    for (c, count) in counts {
        if c == ' ' || (covered as f64) < coverage * total as f64 {
            chars.push(c);
        }
        covered += count;
    }
    chars
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(trainer: &Trainer, text: &str) -> Vec<String> {
        let mut out = Vec::new();
        let mut user = UserDefined::new(true);
        user.insert("<q>", 0);
        split(trainer, &user, text, |w| out.push(w.to_owned()));
        out
    }

    #[test]
    fn words_end_where_spaces_classes_and_user_pieces_begin() {
        let trainer = Trainer::default();
        assert_eq!(words(&trainer, " ab cd"), [" ab", " cd"]);
        assert_eq!(words(&trainer, " a   b "), [" a", "  ", " b", " "]);
        assert_eq!(words(&trainer, "x12=y."), ["x", "1", "2", "=", "y", "."]);
        assert_eq!(words(&trainer, "a<q>b <q><q>"), ["a", "b", " "]);
        let other = Trainer { split_digits: false, whitespace_pieces: false, ..trainer };
        assert_eq!(words(&other, "  12"), [" ", " 12"]);
    }

    #[test]
    fn coverage_drops_the_rarest_characters() {
        let words: Words = vec![("aaaaaab".into(), 1), (" c".into(), 1)];
        assert_eq!(covered_chars(&words, 1.0), ['a', ' ', 'b', 'c']);
        assert_eq!(covered_chars(&words, 0.6), ['a', ' ']);
    }
}
