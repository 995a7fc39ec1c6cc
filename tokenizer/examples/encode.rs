//! Encodes texts for a comparison with other tokenizers: reads one JSON string a line, writes one JSON object a line.
//!
//! ```text
//! cargo run --release -p halfbyte-tokenizer --example encode -- tokenizer.json < texts.jsonl
//! ```
//!
//! `raw` are the ids with special tokens as ordinary text, `spans` their places in bytes, `special` the ids with
//! special tokens, `text` and `text_special` what those decode to without and with special tokens.

use std::error::Error;
use std::io::{BufRead, BufWriter, Write};

use halfbyte_tokenizer::Tokenizer;

fn main() -> Result<(), Box<dyn Error>> {
    let file = std::env::args().nth(1).ok_or("usage: encode TOKENIZER < TEXTS")?;
    let tokenizer = if file.ends_with(".json") { Tokenizer::open_json(&file)? } else { Tokenizer::open(&file)? };
    let mut out = BufWriter::new(std::io::stdout().lock());
    for line in std::io::stdin().lock().lines() {
        let text: String = serde_json::from_str(&line?)?;
        let raw = tokenizer.encode(&text);
        let tokens = tokenizer.encode_with_offsets(&text);
        if raw.iter().ne(tokens.iter().map(|token| &token.id)) {
            return Err(format!("encode and encode_with_offsets differ for {text:?}").into());
        }
        let special = tokenizer.encode_special(&text, tokenizer.default_special_tokens());
        let record = serde_json::json!({
            "raw": raw,
            "spans": tokens.iter().map(|token| [token.span.start, token.span.end]).collect::<Vec<_>>(),
            "text": tokenizer.decode(&special)?,
            "text_special": tokenizer.decode_special(&special)?,
            "special": special,
        });
        writeln!(out, "{record}")?;
        out.flush()?;
    }
    Ok(())
}
