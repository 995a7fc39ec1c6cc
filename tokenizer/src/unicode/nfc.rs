//! Unicode normalization form C (UAX #15), with the tables of the `tokenizers` library.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

use super::CHARS;
use super::composition::{COMBINING, COMPOSED, REPLACED};

/// The tables, indexed.
struct Tables {
    combining: HashMap<char, u8>,
    /// The decomposition of each character, in one step.
    parts: HashMap<char, (char, Option<char>)>,
    composed: HashMap<(char, char), char>,
}

static TABLES: LazyLock<Tables> = LazyLock::new(|| {
    // The generated tables hold characters only.
    let char_of = |code| char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
    let run = |&(first, count, class): &(u32, u32, u8)| (first..first + count).map(move |code| (char_of(code), class));
    let all = COMPOSED.iter().chain(REPLACED);
    Tables {
        combining: COMBINING.iter().flat_map(run).collect(),
        parts: all
            .map(|&(c, first, second)| (char_of(c), (char_of(first), (second != 0).then(|| char_of(second)))))
            .collect(),
        composed: COMPOSED.iter().map(|&(c, a, b)| ((char_of(a), char_of(b)), char_of(c))).collect(),
    }
});

/// Hangul syllables compose by arithmetic: lead, vowel and trail consonants in this order.
mod hangul {
    pub(super) const SYLLABLE: u32 = 0xac00;
    pub(super) const LEAD: u32 = 0x1100;
    pub(super) const VOWEL: u32 = 0x1161;
    /// One before the first trail, which counts as "none".
    pub(super) const TRAIL: u32 = 0x11a7;
    pub(super) const LEADS: u32 = 19;
    pub(super) const VOWELS: u32 = 21;
    pub(super) const TRAILS: u32 = 28;
    pub(super) const SYLLABLES: u32 = LEADS * VOWELS * TRAILS;
}

/// The NFC form of `text`. With `origin`, the span in `text` of each byte of the result is appended there: the span of
/// its character, or of the whole run of characters that was rewritten together.
pub(crate) fn normalize<'a>(text: &'a str, mut origin: Option<&mut Vec<(usize, usize)>>) -> Cow<'a, str> {
    // Characters below U+0300 never combine. The first byte of U+0300 is 0xCC.
    if origin.is_none() && text.bytes().all(|byte| byte < 0xcc) {
        return Cow::Borrowed(text);
    }
    let mut out = String::new();
    // `out` has the text up to `copied`. The text up to `at` does not change.
    let (mut copied, mut at) = (0, 0);
    let mut starter = 0;
    let same = |text: &str, from: usize, to: usize, origin: &mut Option<&mut Vec<(usize, usize)>>| {
        if let Some(origin) = origin {
            let chars = text[from..to].char_indices().map(|(i, c)| (from + i, c.len_utf8()));
            origin.extend(chars.flat_map(|(at, len)| std::iter::repeat_n((at, at + len), len)));
        }
    };
    while at < text.len() {
        let Some(c) = text[at..].chars().next() else { break };
        if !CHARS.get(c).combines() {
            starter = at;
            at += c.len_utf8();
            continue;
        }
        // The run extends from the last character that does not combine with those before it to the next such
        // character.
        let rest = &text[at..];
        let end = at + rest.find(|c| !CHARS.get(c).combines()).unwrap_or(rest.len());
        let run = compose(&text[starter..end]);
        out.push_str(&text[copied..starter]);
        same(text, copied, starter, &mut origin);
        if run == text[starter..end] {
            same(text, starter, end, &mut origin);
        } else if let Some(origin) = &mut origin {
            origin.extend(std::iter::repeat_n((starter, end), run.len()));
        }
        out.push_str(&run);
        (copied, at, starter) = (end, end, end);
    }
    same(text, copied, text.len(), &mut origin);
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[copied..]);
    Cow::Owned(out)
}

/// The NFC form of a short run.
fn compose(run: &str) -> String {
    let tables = &*TABLES;
    let mut chars: Vec<(char, u8)> = Vec::new();
    run.chars().for_each(|c| decompose(tables, c, &mut chars));
    // Marks go in the order of their classes; those of one class keep theirs.
    for marks in chars.split_mut(|(_, class)| *class == 0) {
        marks.sort_by_key(|(_, class)| *class);
    }
    let mut out: Vec<char> = Vec::with_capacity(chars.len());
    let mut starter = None;
    let mut last_class = 0;
    for &(c, class) in &chars {
        // A mark composes unless another mark between has the same class or a higher one.
        let next = starter.is_some_and(|at: usize| at + 1 == out.len());
        let free = next || last_class < class;
        if let Some(at) = starter.filter(|_| free)
            && let Some(both) = pair(tables, out[at], c)
        {
            out[at] = both;
            continue;
        }
        if class == 0 {
            starter = Some(out.len());
        }
        last_class = class;
        out.push(c);
    }
    out.into_iter().collect()
}

fn decompose(tables: &Tables, c: char, out: &mut Vec<(char, u8)>) {
    let syllable = (c as u32).wrapping_sub(hangul::SYLLABLE);
    if syllable < hangul::SYLLABLES {
        let jamo = |base: u32, index: u32| char::from_u32(base + index).map(|c| (c, 0));
        let trail = syllable % hangul::TRAILS;
        out.extend(jamo(hangul::LEAD, syllable / hangul::TRAILS / hangul::VOWELS));
        out.extend(jamo(hangul::VOWEL, syllable / hangul::TRAILS % hangul::VOWELS));
        out.extend(jamo(hangul::TRAIL, trail).filter(|_| trail != 0));
        return;
    }
    match tables.parts.get(&c) {
        Some(&(first, second)) => {
            decompose(tables, first, out);
            second.into_iter().for_each(|c| decompose(tables, c, out));
        }
        None => out.push((c, tables.combining.get(&c).copied().unwrap_or(0))),
    }
}

/// The character that two others compose.
fn pair(tables: &Tables, a: char, b: char) -> Option<char> {
    let (first, second) = (a as u32, b as u32);
    let (lead, vowel) = (first.wrapping_sub(hangul::LEAD), second.wrapping_sub(hangul::VOWEL));
    if lead < hangul::LEADS && vowel < hangul::VOWELS {
        return char::from_u32(hangul::SYLLABLE + (lead * hangul::VOWELS + vowel) * hangul::TRAILS);
    }
    let (syllable, trail) = (first.wrapping_sub(hangul::SYLLABLE), second.wrapping_sub(hangul::TRAIL));
    if syllable < hangul::SYLLABLES && syllable % hangul::TRAILS == 0 && (1..hangul::TRAILS).contains(&trail) {
        return char::from_u32(first + trail);
    }
    tables.composed.get(&(a, b)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_composed_and_keep_their_place() {
        let nfc = |text| normalize(text, None).into_owned();
        assert_eq!(nfc("e\u{301}x"), "éx");
        assert_eq!(nfc("ae\u{323}\u{302}"), "aệ");
        assert_eq!(nfc("e\u{302}\u{323}"), "ệ");
        assert_eq!(nfc("\u{301}e"), "\u{301}e");
        assert_eq!(nfc("\u{212b}"), "Å");
        assert_eq!(nfc("\u{1112}\u{1161}\u{11ab}"), "한");
        assert_eq!(nfc("\u{958}"), "\u{915}\u{93c}");
        // A mark of a class that the library does not know stays where it is.
        assert_eq!(nfc("a\u{897}\u{334}"), "a\u{897}\u{334}");
        let mut origin = Vec::new();
        normalize("ae\u{301}b", Some(&mut origin));
        assert_eq!(origin, [(0, 1), (1, 4), (1, 4), (4, 5)]);
    }
}
