//! Trains a model on the lines of standard input:
//!
//! ```text
//! cargo run --release -p halfbyte-tokenizer --example train -- out.model 1000 [setting]... < text
//! ```
//!
//! Settings: `user=PIECE`, `control=PIECE`, `coverage=SHARE`, `no-byte-fallback`, `remove-extra-whitespaces`,
//! `charsmap=FILE` (a SentencePiece `precompiled_charsmap`).

use std::error::Error;
use std::io::Read;

use halfbyte_tokenizer::Trainer;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(out), Some(size)) = (args.next(), args.next()) else {
        return Err("usage: train OUT.model VOCAB_SIZE [SETTING]... < TEXT".into());
    };
    let mut trainer = Trainer { vocab_size: size.parse()?, ..Trainer::default() };
    for arg in args {
        match arg.split_once('=') {
            Some(("user", piece)) => trainer.user_defined.push(piece.into()),
            Some(("control", piece)) => trainer.control.push(piece.into()),
            Some(("coverage", share)) => trainer.character_coverage = share.parse()?,
            Some(("charsmap", file)) => {
                trainer.normalizer.name = "user_defined".into();
                trainer.normalizer.precompiled_charsmap = std::fs::read(file)?;
            }
            None if arg == "no-byte-fallback" => trainer.byte_fallback = false,
            None if arg == "remove-extra-whitespaces" => trainer.normalizer.remove_extra_whitespaces = true,
            _ => return Err(format!("unknown setting {arg}").into()),
        }
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let model = trainer.train(&lines)?;
    std::fs::write(&out, model.to_bytes())?;
    eprintln!("{out}: {} pieces", model.pieces.len());
    Ok(())
}
