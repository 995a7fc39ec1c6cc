//! Any ids, decoded at once and as a stream.
#![no_main]

use std::sync::LazyLock;

use halfbyte_tokenizer::Tokenizer;
use libfuzzer_sys::fuzz_target;

static TOKENIZERS: LazyLock<Vec<Tokenizer>> = LazyLock::new(|| {
    let models: [&[u8]; 3] = [
        include_bytes!("../../tests/data/tokenizers/small/tokenizer.model"),
        include_bytes!("../../tests/data/tokenizers/small-user/tokenizer.model"),
        include_bytes!("../../tests/data/tokenizers/small-rules/tokenizer.model"),
    ];
    let files: [&[u8]; 2] = [
        include_bytes!("../../tests/data/tokenizers/bytes-gpt2/tokenizer.json"),
        include_bytes!("../../tests/data/tokenizers/bytes-llama3/tokenizer.json"),
    ];
    let models = models.iter().map(|bytes| Tokenizer::from_bytes(bytes).unwrap());
    models.chain(files.iter().map(|bytes| Tokenizer::from_json(bytes).unwrap())).collect()
});

fuzz_target!(|data: &[u8]| {
    let ids: Vec<u32> = data.chunks_exact(2).map(|b| u32::from(u16::from_le_bytes([b[0], b[1]])) % 1002).collect();
    for tokenizer in TOKENIZERS.iter() {
        let whole = tokenizer.decode(&ids);
        let mut decoder = tokenizer.decoder();
        let mut shown = String::new();
        let streamed = ids.iter().try_for_each(|id| decoder.push(*id).map(|text| shown.push_str(text)));
        assert_eq!(whole.is_ok(), streamed.is_ok());
        if let Ok(whole) = whole {
            assert!(whole.starts_with(&shown));
            shown.push_str(&decoder.finish());
            assert_eq!(shown, whole);
        }
    }
});
