//! Any bytes as a `.model`: an error, or a tokenizer that encodes and decodes without a panic.
#![no_main]

use halfbyte_tokenizer::{SpaceRule, Tokenizer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(tokenizer) = Tokenizer::from_bytes(data) else { return };
    let own: String = tokenizer.pieces().iter().rev().take(20).map(|p| p.text).collect();
    for text in ["", " ", "Hello  world", "▁a\u{301}ﬁ 가\0😀", &own] {
        let ids = tokenizer.encode(text);
        let tokens = tokenizer.encode_with_offsets(text);
        assert_eq!(ids, tokens.iter().map(|t| t.id).collect::<Vec<_>>());
        tokenizer.decode(&ids).unwrap();
        for rule in [SpaceRule::EveryPart, SpaceRule::FirstPart, SpaceRule::TextStart] {
            let ids = tokenizer.encode_special(text, &tokenizer.special_tokens(rule));
            tokenizer.decode(&ids).unwrap();
        }
    }
});
