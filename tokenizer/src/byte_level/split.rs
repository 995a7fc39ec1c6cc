//! Pre-tokenization: cuts a text into words. No token crosses the end of a word.
//!
//! A file gives the words as a regular expression. The supported models use four expressions, and each is a
//! hand-written automaton here. An automaton looks at most characters once. The expressions have look-ahead
//! (`\s+(?!\S)`), so a general engine would have to backtrack. `docs/benchmarks/tokenizer.md` compares the speed of
//! both.

use crate::unicode::class::{LETTER, LOWER, MARK, NEWLINE, NUMBER, OTHER, SPACE, UPPER};
use crate::unicode::{CHARS, PropertyTable};

/// GPT-2's pattern, built into the `ByteLevel` component of a `tokenizer.json`.
pub(crate) const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// Llama 3's pattern.
pub(crate) const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
/// The pattern of Qwen 2, 2.5 and 3.
pub(crate) const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
/// Tekken's pattern.
pub(crate) const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// The automaton for a pattern.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum WordPattern {
    Gpt2,
    /// [`LLAMA3`] and [`QWEN2`]. The number is the maximum count of digits in a word.
    Llama3(u32),
    Tekken,
}

/// Cuts texts into words.
pub(crate) struct Splitter {
    pattern: WordPattern,
    /// Every digit is a separate word (the `Digits` component). Look-ahead treats a digit as the end of the text.
    digits_apart: bool,
    chars: &'static PropertyTable,
}

impl Splitter {
    /// The splitter for the pattern of a file. `None` unless it equals one of the four patterns exactly.
    pub(crate) fn new(pattern: &str, digits_apart: bool) -> Option<Self> {
        let pattern = match pattern {
            GPT2 => WordPattern::Gpt2,
            LLAMA3 => WordPattern::Llama3(3),
            QWEN2 => WordPattern::Llama3(1),
            TEKKEN => WordPattern::Tekken,
            _ => return None,
        };
        Some(Self { pattern, digits_apart, chars: &CHARS })
    }

    /// The end of the word that begins at byte `at` of `text`. A character must begin there.
    #[inline(always)]
    pub(crate) fn word_end(&self, text: &str, at: usize) -> usize {
        let bytes = text.as_bytes();
        // Most words are ASCII letters, perhaps after a space. Tekken's pattern also depends on their case.
        if self.pattern != WordPattern::Tekken {
            let first = at + usize::from(bytes[at] == b' ');
            if bytes.get(first).is_some_and(u8::is_ascii_alphabetic) {
                return self.letters(text, first + 1);
            }
        }
        match self.pattern {
            WordPattern::Gpt2 => self.gpt2(text, at),
            WordPattern::Llama3(digits) => self.llama3(text, at, digits),
            WordPattern::Tekken => self.tekken(text, at),
        }
    }

    fn gpt2(&self, text: &str, at: usize) -> usize {
        let Some((class, next)) = self.class_at(text, at) else { return at };
        match class {
            UPPER | LOWER | LETTER => self.letters(text, next),
            NUMBER if self.digits_apart => next,
            NUMBER => self.numbers(text, next, u32::MAX),
            OTHER | MARK => {
                let bytes = text.as_bytes();
                if bytes[at] == b'\''
                    && let Some(len) = contraction(&bytes[next..])
                {
                    return next + len;
                }
                self.others(text, next)
            }
            _ if text.as_bytes()[at] == b' ' => match self.class_at(text, next) {
                Some((UPPER | LOWER | LETTER, next)) => self.letters(text, next),
                Some((NUMBER, next)) if !self.digits_apart => self.numbers(text, next, u32::MAX),
                Some((OTHER | MARK, next)) => self.others(text, next),
                _ => self.spaces(text, at, false),
            },
            _ => self.spaces(text, at, false),
        }
    }

    fn llama3(&self, text: &str, at: usize, most_digits: u32) -> usize {
        let Some((class, next)) = self.class_at(text, at) else { return at };
        match class {
            UPPER | LOWER | LETTER => return self.letters(text, next),
            NUMBER if self.digits_apart => return next,
            NUMBER => return self.numbers(text, next, most_digits - 1),
            NEWLINE => return self.spaces(text, at, true),
            _ => {}
        }
        let first = text.as_bytes()[at];
        if first == b'\''
            && let Some(len) = any_case_contraction(&text[next..])
        {
            return next + len;
        }
        match self.class_at(text, next) {
            Some((UPPER | LOWER | LETTER, next)) => self.letters(text, next),
            Some((OTHER | MARK, next)) if first == b' ' => self.punctuation(text, next, b'\n'),
            _ if class == SPACE => self.spaces(text, at, true),
            _ => self.punctuation(text, next, b'\n'),
        }
    }

    fn tekken(&self, text: &str, at: usize) -> usize {
        let Some((class, next)) = self.class_at(text, at) else { return at };
        match class {
            NUMBER => return next,
            NEWLINE => return self.spaces(text, at, true),
            UPPER | LOWER | LETTER => {
                let capitals = self.capitals(text, at);
                return capitals.then_lower.unwrap_or(capitals.end);
            }
            _ => {}
        }
        // The character may be the prefix of a word. A mark may also be the first character of a word itself.
        let capitals = self.capitals(text, next);
        if let Some(end) = capitals.then_lower {
            return end;
        }
        if class == MARK
            && let Some(end) = self.capitals(text, at).then_lower
        {
            return end;
        }
        if capitals.end > next {
            return capitals.end;
        }
        match self.class_at(text, next) {
            Some((OTHER | MARK, next)) if text.as_bytes()[at] == b' ' => self.punctuation(text, next, b'/'),
            _ if class == SPACE => self.spaces(text, at, true),
            _ => self.punctuation(text, next, b'/'),
        }
    }

    /// The class of the character at `at`, and the offset of the next character. `None` at the end of the text.
    #[inline(always)]
    fn class_at(&self, text: &str, at: usize) -> Option<(u8, usize)> {
        let byte = *text.as_bytes().get(at)?;
        if byte.is_ascii() {
            return Some((self.chars.ascii(byte).class(), at + 1));
        }
        let c = text[at..].chars().next()?;
        let info = self.chars.get(c);
        let class = if self.digits_apart && info.is_digit() { NUMBER } else { info.class() };
        Some((class, at + c.len_utf8()))
    }

    /// The end of the run of characters whose classes `wanted` accepts.
    #[inline(always)]
    fn run(&self, text: &str, mut at: usize, wanted: impl Fn(u8) -> bool) -> usize {
        while let Some((class, next)) = self.class_at(text, at)
            && wanted(class)
        {
            at = next;
        }
        at
    }

    /// `\p{L}*`
    #[inline(always)]
    fn letters(&self, text: &str, mut at: usize) -> usize {
        // The length of a word is unpredictable. Counting the letters of eight bytes at once saves a mispredicted
        // branch.
        while let Some(eight) = text.as_bytes()[at..].first_chunk() {
            let others = not_letters(u64::from_le_bytes(*eight));
            at += others.trailing_zeros() as usize / 8;
            if others != 0 {
                break;
            }
        }
        if text.as_bytes().get(at).is_some_and(|byte| *byte < 0x80 && !byte.is_ascii_alphabetic()) {
            return at;
        }
        loop {
            // The first of three bytes identifies most Chinese and Korean characters.
            while text.as_bytes().get(at).is_some_and(|byte| matches!(byte, 0xe5..=0xe9 | 0xeb | 0xec)) {
                at += 3;
            }
            match self.class_at(text, at) {
                Some((UPPER | LOWER | LETTER, next)) => at = next,
                _ => return at,
            }
        }
    }

    /// `\p{N}{0,most}`
    fn numbers(&self, text: &str, mut at: usize, most: u32) -> usize {
        for _ in 0..most {
            match self.class_at(text, at) {
                Some((NUMBER, next)) => at = next,
                _ => break,
            }
        }
        at
    }

    /// `[^\s\p{L}\p{N}]*`
    fn others(&self, text: &str, at: usize) -> usize {
        self.run(text, at, |class| matches!(class, OTHER | MARK))
    }

    /// `[^\s\p{L}\p{N}]*[\r\n]*`; if `tail` is a slash, the second part is `[\r\n/]*`.
    fn punctuation(&self, text: &str, at: usize, tail: u8) -> usize {
        let mut at = self.others(text, at);
        while text.as_bytes().get(at).is_some_and(|byte| matches!(byte, b'\r' | b'\n') || *byte == tail) {
            at += 1;
        }
        at
    }

    /// `\s*[\r\n]+|\s+(?!\S)|\s+`. Without `newlines`, only the last two alternatives.
    fn spaces(&self, text: &str, start: usize, newlines: bool) -> usize {
        let (mut at, mut last, mut line_end) = (start, start, start);
        // A fast path for the spaces of indentation.
        while text.as_bytes().get(at) == Some(&b' ') {
            (last, at) = (at, at + 1);
        }
        while let Some((class @ (SPACE | NEWLINE), next)) = self.class_at(text, at) {
            if class == NEWLINE {
                line_end = next;
            }
            (last, at) = (at, next);
        }
        if newlines && line_end > start {
            return line_end;
        }
        // The last space before a word belongs to the word.
        let ends = at == text.len() || self.digits_apart && matches!(self.class_at(text, at), Some((NUMBER, _)));
        if ends || last == start { at } else { last }
    }

    /// Matches `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*` at `at`, and then `[\p{Ll}\p{Lm}\p{Lo}\p{M}]+` if possible.
    fn capitals(&self, text: &str, at: usize) -> Capitals {
        let (mut end, mut caseless) = (at, None);
        while let Some((class @ (UPPER | LETTER | MARK), next)) = self.class_at(text, end) {
            end = next;
            if class != UPPER {
                caseless = Some(end);
            }
        }
        let then_lower = match self.class_at(text, end) {
            Some((LOWER, next)) => Some(self.run(text, next, |class| matches!(class, LOWER | LETTER | MARK))),
            // The first part backtracks to the last character that the second part accepts as well.
            _ => caseless,
        };
        Capitals { end, then_lower }
    }
}

/// The result of [`Splitter::capitals`], in byte offsets.
struct Capitals {
    /// The end of the match of the first part alone.
    end: usize,
    /// The end of the match of both parts, if there is one.
    then_lower: Option<usize>,
}

/// The highest bit of each byte of a word that is not an ASCII letter.
#[inline(always)]
fn not_letters(word: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let lower = (word | (0x20 * EACH)) & (0x7f * EACH);
    // The first sum sets the high bit of bytes from `a` on, the second of bytes after `z`. No sum overflows its byte.
    let from_a = lower + (0x80 - b'a' as u64) * EACH;
    let behind_z = lower + (0x80 - b'z' as u64 - 1) * EACH;
    !(from_a & !behind_z & !word) & (0x80 * EACH)
}

/// The length of `s|t|re|ve|m|ll|d` at the beginning of `rest`.
fn contraction(rest: &[u8]) -> Option<usize> {
    match rest {
        [b's' | b't' | b'm' | b'd', ..] => Some(1),
        [b'r' | b'v', b'e', ..] | [b'l', b'l', ..] => Some(2),
        _ => None,
    }
}

/// The same, ignoring case. Unicode's case folding maps `ſ` to `s`.
fn any_case_contraction(rest: &str) -> Option<usize> {
    let mut lower = [0; 2];
    let len = rest.len().min(2);
    lower[..len].copy_from_slice(&rest.as_bytes()[..len]);
    lower.make_ascii_lowercase();
    if rest.starts_with('ſ') { Some('ſ'.len_utf8()) } else { contraction(&lower[..len]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words<'a>(pattern: &str, digits_apart: bool, text: &'a str) -> Vec<&'a str> {
        let splitter = Splitter::new(pattern, digits_apart).unwrap();
        let (mut out, mut at) = (Vec::new(), 0);
        while at < text.len() {
            let end = splitter.word_end(text, at);
            out.push(&text[at..end]);
            at = end;
        }
        out
    }

    #[test]
    fn letters_are_told_from_other_bytes() {
        for byte in 0..=255u8 {
            for other in [b'a', b'~', 0xff] {
                let mut eight = [other; 8];
                eight[3] = byte;
                let bits = not_letters(u64::from_le_bytes(eight));
                assert_eq!(bits >> 31 & 1 == 0, byte.is_ascii_alphabetic(), "{byte}");
                assert_eq!(bits >> 7 & 1 == 0, other == b'a');
                assert_eq!(bits & 0x7f7f_7f7f_7f7f_7f7f, 0);
            }
        }
    }

    #[test]
    fn chinese_and_korean_first_bytes_are_those_of_letters() {
        let chars = ('\u{5000}'..='\u{9fff}').chain('\u{b000}'..='\u{cfff}');
        let firsts: std::collections::BTreeSet<u8> = chars
            .map(|c| {
                assert_eq!(CHARS.get(c).class(), LETTER, "{c:?}");
                c.encode_utf8(&mut [0; 4]).as_bytes()[0]
            })
            .collect();
        assert_eq!(firsts.into_iter().collect::<Vec<_>>(), [0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xeb, 0xec]);
    }

    /// The expected words were recorded from the `tokenizers` library.
    #[test]
    fn patterns_cut_as_the_library_does() {
        let text = "I'LL say 'ſo' 12345!\n\n  x\t\u{3000} y  ";
        let llama3 =
            ["I", "'LL", " say", " '", "ſo", "'", " ", "123", "45", "!\n\n", " ", " x", "\t\u{3000}", " y", "  "];
        assert_eq!(words(LLAMA3, false, text), llama3);
        let qwen2 = words(QWEN2, false, text);
        assert_eq!(qwen2[7..14], ["1", "2", "3", "4", "5", "!\n\n", " "]);
        let gpt2 = words(GPT2, false, "I'LL we'll  12345 !x\n\n y");
        assert_eq!(gpt2, ["I", "'", "LL", " we", "'ll", " ", " 12345", " !", "x", "\n\n", " y"]);
        let digits = words(GPT2, true, "a  12 3²b");
        assert_eq!(digits, ["a", "  ", "1", "2", " ", "3", "²", "b"]);
        let tekken = words(TEKKEN, false, "HTTPServer's ǅ中A \u{301}AB a/\n/x");
        assert_eq!(tekken, ["HTTPServer", "'s", " ǅ中", "A", " \u{301}", "AB", " a", "/\n/", "x"]);
    }
}
