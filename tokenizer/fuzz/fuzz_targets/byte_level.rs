//! A byte-level vocabulary and a text, both made from the input: the ids must be those of the naive reference.
#![no_main]

use halfbyte_tokenizer::Tokenizer;
use libfuzzer_sys::fuzz_target;

#[path = "../../tests/properties/naive_bytes.rs"]
mod naive_bytes;

use naive_bytes::{LETTERS, Model, PATTERNS, char_of};

// The first byte: settings. Then, up to a 255, merges: two bytes, each naming a token. Then the text.
fuzz_target!(|data: &[u8]| {
    let mut bytes = data.iter().take(600).copied();
    let Some(settings) = bytes.next() else { return };
    let mut seen: Vec<u8> = LETTERS.iter().flat_map(|letter| letter.bytes()).collect();
    seen.sort_unstable();
    seen.dedup();
    let lacking = usize::from(settings >> 6);
    let alphabet: Vec<u8> = if settings & 16 != 0 { (0..=255).collect() } else { seen[lacking..].to_vec() };
    let mut model = Model {
        tokens: alphabet.into_iter().map(|byte| char_of(byte).to_string()).collect(),
        pattern: usize::from(settings & 3) % PATTERNS.len(),
        digits_apart: settings & 4 != 0,
        ignore_merges: settings & 8 != 0,
        ..Model::default()
    };
    while let Some(left) = bytes.next().filter(|left| *left != 255) {
        let of = |at: u8| model.tokens[usize::from(at) % model.tokens.len()].clone();
        let pair = (of(left), of(bytes.next().unwrap_or(0)));
        let merged = format!("{}{}", pair.0, pair.1);
        if merged.chars().count() > 12 || model.merges.contains(&pair) {
            continue;
        }
        if !model.tokens.contains(&merged) {
            model.tokens.insert(0, merged);
        }
        model.merges.push(pair);
    }
    let text: String = bytes.map(|byte| LETTERS[usize::from(byte) % LETTERS.len()]).collect();
    let tokenizer = Tokenizer::from_json(naive_bytes::json(&model).as_bytes()).unwrap();
    let expected = naive_bytes::encode(&model, &text);
    assert_eq!(tokenizer.encode(&text), expected);
    assert_eq!(tokenizer.encode(&text), expected);
    let tokens = tokenizer.encode_with_offsets(&text);
    assert_eq!(tokens.iter().map(|t| t.id).collect::<Vec<_>>(), expected);
    assert!(tokens.iter().all(|t| text.get(t.span.clone()).is_some()));
});
