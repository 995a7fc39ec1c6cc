//! Any bytes as a `tokenizer.json`: an error, or a tokenizer that encodes and decodes without a panic.
#![no_main]

use halfbyte_tokenizer::Tokenizer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(tokenizer) = Tokenizer::from_json(data) else { return };
    let own: String = tokenizer.pieces().iter().rev().take(20).map(|p| p.text).collect();
    for text in ["", " ", "Hello  world", "▁a\u{301}ﬁ 가\0😀", &own] {
        tokenizer.decode(&tokenizer.encode(text)).unwrap();
        let ids = tokenizer.encode_special(text, tokenizer.default_special_tokens());
        tokenizer.decode(&ids).unwrap();
    }
});
