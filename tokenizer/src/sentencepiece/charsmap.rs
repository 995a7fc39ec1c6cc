//! SentencePiece's precompiled character map: a Darts double-array trie over UTF-8 bytes whose values are offsets
//! into a blob of NUL-terminated replacement texts.
//!
//! Layout: `u32 length of the trie in bytes`, the trie as little-endian `u32` units, the blob. A unit holds the byte
//! that leads to it (bits 0..8), whether a value hangs below it (bit 8) and the exclusive-or offset of its children
//! (bits 10.., shifted by 8 more if bit 9 is set); a value is a unit with bit 31 set.

use crate::error::{Error, Result};

pub(crate) struct Charsmap {
    units: Vec<u32>,
    replacements: String,
}

/// The maximum number of matches that SentencePiece considers.
const MOST_MATCHES: usize = 32;
/// The longest replacement in SentencePiece's own rules has 33 bytes. Without a limit, a hostile file could turn a
/// short text into terabytes.
const LONGEST_REPLACEMENT: usize = 1024;

impl Charsmap {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let broken = |what: String| Error::invalid(format!("normalizer_spec.precompiled_charsmap: {what}"));
        let (head, rest) = bytes.split_first_chunk().ok_or_else(|| broken("shorter than its own length".into()))?;
        let size = u32::from_le_bytes(*head) as usize;
        if !size.is_multiple_of(4) || size == 0 || size >= rest.len() {
            return Err(broken(format!("a trie of {size} bytes in {}", rest.len())));
        }
        let (trie, blob) = rest.split_at(size);
        let units = trie.chunks_exact(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect();
        let replacements = std::str::from_utf8(blob).map_err(|e| broken(format!("replacement texts: {e}")))?;
        if let Some(long) = replacements.split('\0').find(|text| text.len() > LONGEST_REPLACEMENT) {
            return Err(broken(format!("a replacement of {} bytes", long.len())));
        }
        Ok(Self { units, replacements: replacements.to_owned() })
    }

    /// The longest rule that matches at the start of `text`: the length that it replaces, and the replacement.
    pub(crate) fn longest(&self, text: &str) -> Option<(usize, &str)> {
        let mut node = offset(*self.units.first()?) as usize;
        let mut best = None;
        let mut matches = 0;
        for (i, &byte) in text.as_bytes().iter().enumerate() {
            node ^= usize::from(byte);
            let Some(&unit) = self.units.get(node) else { break };
            if unit & (1 << 31 | 0xff) != u32::from(byte) {
                break;
            }
            node ^= offset(unit) as usize;
            if unit >> 8 & 1 == 1 {
                let Some(&leaf) = self.units.get(node) else { break };
                matches += 1;
                if matches > MOST_MATCHES {
                    break;
                }
                best = Some((i + 1, leaf & 0x7fff_ffff));
            }
        }
        let (len, at) = best?;
        // Only hostile files have rules that end inside a character or texts that start inside one.
        let replacement = self.replacements.get(at as usize..)?;
        let end = replacement.find('\0').unwrap_or(replacement.len());
        text.is_char_boundary(len).then(|| (len, &replacement[..end]))
    }
}

fn offset(unit: u32) -> u32 {
    (unit >> 10) << ((unit & (1 << 9)) >> 6)
}
