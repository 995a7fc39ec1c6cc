//! Where a long word can be cut before merging: between two characters that no merge joins.
//!
//! In Chinese and Japanese, a word of the pre-tokenizer is often a whole sentence. Merging it at once takes longer than
//! merging its parts, and the word cache rarely holds it. Most of its parts are short and common.
//!
//! A merge joins characters `c` and `d` if its left token ends with `c` and its right token begins with `d`. A token
//! may also hold only the last bytes of `c` or the first bytes of `d`; the table records such tokens by these bytes.

/// The pairs of neighboring characters that some merge joins. A hash collision can report a pair that no merge joins,
/// which only costs time. No joined pair is missed.
pub(crate) struct Joints {
    /// A bit for the hash of each pair of characters.
    pairs: Vec<u64>,
    /// A bit for each pair of the last byte of one incomplete character and the first byte of another.
    bytes: Box<[u64; 1024]>,
    /// A bit for the hash of each character that some merge joins to an incomplete character after it.
    before_part: [u64; 64],
    /// A bit for the hash of each character that some merge joins to an incomplete character before it.
    after_part: [u64; 64],
}

/// One side of a joint.
#[derive(Clone, Copy)]
enum Side<'t> {
    /// The bytes of a whole character.
    Char(&'t [u8]),
    /// The byte at the joint of a token with a part of a character.
    Byte(u8),
}

impl Joints {
    /// The table of pairs takes 32 kB, which stay in the processor's cache.
    const PAIR_BITS: u32 = 18;

    /// The joints of these merges, given as the bytes of both tokens.
    pub(crate) fn new<'t>(merges: impl Iterator<Item = (&'t [u8], &'t [u8])>) -> Self {
        let mut joints = Self {
            pairs: vec![0; 1 << (Self::PAIR_BITS - 6)],
            bytes: Box::new([0; 1024]),
            before_part: [0; 64],
            after_part: [0; 64],
        };
        let set = |bits: &mut [u64], bit: usize| bits[bit >> 6] |= 1 << (bit & 63);
        for (left, right) in merges {
            match (last(left), first(right)) {
                (Some(Side::Char(left)), Some(Side::Char(right))) => {
                    set(&mut joints.pairs, pair_bit(hash(left), hash(right)));
                }
                (Some(Side::Byte(left)), Some(Side::Byte(right))) => {
                    set(joints.bytes.as_mut_slice(), usize::from(left) << 8 | usize::from(right));
                }
                (Some(Side::Char(left)), Some(Side::Byte(_))) => set(&mut joints.before_part, char_bit(hash(left))),
                (Some(Side::Byte(_)), Some(Side::Char(right))) => set(&mut joints.after_part, char_bit(hash(right))),
                _ => {}
            }
        }
        joints
    }

    /// The end of the part that begins at `at`, an offset inside `text`.
    #[inline]
    pub(crate) fn part_end(&self, text: &str, mut at: usize) -> usize {
        let bytes = text.as_bytes();
        let has = |bits: &[u64], bit: usize| bits[bit >> 6] >> (bit & 63) & 1 != 0;
        let mut left = hash(&bytes[at..at + char_len(bytes[at])]);
        at += char_len(bytes[at]);
        while at < bytes.len() {
            let len = char_len(bytes[at]);
            let right = hash(&bytes[at..at + len]);
            let joined = has(&self.pairs, pair_bit(left, right))
                || has(&self.before_part, char_bit(left))
                || has(&self.after_part, char_bit(right))
                || has(self.bytes.as_slice(), usize::from(bytes[at - 1]) << 8 | usize::from(bytes[at]));
            if !joined {
                return at;
            }
            (left, at) = (right, at + len);
        }
        at
    }
}

/// The length of the character with this first byte.
#[inline(always)]
fn char_len(first: u8) -> usize {
    match first {
        0..0xc0 => 1,
        0xc0..0xe0 => 2,
        0xe0..0xf0 => 3,
        _ => 4,
    }
}

/// The hash of a character, given as its bytes.
#[inline(always)]
fn hash(char: &[u8]) -> u64 {
    let word = char.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    word.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[inline(always)]
fn pair_bit(left: u64, right: u64) -> usize {
    ((left.rotate_left(23) ^ right).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - Joints::PAIR_BITS)) as usize
}

#[inline(always)]
fn char_bit(hash: u64) -> usize {
    (hash >> 52) as usize
}

/// The character that a token ends with, if the token can end at the end of a character.
fn last(token: &[u8]) -> Option<Side<'_>> {
    let continuing = token.iter().rev().take_while(|byte| is_continuation(**byte)).count();
    match token.len().checked_sub(continuing + 1) {
        None => token.last().map(|byte| Side::Byte(*byte)),
        Some(lead) => std::str::from_utf8(&token[lead..]).is_ok().then_some(Side::Char(&token[lead..])),
    }
}

/// The character that a token begins with, if the token can begin at the beginning of a character.
fn first(token: &[u8]) -> Option<Side<'_>> {
    let (&lead, rest) = token.split_first()?;
    if is_continuation(lead) {
        return None;
    }
    let continuing = rest.iter().take_while(|byte| is_continuation(**byte)).count();
    match std::str::from_utf8(&token[..=continuing]) {
        Ok(_) => Some(Side::Char(&token[..=continuing])),
        // Only a token that ends within a character can be followed by the rest of it.
        Err(_) => (continuing == rest.len()).then_some(Side::Byte(lead)),
    }
}

fn is_continuation(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_characters_join_too() {
        let merges: [(&[u8], &[u8]); 4] =
            [(b"a", b"b"), ("xé".as_bytes(), b"\xe4"), (b"\xbd", "é".as_bytes()), (b"\xb8", b"\xe4\xb8")];
        let joints = Joints::new(merges.into_iter());
        let parts = |text: &str| {
            let (mut out, mut at) = (Vec::new(), 0);
            while at < text.len() {
                let end = joints.part_end(text, at);
                out.push(text[at..end].to_owned());
                at = end;
            }
            out
        };
        assert_eq!(parts("abba"), ["ab", "b", "a"]);
        // Some merge joins `é` to an incomplete character. The table does not record to which.
        assert_eq!(parts("aé中中éb"), ["aé中", "中éb"]);
        // `中` is E4 B8 AD, and `丸` ends with B8.
        assert_eq!(parts("丸中丸"), ["丸中", "丸"]);
    }
}
