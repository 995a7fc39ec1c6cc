//! The Unicode tables of the `tokenizers` library: the character classes of its patterns (Unicode 16), and the older
//! tables of its NFC. `generate.py` queries the library and writes the tables.

mod classes;
mod composition;
mod nfc;

use std::sync::LazyLock;

pub(crate) use nfc::normalize;

/// The class of a character in a pre-tokenization pattern. Each character is in exactly one class.
pub(crate) mod class {
    /// Punctuation, symbols, controls, unassigned code points.
    pub(crate) const OTHER: u8 = 0;
    /// Uppercase and titlecase letters (general categories Lu and Lt).
    pub(crate) const UPPER: u8 = 1;
    /// Lowercase letters (general category Ll).
    pub(crate) const LOWER: u8 = 2;
    /// Letters without case (general categories Lm and Lo).
    pub(crate) const LETTER: u8 = 3;
    /// Combining marks (general categories Mn, Mc and Me).
    pub(crate) const MARK: u8 = 4;
    /// Numbers (general categories Nd, Nl and No).
    pub(crate) const NUMBER: u8 = 5;
    /// Characters with the property White_Space, except CR and LF.
    pub(crate) const SPACE: u8 = 6;
    /// CR and LF.
    pub(crate) const NEWLINE: u8 = 7;
}

/// The class of a character and three flags, in one byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CharProperties(u8);

impl CharProperties {
    const WORD: u8 = 8;
    const COMBINES: u8 = 16;
    const DIGIT: u8 = 32;

    /// The class, one of the constants in [`class`].
    #[inline(always)]
    pub(crate) fn class(self) -> u8 {
        self.0 & 7
    }
    /// Whether a `single_word` token cannot match next to this character.
    pub(crate) fn is_word(self) -> bool {
        self.0 & Self::WORD != 0
    }
    /// Whether NFC may change the character or its place among those before it.
    #[inline(always)]
    pub(crate) fn combines(self) -> bool {
        self.0 & Self::COMBINES != 0
    }
    /// Whether the `Digits` component makes it a separate word.
    #[inline(always)]
    pub(crate) fn is_digit(self) -> bool {
        self.0 & Self::DIGIT != 0
    }
}

/// A two-level table of the properties of all code points.
pub(crate) struct PropertyTable {
    ascii: [CharProperties; 128],
    page_of: Vec<u8>,
    pages: Vec<[CharProperties; 256]>,
}

/// The properties of all characters.
pub(crate) static CHARS: LazyLock<PropertyTable> = LazyLock::new(PropertyTable::new);

impl PropertyTable {
    fn new() -> Self {
        let entries =
            classes::RUNS.iter().flat_map(|&(count, entry)| std::iter::repeat_n(CharProperties(entry), count as usize));
        let entries: Vec<CharProperties> = entries.collect();
        let (mut page_of, mut pages) = (Vec::new(), Vec::<[CharProperties; 256]>::new());
        for page in entries.as_chunks::<256>().0 {
            let known = pages.iter().position(|known| known == page);
            page_of.push(known.unwrap_or(pages.len()) as u8); // About 150 pages differ.
            if known.is_none() {
                pages.push(*page);
            }
        }
        let mut ascii = [CharProperties(0); 128];
        ascii.copy_from_slice(&pages[0][..128]);
        Self { ascii, page_of, pages }
    }

    /// The properties of an ASCII character.
    #[inline(always)]
    pub(crate) fn ascii(&self, byte: u8) -> CharProperties {
        self.ascii[usize::from(byte & 127)]
    }

    #[inline(always)]
    pub(crate) fn get(&self, c: char) -> CharProperties {
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
