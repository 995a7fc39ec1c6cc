//! Architectures that can be given by name instead of a folder, for `--dummy-weights`, benchmarks and tests.

use std::path::Path;

use halfbyte_core::error::{Error, Result};
use halfbyte_core::model::ModelConfig;

macro_rules! architectures {
    ($($name:literal),*) => {
        &[$(($name, include_str!(concat!("../../assets/architectures/", $name, "/config.json")))),*]
    };
}

/// Names, each with the text of its config.json.
const ARCHITECTURES: &[(&str, &str)] = architectures!(
    "llama-2-7b",
    "llama-2-13b",
    "llama-2-70b",
    "mistral-7b-v0.1",
    "mistral-7b-instruct-v0.2",
    "mixtral-8x7b-v0.1",
    "mistral-nemo-12b",
    "llama-3.1-8b",
    "llama-3.2-1b",
    "qwen2.5-0.5b",
    "qwen2.5-7b",
    "qwen3-0.6b",
    "qwen3-8b",
    "qwen3-30b-a3b",
    "smollm2-135m",
    "tinyllama-1.1b"
);

/// Finds an architecture by name or hub id and returns it with its name in the list. A hub id is reduced to its last
/// part without "meta-" and "-hf": `meta-llama/Llama-2-7b-hf` is llama-2-7b. A chat or instruct model that is not in the list has
/// the architecture of its base model: `mistralai/Mistral-7B-Instruct-v0.1` is mistral-7b-v0.1.
pub fn known(name: &str) -> Result<(&'static str, ModelConfig)> {
    let last = name.rsplit('/').next().unwrap_or(name).to_lowercase();
    let wanted = last.strip_suffix("-hf").unwrap_or(&last);
    let wanted = wanted.strip_prefix("meta-").unwrap_or(wanted);
    let origin = wanted.replace("-instruct", "").replace("-chat", "");
    let named = |wanted: &str| ARCHITECTURES.iter().find(|(name, _)| *name == wanted);
    match named(wanted).or_else(|| named(&origin)) {
        Some((name, text)) => Ok((name, crate::config::config_json::parse(text, Path::new(name))?)),
        None => {
            let names: Vec<&str> = ARCHITECTURES.iter().map(|(name, _)| *name).collect();
            Err(Error::input(format!("there is no folder {name}, and no architecture is known by this name"))
                .hint(format!("give a folder with a config.json, or one of {}", names.join(", "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_architecture_is_valid_and_found_by_its_names() {
        for (name, _) in ARCHITECTURES {
            assert_eq!(known(name).expect(name).0, *name);
        }
        for (given, name) in [
            ("mistralai/Mistral-7B-v0.1", "mistral-7b-v0.1"),
            ("meta-llama/Llama-2-7b-hf", "llama-2-7b"),
            ("meta-llama/Llama-2-13b-chat-hf", "llama-2-13b"),
            ("mistralai/Mistral-7B-Instruct-v0.1", "mistral-7b-v0.1"),
            ("mistralai/Mistral-7B-Instruct-v0.2", "mistral-7b-instruct-v0.2"),
            ("mistralai/Mixtral-8x7B-v0.1", "mixtral-8x7b-v0.1"),
            ("meta-llama/Meta-Llama-3.1-8B-Instruct", "llama-3.1-8b"),
            ("Qwen/Qwen2.5-7B-Instruct", "qwen2.5-7b"),
            ("HuggingFaceTB/SmolLM2-135M-Instruct", "smollm2-135m"),
        ] {
            assert_eq!(known(given).expect(given).0, name);
        }
        let v2 = known("mistral-7b-instruct-v0.2").expect("known").1;
        assert_eq!((v2.sliding_window, v2.max_positions, v2.rope.theta), (None, 32768, 1e6));
        let error = known("gpt2").expect_err("unknown").to_string();
        assert!(error.contains("gpt2") && error.contains("mixtral-8x7b-v0.1"), "{error}");
    }
}
