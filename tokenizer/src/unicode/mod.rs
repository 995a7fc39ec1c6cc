//! What the `tokenizers` library knows about Unicode: the character classes of its patterns (Unicode 16), and NFC with
//! its older tables. `generate.py` writes the tables by asking the library.

mod classes;
mod composition;
mod nfc;

use std::sync::LazyLock;

pub(crate) use nfc::normalize;

/// The class of a character in a pre-tokenization pattern. Each character is in exactly one class.
pub(crate) mod class {
    /// Punctuation, symbols, controls, unassigned code points.
    pub(crate) const OTHER: u8 = 0;
    /// Lu and Lt.
    pub(crate) const UPPER: u8 = 1;
    /// Ll.
    pub(crate) const LOWER: u8 = 2;
    /// Lm and Lo: letters without case.
    pub(crate) const LETTER: u8 = 3;
    /// M.
    pub(crate) const MARK: u8 = 4;
    /// N.
    pub(crate) const NUMBER: u8 = 5;
    /// White_Space, without CR and LF.
    pub(crate) const SPACE: u8 = 6;
    /// CR and LF.
    pub(crate) const NEWLINE: u8 = 7;
}

/// The entry of a character: its class and three flags.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CharInfo(u8);

impl CharInfo {
    const WORD: u8 = 8;
    const COMBINES: u8 = 16;
    const DIGIT: u8 = 32;

    /// One of [`class`].
    #[inline(always)]
    pub(crate) fn class(self) -> u8 {
        self.0 & 7
    }
    /// Whether it counts as part of a word beside a `single_word` token.
    pub(crate) fn is_word(self) -> bool {
        self.0 & Self::WORD != 0
    }
    /// Whether NFC may change the character or its place among those before it.
    #[inline(always)]
    pub(crate) fn combines(self) -> bool {
        self.0 & Self::COMBINES != 0
    }
    /// Whether the `Digits` step splits it off.
    #[inline(always)]
    pub(crate) fn is_digit(self) -> bool {
        self.0 & Self::DIGIT != 0
    }
}

/// Two-level table over all code points.
pub(crate) struct CharTable {
    ascii: [CharInfo; 128],
    page_of: Vec<u8>,
    pages: Vec<[CharInfo; 256]>,
}

/// The entries of all characters.
pub(crate) static CHARS: LazyLock<CharTable> = LazyLock::new(CharTable::new);

impl CharTable {
    fn new() -> Self {
        let entries =
            classes::RUNS.iter().flat_map(|&(count, entry)| std::iter::repeat_n(CharInfo(entry), count as usize));
        let entries: Vec<CharInfo> = entries.collect();
        let (mut page_of, mut pages) = (Vec::new(), Vec::<[CharInfo; 256]>::new());
        for page in entries.as_chunks::<256>().0 {
            let known = pages.iter().position(|known| known == page);
            page_of.push(known.unwrap_or(pages.len()) as u8); // Some 150 pages differ.
            if known.is_none() {
                pages.push(*page);
            }
        }
        let mut ascii = [CharInfo(0); 128];
        ascii.copy_from_slice(&pages[0][..128]);
        Self { ascii, page_of, pages }
    }

    /// The entry of an ASCII character.
    #[inline(always)]
    pub(crate) fn ascii(&self, byte: u8) -> CharInfo {
        self.ascii[usize::from(byte & 127)]
    }

    #[inline(always)]
    pub(crate) fn get(&self, c: char) -> CharInfo {
        let c = c as usize;
        if c < 128 { self.ascii[c] } else { self.pages[usize::from(self.page_of[c >> 8])][c & 255] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_point_has_an_entry() {
        assert_eq!(classes::RUNS.iter().map(|run| run.0).sum::<u32>(), 0x11_0000);
        assert!(CHARS.pages.len() <= 256, "{} pages", CHARS.pages.len());
        let class = |c| CHARS.get(c).class();
        assert_eq!(class('\u{105c0}'), class::LETTER, "a letter of Unicode 16");
        assert_eq!(class('\u{a7ce}'), class::OTHER, "a letter of Unicode 17");
        assert_eq!([class('ǅ'), class('ſ'), class('ª')], [class::UPPER, class::LOWER, class::LETTER]);
        assert_eq!([class('\u{85}'), class('\u{200b}'), class('\u{1c}')], [class::SPACE, class::OTHER, class::OTHER]);
        assert!(CHARS.get('Ⅻ').is_digit() && CHARS.get('\u{11de0}').is_digit());
    }
}
