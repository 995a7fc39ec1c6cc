//! A vocabulary and a text, both made from the input: the ids must be those of the naive reference.
#![no_main]

use halfbyte_tokenizer::{ModelFile, PieceKind, Tokenizer};
use libfuzzer_sys::fuzz_target;

#[path = "../../tests/properties/naive.rs"]
mod naive;

const LETTERS: [&str; 12] = ["a", "b", "c", "d", "▁", " ", "é", "가", "😀", "z", "\0", "漢"];

// The first byte: settings. Then, up to a 255, pieces: a byte of kind and score, a byte of length, letters. Then the
// text.
fuzz_target!(|data: &[u8]| {
    let mut bytes = data.iter().take(600).copied();
    let Some(settings) = bytes.next() else { return };
    let letter = |byte: u8| LETTERS[usize::from(byte) % LETTERS.len()];
    let mut model = ModelFile::default();
    model.normalizer.remove_extra_whitespaces = false;
    model.normalizer.add_dummy_prefix = settings & 1 != 0;
    model.normalizer.escape_whitespaces = settings & 2 != 0;
    model.byte_fallback = settings & 4 != 0;
    model.pieces.push("<unk>", 0.0, PieceKind::Unknown);
    if model.byte_fallback {
        (0..=255u8).for_each(|b| model.pieces.push(&format!("<0x{b:02X}>"), 0.0, PieceKind::Byte));
    }
    while let Some(head) = bytes.next().filter(|head| *head != 255) {
        let length = bytes.next().unwrap_or(0) % 8 + 1;
        let text: String = bytes.by_ref().take(length.into()).map(letter).collect();
        let kind = match head >> 5 {
            0 => PieceKind::UserDefined,
            1 => PieceKind::Unused,
            _ => PieceKind::Normal,
        };
        if !text.is_empty() && !text.contains('\0') && model.pieces.iter().all(|p| p.text != text) {
            model.pieces.push(&text, -f32::from(head & 31), kind);
        }
    }
    let text: String = bytes.map(letter).collect();
    let tokenizer = Tokenizer::from_model(model.clone()).unwrap();
    let expected = naive::encode(&model, &text);
    assert_eq!(tokenizer.encode(&text), expected);
    assert_eq!(tokenizer.encode(&text), expected);
    let tokens = tokenizer.encode_with_offsets(&text);
    assert_eq!(tokens.iter().map(|t| t.id).collect::<Vec<_>>(), expected);
    assert!(tokens.iter().all(|t| text.get(t.span.clone()).is_some()));
});
