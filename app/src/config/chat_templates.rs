//! The named chat templates, so that `chat_template = "chatml"` means the same as in other programs and is not read as
//! the text of a template. The texts are our own; tests compare their output with that of the published templates
//! (`tests/data/chat-templates`).

use crate::suggest::nearest;

/// A chat template with a name.
pub struct NamedTemplate {
    /// The name in a recipe.
    pub name: &'static str,
    /// Other names, normalized by [`normal`].
    aliases: &'static [&'static str],
    /// Its Jinja text.
    pub source: &'static str,
    /// Special tokens that the template contains. A tokenizer without them reads them as plain text.
    pub tokens: &'static [&'static str],
}

macro_rules! named {
    ($name:literal, $aliases:expr, $tokens:expr) => {
        NamedTemplate {
            name: $name,
            aliases: &$aliases,
            source: include_str!(concat!("../../assets/chat-templates/", $name, ".jinja")),
            tokens: &$tokens,
        }
    };
}

/// All named templates. Aliases are the names in Axolotl, LLaMA-Factory and Unsloth, if they mean the same text.
pub const NAMED: [NamedTemplate; 10] = [
    named!("chatml", [], ["<|im_start|>", "<|im_end|>"]),
    named!("llama-2", ["llama2", "llama", "llama-2-chat"], []),
    named!("llama-3", ["llama3"], ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]),
    named!("mistral-v1", [], []),
    named!("mistral-v3", ["mistral-v2v3"], ["[INST]", "[/INST]"]),
    named!("mistral-v3-tekken", [], ["[INST]", "[/INST]"]),
    named!("mistral-v7", [], ["[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"]),
    named!("alpaca", [], []),
    named!("vicuna", [], []),
    named!("zephyr", [], []),
];

/// Names that mean the model's own template.
const OWN: [&str; 2] = ["tokenizer-default", "default"];

/// The meaning of a `chat_template` (or a `template`) in a recipe.
pub enum Meaning {
    /// A Jinja text.
    Text,
    /// A known name.
    Named(&'static NamedTemplate),
    /// The model's own chat template.
    Own,
    /// A text without an expression, which would be the same for every record. The hint suggests what was meant.
    Constant {
        /// The hint for the user.
        hint: String,
    },
}

/// The meaning of `text` in a recipe.
pub fn meaning(text: &str) -> Meaning {
    if text.contains("{{") || text.contains("{%") {
        return Meaning::Text;
    }
    let name = normal(text);
    if let Some(named) = NAMED.iter().find(|named| named.name == name || named.aliases.contains(&name.as_str())) {
        return Meaning::Named(named);
    }
    if OWN.contains(&name.as_str()) {
        return Meaning::Own;
    }
    let names = || NAMED.iter().map(|named| named.name);
    let hint = match (name.as_str(), nearest(&name, names())) {
        ("mistral", _) => {
            "there are several: mistral-v1 (7B-Instruct v0.1 and v0.2, Mixtral-8x7B), mistral-v3 (7B-Instruct \
                           v0.3), mistral-v3-tekken (Nemo), mistral-v7; leave the key out to use the model's own"
                .into()
        }
        (_, Some(near)) => format!("did you mean \"{near}\"?"),
        _ => format!(
            "write a Jinja template such as \"{{{{ question }}}} {{{{ answer }}}}\", or one of the names {}; for a model's own \
             chat template leave the key out",
            names().collect::<Vec<_>>().join(", ")
        ),
    };
    Meaning::Constant { hint }
}

/// The template named `text`.
pub fn named(text: &str) -> Option<&'static NamedTemplate> {
    match meaning(text) {
        Meaning::Named(named) => Some(named),
        _ => None,
    }
}

/// The Jinja text of a recipe's `chat_template`, which is a name or the text itself.
pub fn source(text: &str) -> &str {
    named(text).map_or(text, |named| named.source)
}

/// Normalizes a name to lower case with dashes: Axolotl writes `mistral_v2v3`.
fn normal(name: &str) -> String {
    name.trim().to_lowercase().replace('_', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_other_programs_are_known() {
        for (text, name) in [
            ("chatml", "chatml"),
            ("llama3", "llama-3"),
            ("Llama-3", "llama-3"),
            ("mistral_v2v3", "mistral-v3"),
            ("mistral_v3_tekken", "mistral-v3-tekken"),
            ("zephyr", "zephyr"),
        ] {
            assert_eq!(named(text).map(|named| named.name), Some(name), "{text}");
        }
        assert!(matches!(meaning("tokenizer_default"), Meaning::Own));
        assert!(matches!(meaning("{{ x }}"), Meaning::Text));
        assert_eq!(source("{{ x }}"), "{{ x }}");
        assert!(source("chatml").contains("<|im_start|>"));
    }

    #[test]
    fn a_text_without_an_expression_is_no_template() {
        for (text, word) in [
            ("mistral", "mistral-v3"),
            ("chatlm", "did you mean \"chatml\"?"),
            ("Question: Answer:", "zephyr"),
            ("", "leave the key out"),
        ] {
            let Meaning::Constant { hint } = meaning(text) else { panic!("{text} has a meaning") };
            assert!(hint.contains(word), "{text}: {hint}");
        }
    }

    #[test]
    fn every_token_is_written_by_its_template() {
        for named in &NAMED {
            assert!(matches!(meaning(named.source), Meaning::Text), "{}", named.name);
            // Some templates build the tokens of roles from parts; `tokens` lists only literal ones.
            let written = named.tokens.iter().filter(|token| named.source.contains(**token));
            assert_eq!(written.count(), named.tokens.len(), "{}", named.name);
        }
    }
}
