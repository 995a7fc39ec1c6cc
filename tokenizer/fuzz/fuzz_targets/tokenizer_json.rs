//! Any bytes as a `tokenizer.json` or a `tekken.json`: an error, or a tokenizer that encodes and decodes without a
//! panic.
#![no_main]

use halfbyte_tokenizer::Tokenizer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(tokenizer) = Tokenizer::from_json(data) else { return };
    let own: String = tokenizer.pieces().iter().rev().take(20).map(|p| p.text).collect();
    for text in ["", " ", "Hello  world", "▁a\u{301}ﬁ 가\0😀", "HE'LL 1234\r\n\t x/\u{3000}", &own] {
        let ids = tokenizer.encode(text);
        let tokens = tokenizer.encode_with_offsets(text);
        assert_eq!(ids, tokens.iter().map(|t| t.id).collect::<Vec<_>>());
        tokenizer.decode(&ids).unwrap();
        let ids = tokenizer.encode_special(text, tokenizer.default_special_tokens());
        tokenizer.decode(&ids).unwrap();
        tokenizer.decode_special(&ids).unwrap();
    }
});
