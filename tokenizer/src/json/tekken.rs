//! Mistral's `tekken.json`. Its tokens have ranks and are written in Base64. Its special tokens have the first ids.

use std::collections::HashSet;

use super::file::{TekkenConfig, TekkenSpecial, TekkenToken};
use crate::byte_level::{AddedToken, ByteLevel, ByteLevelSettings, Flags, Splitter, char_of};
use crate::error::{Error, Result};
use crate::pieces::{PieceKind, Pieces};
use crate::vocab::Order;
use crate::{Engine, Frame, Tokenizer};

/// The special tokens of files that list none, in the order of their ids.
const SPECIAL: [&str; 20] = [
    "<unk>",
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "[TOOL_CALLS]",
    "[IMG]",
    "<pad>",
    "[IMG_BREAK]",
    "[IMG_END]",
    "[PREFIX]",
    "[MIDDLE]",
    "[SUFFIX]",
    "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]",
    "[TOOL_CONTENT]",
];

/// Builds the tokenizer as mistral-common does. It keeps only as many tokens as make up `default_vocab_size` together
/// with the special tokens. Merges go by rank, and a word that is a token becomes that token.
pub(super) fn read(
    config: &TekkenConfig,
    vocab: &[TekkenToken],
    special: Option<&[TekkenSpecial]>,
) -> Result<Tokenizer> {
    let names = special_names(config.default_num_special_tokens, special)?;
    let count = config.default_vocab_size.checked_sub(names.len()).filter(|count| *count <= vocab.len());
    let count = count.ok_or_else(|| {
        Error::invalid(format!(
            "config.default_vocab_size is {}, but there are {} tokens and {} special tokens",
            config.default_vocab_size,
            vocab.len(),
            names.len()
        ))
    })?;
    let mut pieces = Pieces::default();
    names.iter().for_each(|name| pieces.push(name, 0.0, PieceKind::Control));
    let mut text = String::new();
    for (rank, token) in vocab[..count].iter().enumerate() {
        let bytes = base64(&token.token_bytes).filter(|_| token.rank == rank);
        let bytes = bytes.ok_or_else(|| {
            Error::invalid(format!(
                "vocab[{rank}] has the rank {} and token_bytes {:?}; expected rank {rank} and Base64",
                token.rank, token.token_bytes
            ))
        })?;
        text.clear();
        text.extend(bytes.iter().map(|byte| char_of(*byte)));
        // Ranks are below 2^24, so an f32 holds them exactly.
        pieces.push(&text, -(rank as f32), PieceKind::Normal);
    }
    let splitter = Splitter::new(&config.pattern, false).ok_or_else(|| {
        Error::unsupported(format!("config.pattern {:?}; only that of 2024's tekken.json is supported", config.pattern))
    })?;
    let added = (0..).zip(&names).map(|(id, name)| AddedToken {
        id,
        content: name.clone(),
        flags: Flags { special: true, ..Flags::default() },
    });
    let settings = ByteLevelSettings { nfc: false, ignore_merges: true };
    let mut engine = ByteLevel::new(pieces, Order::Scores, splitter, settings, added.collect())?;
    if !engine.has_all_bytes() {
        return Err(Error::invalid("vocab lacks some of the 256 bytes"));
    }
    let id = |name: &str| (0..).zip(&names).find(|(_, known)| *known == name).map(|(id, _)| id);
    (engine.bos, engine.eos, engine.pad) = (id("<s>"), id("</s>"), id("<pad>"));
    let frame = Frame { begin: engine.bos.into_iter().collect(), end: Vec::new() };
    Ok(Tokenizer::new(Engine::ByteLevel(Box::new(engine)), frame))
}

/// The names of all special tokens: those of the file or [`SPECIAL`], then `<SPECIAL_20>` and so on.
fn special_names(count: usize, special: Option<&[TekkenSpecial]>) -> Result<Vec<String>> {
    let mut names: Vec<String> = match special {
        None => SPECIAL.iter().map(|name| (*name).to_owned()).collect(),
        Some(special) => special.iter().map(|token| token.token_str.clone()).collect(),
    };
    if let Some((at, token)) = special.unwrap_or_default().iter().enumerate().find(|(at, token)| token.rank != *at) {
        return Err(Error::invalid(format!(
            "special_tokens[{at}] {:?} has the rank {}; expected {at}",
            token.token_str, token.rank
        )));
    }
    if names.len() > count || count > 1 << 20 {
        return Err(Error::invalid(format!(
            "config.default_num_special_tokens is {count}, but there are {} special tokens",
            names.len()
        )));
    }
    names.extend((names.len()..count).map(|id| format!("<SPECIAL_{id}>")));
    let mut seen = HashSet::new();
    match names.iter().find(|name| !seen.insert(name.as_str())) {
        Some(name) => Err(Error::invalid(format!("special_tokens: {name:?} is listed twice"))),
        None => Ok(names),
    }
}

/// The bytes of a text in Base64 (RFC 4648, padded).
fn base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    if !text.len().is_multiple_of(4) || text.len() - digits.len() > 2 {
        return None;
    }
    let mut out = Vec::with_capacity(3 * text.len() / 4);
    for group in digits.as_bytes().chunks(4) {
        let mut bits = 0;
        for at in 0..4 {
            let digit = match group.get(at).copied().unwrap_or(b'A') {
                upper @ b'A'..=b'Z' => upper - b'A',
                lower @ b'a'..=b'z' => lower - b'a' + 26,
                digit @ b'0'..=b'9' => digit - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(digit);
        }
        out.extend(&bits.to_be_bytes()[1..group.len()]);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read() {
        let cases: [(&str, Option<&[u8]>); 8] = [
            ("", Some(b"")),
            ("AA==", Some(b"\0")),
            ("INA=", Some(b" \xd0")),
            ("+/8A", Some(b"\xfb\xff\0")),
            ("A", None),
            ("A===", None),
            ("A\u{e9}==", None),
            ("====", None),
        ];
        for (text, bytes) in cases {
            assert_eq!(base64(text).as_deref(), bytes, "{text:?}");
        }
    }
}
