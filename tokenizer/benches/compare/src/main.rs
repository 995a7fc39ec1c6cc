//! Times one engine on one corpus, on one thread:
//!
//! ```text
//! compare-tokenizers ENGINE TOKENIZER CORPUS
//! ```
//!
//! Cuts the corpus into documents of about 2 kB at line ends. Prints milliseconds of loading, seconds of CPU and of
//! wall time for encoding, bytes, ids, and the CRC-32 of the ids, by which engines can be compared.

use std::error::Error;
use std::time::Instant;

const DOCUMENT: usize = 2000;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, engine, model, corpus] = args.as_slice() else {
        return Err("usage: compare-tokenizers ENGINE TOKENIZER CORPUS".into());
    };
    let text = std::fs::read_to_string(corpus)?;
    let documents = documents(&text);
    let begin = Instant::now();
    let json = model.ends_with(".json");
    let mut encode: Box<dyn FnMut(&str, &mut Vec<u32>)> = match engine.as_str() {
        "halfbyte" => {
            let open = if json { halfbyte_tokenizer::Tokenizer::open_json } else { halfbyte_tokenizer::Tokenizer::open };
            let tokenizer = open(model)?;
            Box::new(move |text, out| tokenizer.encode_into(text, out))
        }
        "kitoken" => {
            use kitoken::Kitoken;
            let open = if json { Kitoken::from_tokenizers_file } else { Kitoken::from_sentencepiece_file };
            let tokenizer = open(model)?;
            Box::new(move |text, out| out.extend(tokenizer.encode(text, false).unwrap_or_default()))
        }
        "tokenizers" => {
            let tokenizer = tokenizers::Tokenizer::from_file(model).map_err(|e| e.to_string())?;
            Box::new(move |text, out| {
                if let Ok(encoding) = tokenizer.encode_fast(text, false) {
                    out.extend_from_slice(encoding.get_ids());
                }
            })
        }
        "fastokens" => {
            let tokenizer = fastokens::Tokenizer::from_file(model.as_ref())?;
            Box::new(move |text, out| out.extend(tokenizer.encode(text).unwrap_or_default()))
        }
        "tokie" => {
            let tokenizer = tokie::Tokenizer::from_json(model)?;
            Box::new(move |text, out| out.extend(tokenizer.encode_ids(text, false)))
        }
        other => return Err(format!("no engine {other}").into()),
    };
    let load = begin.elapsed().as_secs_f64() * 1e3;
    let mut ids = Vec::with_capacity(text.len());
    let (begin, cpu) = (Instant::now(), cpu_seconds()?);
    for document in documents {
        encode(document, &mut ids);
    }
    let (wall, cpu) = (begin.elapsed().as_secs_f64(), cpu_seconds()? - cpu);
    println!("{load:.2} {cpu:.4} {wall:.4} {} {} {:08x}", text.len(), ids.len(), crc32(&ids));
    Ok(())
}

fn documents(text: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let (mut start, mut at) = (0, 0);
    for line in text.split_inclusive('\n') {
        at += line.len();
        if at - start >= DOCUMENT {
            out.push(&text[start..at]);
            start = at;
        }
    }
    out.push(&text[start..]);
    out
}

/// The time that this process has run on a processor. On a shared machine, waiting for one is not the engine's fault.
fn cpu_seconds() -> Result<f64, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/schedstat")?;
    Ok(stat.split(' ').next().unwrap_or_default().parse::<f64>()? / 1e9)
}

fn crc32(ids: &[u32]) -> u32 {
    let table: Vec<u32> = (0..256u32)
        .map(|i| (0..8).fold(i, |c, _| if c & 1 == 1 { c >> 1 ^ 0xedb8_8320 } else { c >> 1 }))
        .collect();
    let bytes = ids.iter().flat_map(|id| id.to_le_bytes());
    !bytes.fold(!0, |crc, byte| crc >> 8 ^ table[((crc ^ u32::from(byte)) & 255) as usize])
}
