//! Reads `tokenizer_config.json`, the tokenizer settings of a model folder.

use std::path::Path;

use serde_json::Value;

use crate::config::fields::JsonFields;
use halfbyte_core::error::{Error, Result};

/// The settings that affect documents. Absent fields have the defaults of transformers' LlamaTokenizer.
#[derive(Clone, PartialEq, Debug)]
pub struct TokenizerConfig {
    /// Prepend the begin token to a text.
    pub add_bos: bool,
    /// Append the end token to a text.
    pub add_eos: bool,
    /// Prepend a space to text after a special token.
    pub legacy: bool,
    /// The longest text in tokens (`model_max_length`), if it is limited.
    pub model_max_length: Option<usize>,
    /// The chat template, a Jinja text.
    pub chat_template: Option<String>,
    /// The text of the begin token, if the folder names one. Not every model begins its texts with it.
    pub bos: Option<String>,
    /// The text of the end token, if the folder names one.
    pub eos: Option<String>,
    /// Special tokens with their ids. They may be missing in the tokenizer's model file.
    pub added: Vec<(String, u32)>,
}

impl Default for TokenizerConfig {
    fn default() -> Self {
        Self {
            add_bos: true,
            add_eos: false,
            legacy: true,
            model_max_length: None,
            chat_template: None,
            bos: None,
            eos: None,
            added: Vec::new(),
        }
    }
}

impl TokenizerConfig {
    /// Reads the files of a model folder. All of them are optional.
    pub fn open(folder: &Path) -> Result<Self> {
        let file = folder.join("tokenizer_config.json");
        let mut config = if file.exists() { Self::parse(&JsonFields::open(&file)?)? } else { Self::default() };
        // Newer folders have the template in a separate file, which takes precedence.
        let jinja = folder.join("chat_template.jinja");
        if jinja.exists() {
            config.chat_template = Some(std::fs::read_to_string(&jinja).map_err(|e| Error::io("read", &jinja, e))?);
        }
        Ok(config)
    }

    fn parse(fields: &JsonFields) -> Result<Self> {
        let default = Self::default();
        // HF writes 1e30 for "no limit".
        let longest = fields.number("model_max_length")?.filter(|n| *n < 1e9);
        let added = fields.object("added_tokens_decoder")?;
        let added = added.iter().flat_map(|tokens| &tokens.map).map(|(id, token)| {
            let content = content(token);
            let wrong = || fields.wrong("added_tokens_decoder", "expected ids with their tokens");
            Ok((content.ok_or_else(wrong)?, id.parse().map_err(|_| wrong())?))
        });
        Ok(Self {
            add_bos: fields.flag("add_bos_token")?.unwrap_or(default.add_bos),
            add_eos: fields.flag("add_eos_token")?.unwrap_or(default.add_eos),
            legacy: fields.flag("legacy")?.unwrap_or(default.legacy),
            model_max_length: longest.map(|n| n as usize),
            chat_template: template(fields)?,
            bos: fields.get("bos_token").and_then(content),
            eos: fields.get("eos_token").and_then(content),
            added: added.collect::<Result<_>>()?,
        })
    }
}

/// The text of a token, which is a string or an object with the field `content`.
fn content(token: &Value) -> Option<String> {
    token.as_str().or_else(|| token.get("content")?.as_str()).map(str::to_string)
}

/// The template, or among several named ones the one named `default`.
fn template(fields: &JsonFields) -> Result<Option<String>> {
    match fields.get("chat_template") {
        None => Ok(None),
        Some(Value::String(template)) => Ok(Some(template.clone())),
        Some(Value::Array(named)) => {
            let default = named.iter().find(|t| t["name"] == "default").and_then(|t| t["template"].as_str());
            let wrong = || fields.wrong("chat_template", "none of the templates is named `default`");
            default.map(|t| Some(t.to_string())).ok_or_else(wrong)
        }
        Some(_) => Err(fields.wrong("chat_template", "expected a template, or a list of named ones")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<TokenizerConfig> {
        TokenizerConfig::parse(&JsonFields::parse(json, Path::new("tokenizer_config.json"))?)
    }

    #[test]
    fn fields_have_transformers_meaning_and_defaults() {
        assert_eq!(parse("{}").unwrap(), TokenizerConfig::default());
        let config = parse(
            r#"{"add_bos_token": false, "add_eos_token": true, "legacy": false, "model_max_length": 1e30,
                "eos_token": {"content": "<|end|>"}, "bos_token": "<|begin|>", "added_tokens_decoder": {"32000": {"content": "<|end|>"}},
                "chat_template": [{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}]}"#,
        )
        .unwrap();
        let want = TokenizerConfig {
            add_bos: false,
            add_eos: true,
            legacy: false,
            model_max_length: None,
            chat_template: Some("d".into()),
            bos: Some("<|begin|>".into()),
            eos: Some("<|end|>".into()),
            added: vec![("<|end|>".into(), 32000)],
        };
        assert_eq!(config, want);
        assert_eq!(parse(r#"{"model_max_length": 4096}"#).unwrap().model_max_length, Some(4096));
        for wrong in [r#"{"chat_template": 5}"#, r#"{"chat_template": []}"#, r#"{"added_tokens_decoder": {"x": "y"}}"#]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
