//! Measures the path from a JSONL file to packed rows (parse, format, encode, pack): MB/s of the file, and memory.
//!
//!     RAYON_NUM_THREADS=2 cargo bench --bench packing -- --file data.jsonl --tokenizer tokenizer.model --column text
//!
//! Without a file it generates one from the tokenizer's test corpus (`--megabytes`, by default 200). Without a
//! tokenizer it uses that of the tests, whose small vocabulary gives many more tokens than a real one.

use halfbyte::config::data::{OverLength, PackingStrategy, TrainOn};
use halfbyte::data::document::{DocumentSettings, Encoder};
use halfbyte::data::format::RecordFormatter;
use halfbyte::data::prepare::{RowRules, prepare};
use halfbyte::data::source::DataFiles;
use halfbyte::data::tokenizer_config::TokenizerConfig;
use halfbyte_tokenizer::Tokenizer;
use std::error::Error;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().collect();
    let value = |name: &str| args.iter().position(|a| a == name).and_then(|i| args.get(i + 1)).cloned();
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tokenizer/tests/data");
    let model = value("--tokenizer").map_or_else(|| tests.join("tokenizers/small/tokenizer.model"), PathBuf::from);
    let made = tempfile::tempdir()?;
    let file = match value("--file") {
        Some(file) => PathBuf::from(file),
        None => {
            let megabytes = value("--megabytes").and_then(|n| n.parse().ok()).unwrap_or(200);
            make(&made.path().join("made.jsonl"), &tests.join("corpus.txt"), megabytes)?
        }
    };
    let settings = DocumentSettings { add_bos: true, add_eos: true, legacy: true };
    let encoder = Encoder::new(Tokenizer::open(&model)?, settings, &TokenizerConfig::default())?;
    let column = value("--column").unwrap_or("text".into());
    let format = RecordFormatter::column(&column, None, encoder.literals().clone(), false, TrainOn::All)?;
    let rules = RowRules { longest: 2048, over_length: OverLength::Split, packing: Some(PackingStrategy::Bfd) };

    let start = Instant::now();
    let table = DataFiles::path(&file)?.load("train")?;
    let opened = start.elapsed();
    let prepared = prepare(&table, &format, &encoder, rules, &|_| {})?;
    let seconds = start.elapsed().as_secs_f64();
    let megabytes = std::fs::metadata(&file)?.len() as f64 / 1e6;
    let counts = prepared.counts;
    println!("{megabytes:.0} MB, {} records, {} tokens, {} rows", counts.records, counts.tokens, counts.rows);
    println!("found the records in {:.2} s", opened.as_secs_f64());
    println!("{:.1} MB/s on {} threads", megabytes / seconds, rayon::current_num_threads());
    // Mapped pages of the file count as resident while they are cached, but the system can reclaim them at any time.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    for line in status.lines().filter(|l| l.starts_with("VmHWM") || l.starts_with("RssAnon")) {
        println!("{line}");
    }
    Ok(())
}

/// Records of one to eight lines of the corpus, repeated.
fn make(file: &Path, corpus: &Path, megabytes: usize) -> Result<PathBuf, Box<dyn Error>> {
    let text = std::fs::read_to_string(corpus)?;
    let lines: Vec<&str> = text.lines().collect();
    let mut out = BufWriter::new(std::fs::File::create(file)?);
    let (mut written, mut at) = (0, 0);
    while written < megabytes * 1_000_000 {
        let taken = 1 + at % 8;
        let text: Vec<&str> = (0..taken).map(|i| lines[(at + i * 7) % lines.len()]).collect();
        let line = serde_json::json!({ "text": text.join("\n") }).to_string();
        writeln!(out, "{line}")?;
        written += line.len() + 1;
        at += taken;
    }
    out.flush()?;
    Ok(file.to_path_buf())
}
