//! Records of an instruction set or of Baize dialogs, in the columns that a recipe of docs/recipes expects:
//!
//!     cargo run --example tutorial_data -- b-mixtral-instructions alpaca.jsonl FOLDER
//!
//! writes FOLDER/train.jsonl and FOLDER/test.jsonl (every tenth record); then
//! `halfbyte train docs/recipes/b-mixtral-instructions.toml --set dataset=FOLDER`.

#[path = "../tests/recipes/shapes.rs"]
mod shapes;

use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [recipe, from, folder] = &args[..] else {
        return Err("usage: tutorial_data RECIPE IN.jsonl FOLDER".into());
    };
    // Its name, or its file.
    let recipe = Path::new(recipe).file_stem().and_then(|name| name.to_str()).ok_or("RECIPE is not a file name")?;
    let (mut train, mut test) = (String::new(), String::new());
    for (i, line) in std::fs::read_to_string(from)?.lines().enumerate() {
        let sample = shapes::Sample::of(&serde_json::from_str(line)?);
        let sample = sample.ok_or_else(|| format!("{from} line {}: no instruction, no dialog", i + 1))?;
        let part = if i % 10 == 9 { &mut test } else { &mut train };
        *part += &format!("{}\n", sample.record(recipe));
    }
    std::fs::create_dir_all(folder)?;
    std::fs::write(Path::new(folder).join("train.jsonl"), train)?;
    std::fs::write(Path::new(folder).join("test.jsonl"), test)?;
    Ok(())
}
