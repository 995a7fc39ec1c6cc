//! GPT-2's alphabet: byte-level vocabularies write every byte as one printable character.

/// The character that stands for a byte. Printable Latin-1 characters stand for themselves; the other 68 bytes, in
/// their order, are U+0100 and up, so that a space is `Ġ`.
pub(crate) fn char_of(byte: u8) -> char {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return byte.into();
    }
    let before = (0..byte).filter(|b| !printable(*b)).count() as u32;
    char::from_u32(0x100 + before).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The characters of all bytes.
pub(crate) fn chars() -> [char; 256] {
    let mut chars = ['\0'; 256];
    (0..=255).for_each(|byte: u8| chars[usize::from(byte)] = char_of(byte));
    chars
}

/// Turns a token's text into its bytes.
pub(crate) struct Alphabet {
    /// The byte of each character below U+0144. 68 of these characters stand for no byte.
    bytes: [Option<u8>; 0x144],
}

impl Alphabet {
    pub(crate) fn new() -> Self {
        let mut bytes = [None; 0x144];
        (0..=255).for_each(|byte| bytes[char_of(byte) as usize] = Some(byte));
        Self { bytes }
    }

    /// Appends the bytes that `text` stands for. If a character of `text` is outside of the alphabet, `text` stands for
    /// its own UTF-8 bytes, as in Hugging Face's decoder.
    pub(crate) fn push_bytes(&self, text: &str, out: &mut Vec<u8>) {
        let begin = out.len();
        for c in text.chars() {
            match self.bytes.get(c as usize) {
                Some(Some(byte)) => out.push(*byte),
                _ => {
                    out.truncate(begin);
                    out.extend_from_slice(text.as_bytes());
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_own_character() {
        assert_eq!([char_of(b' '), char_of(0), char_of(0x7f), char_of(0xad)], ['Ġ', 'Ā', 'ġ', 'Ń']);
        let alphabet = Alphabet::new();
        let text: String = chars().iter().collect();
        let mut bytes = Vec::new();
        alphabet.push_bytes(&text, &mut bytes);
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
        bytes.clear();
        alphabet.push_bytes("é ", &mut bytes);
        assert_eq!(bytes, "é ".as_bytes());
    }
}
