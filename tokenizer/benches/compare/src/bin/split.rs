//! Times pre-tokenization alone, on one thread: the crate's automata beside two regular expression engines.
//!
//! ```text
//! split ENGINE PATTERN CORPUS
//! ```
//!
//! ENGINE is `automaton`, `fancy-regex` or `onig`, PATTERN `gpt2`, `llama3`, `qwen2` or `tekken`. Prints seconds of CPU
//! time, bytes, and the number of words, by which engines can be compared.

use std::error::Error;

#[path = "../../../../src/byte_level/split.rs"]
#[allow(dead_code)]
mod split;
#[path = "../../../../src/unicode/mod.rs"]
#[allow(dead_code, unused_imports)]
mod unicode;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, engine, pattern, corpus] = args.as_slice() else {
        return Err("usage: split ENGINE PATTERN CORPUS".into());
    };
    let pattern = match pattern.as_str() {
        "gpt2" => split::GPT2,
        "llama3" => split::LLAMA3,
        "qwen2" => split::QWEN2,
        "tekken" => split::TEKKEN,
        other => return Err(format!("no pattern {other}").into()),
    };
    let text = std::fs::read_to_string(corpus)?;
    let (lines, cpu, words): (_, _, usize);
    match engine.as_str() {
        "automaton" => {
            let splitter = split::Splitter::new(pattern, false).ok_or("no automaton")?;
            (lines, cpu) = (text.split_inclusive('\n'), cpu_seconds()?);
            words = lines
                .map(|line| {
                    let (mut at, mut count) = (0, 0);
                    while at < line.len() {
                        at = splitter.word_end(line, at);
                        count += 1;
                    }
                    count
                })
                .sum();
        }
        "fancy-regex" => {
            let regex = fancy_regex::Regex::new(pattern)?;
            (lines, cpu) = (text.split_inclusive('\n'), cpu_seconds()?);
            words = lines.map(|line| regex.find_iter(line).count()).sum();
        }
        "onig" => {
            let regex = onig::Regex::new(pattern)?;
            (lines, cpu) = (text.split_inclusive('\n'), cpu_seconds()?);
            words = lines.map(|line| regex.find_iter(line).count()).sum();
        }
        other => return Err(format!("no engine {other}").into()),
    }
    println!("{:.4} {} {words}", cpu_seconds()? - cpu, text.len());
    Ok(())
}

fn cpu_seconds() -> Result<f64, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/schedstat")?;
    Ok(stat.split(' ').next().unwrap_or_default().parse::<f64>()? / 1e9)
}
