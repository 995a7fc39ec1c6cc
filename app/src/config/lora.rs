//! PEFT's `LoraConfig`, checked. It is read from a recipe or from an adapter folder.

use halfbyte_core::error::{Error, Result};

/// A pattern for module names, with PEFT's rules.
#[derive(Clone, Debug, PartialEq)]
pub enum Pattern {
    /// A module matches if its name is one of these or ends with "." and one of these.
    Names(Vec<String>),
    /// A module matches if this regular expression matches its whole name.
    Regex(String),
}

/// `target_modules`.
#[derive(Clone, Debug, PartialEq)]
pub enum Targets {
    /// Not given: PEFT's choice for the architecture.
    Default,
    /// "all-linear": every linear module except the head.
    AllLinear,
    /// Names or a regular expression.
    Matching(Pattern),
}

/// `layers_pattern`: the names of lists of blocks. PEFT treats a list of one name like the name.
#[derive(Clone, Debug, PartialEq)]
pub enum LayersPattern {
    /// One name, given as a text.
    Name(String),
    /// A list of names; empty: any name.
    Names(Vec<String>),
}

impl LayersPattern {
    /// The names, whichever way they were given.
    pub fn names(&self) -> &[String] {
        match self {
            LayersPattern::Name(name) => std::slice::from_ref(name),
            LayersPattern::Names(names) => names,
        }
    }
}

/// A LoRA configuration: y = base(x) + scale · B(A(x)).
#[derive(Clone, Debug, PartialEq)]
pub struct LoraConfig {
    /// Rank; at least 1.
    pub r: usize,
    /// `lora_alpha`: scale = alpha / r.
    pub alpha: f64,
    /// `lora_dropout`, on the input of A; in [0, 1).
    pub dropout: f64,
    /// `use_rslora`: scale = alpha / √r.
    pub rslora: bool,
    /// `target_modules`.
    pub targets: Targets,
    /// `exclude_modules`.
    pub exclude: Option<Pattern>,
    /// `layers_to_transform`: only modules in these blocks.
    pub layers: Option<Vec<usize>>,
    /// `layers_pattern`: the name of the list of blocks.
    pub layers_pattern: LayersPattern,
    /// `rank_pattern`: other ranks for modules whose name ends with a match of the regular expression; the first match
    /// applies.
    pub rank_pattern: Vec<(String, usize)>,
    /// `alpha_pattern`: the same for alpha.
    pub alpha_pattern: Vec<(String, f64)>,
}

impl Default for LoraConfig {
    /// The defaults of PEFT 0.18.
    fn default() -> Self {
        Self {
            r: 8,
            alpha: 8.0,
            dropout: 0.0,
            rslora: false,
            targets: Targets::Default,
            exclude: None,
            layers: None,
            layers_pattern: LayersPattern::Names(Vec::new()),
            rank_pattern: Vec::new(),
            alpha_pattern: Vec::new(),
        }
    }
}

impl LoraConfig {
    /// Checks the values without a model. Errors name the key.
    pub fn check(&self) -> Result<()> {
        let ranks = std::iter::once(("r", self.r)).chain(self.rank_pattern.iter().map(|(_, r)| ("rank_pattern", *r)));
        for (key, r) in ranks {
            if !(1..=1 << 16).contains(&r) {
                return Err(Error::usage(format!("`{key}` is {r}: a rank is at least 1 (and at most 65536)"))
                    .hint("usual ranks are 8, 16, 32 and 64"));
            }
        }
        let alphas = self.alpha_pattern.iter().map(|(_, alpha)| ("alpha_pattern", *alpha));
        for (key, alpha) in std::iter::once(("lora_alpha", self.alpha)).chain(alphas) {
            if !alpha.is_finite() || alpha <= 0.0 {
                return Err(Error::usage(format!("`{key}` is {alpha}: expected a number above 0")));
            }
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(Error::usage(format!(
                "`lora_dropout` is {}: expected a share from 0 to below 1",
                self.dropout
            )));
        }
        if !self.layers_pattern.names().is_empty() && self.layers.is_none() {
            return Err(Error::usage("`layers_pattern` has no effect without `layers_to_transform`")
                .hint("remove it, or say which layers"));
        }
        if self.layers.is_some() && matches!(self.targets, Targets::Matching(Pattern::Regex(_))) {
            return Err(Error::usage("`layers_to_transform` cannot be combined with a regular expression")
                .hint("put the layers into the expression, or give `target_modules` as a list of names"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl Fn(&mut LoraConfig), word: &str) {
        let mut config = LoraConfig::default();
        change(&mut config);
        let message = config.check().expect_err(word).to_string();
        assert!(message.contains(word), "{message:?} does not say {word:?}");
    }

    #[test]
    fn impossible_values_are_refused() {
        LoraConfig::default().check().expect("the defaults are fine");
        refused(|c| c.r = 0, "`r` is 0");
        refused(|c| c.rank_pattern = vec![("q_proj".into(), 0)], "`rank_pattern` is 0");
        refused(|c| c.alpha = 0.0, "lora_alpha");
        refused(|c| c.alpha_pattern = vec![("q_proj".into(), f64::NAN)], "alpha_pattern");
        refused(|c| c.dropout = 1.0, "lora_dropout");
        refused(|c| c.layers_pattern = LayersPattern::Name("layers".into()), "layers_pattern");
        refused(
            |c| {
                c.layers = Some(vec![0]);
                c.targets = Targets::Matching(Pattern::Regex(".*".into()));
            },
            "layers_to_transform",
        );
    }
}
