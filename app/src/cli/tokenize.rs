//! `halfbyte tokenize`: converts text to ids, pieces or counts, and ids back to text.

use super::count;
use crate::data::document::open_tokenizer;
use crate::data::tokenizer_config::TokenizerConfig;
use crate::run::locate;
use halfbyte_core::error::{Error, Result};
use halfbyte_tokenizer::{SpaceRule, SpecialTokens, Tokenizer};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// Arguments of `tokenize`.
#[derive(clap::Args, Debug)]
pub struct TokenizeArgs {
    /// A tokenizer.model, tokenizer.json or tekken.json, a folder with one of them, or a hub id (downloads only the
    /// tokenizer)
    tokenizer: String,
    /// The text, or with --decode the ids [default: the file or standard input]
    text: Vec<String>,
    /// Read the text (or the ids) from this file
    #[arg(long, conflicts_with = "text")]
    file: Option<PathBuf>,
    /// What to print
    #[arg(long, value_enum, default_value_t = Show::Ids, conflicts_with = "decode")]
    show: Show,
    /// Treat every line as a separate text
    #[arg(long, conflicts_with = "decode")]
    lines: bool,
    /// Convert special tokens in the text (<s>, and those of tokenizer_config.json) to their ids; by default they are
    /// ordinary text
    #[arg(long, value_enum, conflicts_with = "decode")]
    special: Option<Special>,
    /// Convert ids (separated by spaces, commas, semicolons or brackets) to text
    #[arg(long)]
    decode: bool,
}

#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Show {
    /// Token ids, separated by spaces
    Ids,
    /// The pieces, with `▁` for a space
    Pieces,
    /// Id, piece and byte range, one token per line; with --lines, an empty line between texts
    Tokens,
    /// Numbers of texts, bytes, characters and tokens
    Count,
}

#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Special {
    /// As tokenizer.json specifies, or for tokenizer.model the default of transformers
    File,
    /// As in transformers with legacy=true
    Legacy,
    /// As in transformers with legacy=false
    Nonlegacy,
}

/// Runs the command.
pub fn run(args: TokenizeArgs) -> Result<()> {
    let path = locate::tokenizer(&args.tokenizer)?;
    let tokenizer = open_tokenizer(&path)?;
    let text = input(&args)?;
    let out = if args.decode {
        let ids = parse_ids(&text)?;
        format!("{}\n", tokenizer.decode(&ids).map_err(|e| Error::input(e.to_string()))?)
    } else {
        let texts: Vec<&str> = if args.lines { text.lines().collect() } else { vec![&text] };
        encode(&tokenizer, &path, &texts, &args)?
    };
    match std::io::stdout().write_all(out.as_bytes()) {
        // A closed pipe (`| head`) is not an error.
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        Err(e) => Err(Error::system(format!("cannot write the output: {e}"))),
        Ok(()) => Ok(()),
    }
}

fn input(args: &TokenizeArgs) -> Result<String> {
    if !args.text.is_empty() {
        return Ok(args.text.join(" "));
    }
    let (name, bytes) = match &args.file {
        Some(file) => (file.display().to_string(), std::fs::read(file).map_err(|e| Error::io("read", file, e))?),
        None => {
            let mut bytes = Vec::new();
            let read = std::io::stdin().read_to_end(&mut bytes);
            read.map_err(|e| Error::system(format!("cannot read standard input: {e}")))?;
            ("standard input".into(), bytes)
        }
    };
    String::from_utf8(bytes).map_err(|e| {
        Error::input(format!("{name} is not UTF-8 (byte {})", e.utf8_error().valid_up_to()))
            .hint("convert it: iconv -t UTF-8")
    })
}

/// Parses ids in any common notation: "1, 2", "[1 2]".
fn parse_ids(text: &str) -> Result<Vec<u32>> {
    let words = text.split(|c: char| c.is_whitespace() || matches!(c, ',' | ';' | '[' | ']')).filter(|w| !w.is_empty());
    words.map(|word| word.parse().map_err(|_| Error::usage(format!("{word:?} is not a token id")))).collect()
}

fn encode(tokenizer: &Tokenizer, path: &Path, texts: &[&str], args: &TokenizeArgs) -> Result<String> {
    if args.show == Show::Tokens {
        return match args.special {
            None => Ok(texts.iter().map(|text| tokens(tokenizer, text)).collect::<Vec<_>>().join("\n")),
            Some(_) => Err(Error::usage("--show tokens cannot be combined with --special").hint("use --show pieces")),
        };
    }
    let own;
    let special = match args.special {
        None => None,
        Some(Special::File) => Some(tokenizer.default_special_tokens()),
        Some(rule) => {
            let legacy = rule == Special::Legacy;
            let rule = if legacy { SpaceRule::EveryPart } else { SpaceRule::FirstPart };
            own = with_added(tokenizer.special_tokens(rule), path)?;
            Some(&own)
        }
    };
    let ids: Vec<Vec<u32>> = match special {
        None => tokenizer.encode_batch(texts),
        Some(special) => texts.iter().map(|text| tokenizer.encode_special(text, special)).collect(),
    };
    let line = |ids: &Vec<u32>| -> String {
        let words: Vec<String> = match args.show {
            Show::Pieces => ids.iter().map(|id| piece(tokenizer, *id)).collect(),
            _ => ids.iter().map(u32::to_string).collect(),
        };
        words.join(" ") + "\n"
    };
    if args.show != Show::Count {
        return Ok(ids.iter().map(line).collect());
    }
    let bytes: usize = texts.iter().map(|t| t.len()).sum();
    let chars: usize = texts.iter().map(|t| t.chars().count()).sum();
    let tokens: usize = ids.iter().map(Vec::len).sum();
    let ratio = bytes as f64 / tokens.max(1) as f64;
    Ok(format!(
        "{}, {}, {}, {} ({ratio:.2} bytes per token)\n",
        count(texts.len(), "text"),
        count(bytes, "byte"),
        count(chars, "character"),
        count(tokens, "token")
    ))
}

/// The special tokens of the folder's `tokenizer_config.json`, as in transformers.
fn with_added(special: SpecialTokens, tokenizer: &Path) -> Result<SpecialTokens> {
    if !tokenizer.is_dir() {
        return Ok(special);
    }
    let config = TokenizerConfig::open(tokenizer)?;
    Ok(config.added.iter().fold(special, |special, (text, id)| special.with(text, *id)))
}

/// The piece with control characters such as newlines escaped as in Rust, so that it stays on one line.
fn piece(tokenizer: &Tokenizer, id: u32) -> String {
    let mut out = String::new();
    for c in tokenizer.piece(id).unwrap_or("?").chars() {
        match c.is_control() {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out
}

fn tokens(tokenizer: &Tokenizer, text: &str) -> String {
    let mut out = String::new();
    for token in tokenizer.encode_with_offsets(text) {
        let piece = piece(tokenizer, token.id);
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{}\t{piece}\t{}..{}", token.id, token.span.start, token.span.end);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_anything_prints_them() {
        assert_eq!(parse_ids("[1, 15043,\n2]").unwrap(), [1, 15043, 2]);
        assert!(parse_ids("").unwrap().is_empty());
        assert!(parse_ids("1 -2").is_err());
    }

    #[test]
    fn a_folder_without_tokenizer_says_what_is_missing() {
        let error = open_tokenizer(env!("CARGO_MANIFEST_DIR").as_ref()).err().unwrap();
        assert!(error.to_string().contains("none of tokenizer.model, tokenizer.json, tekken.json"));
    }
}
