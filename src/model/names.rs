//! The linear modules of a model, by the names that Hugging Face gives them.

use super::config::{Architecture, ModelConfig};

/// A linear module: `y = x · Wᵀ`, W `[out_features, in_features]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linear {
    /// `model.layers.0.self_attn.q_proj`.
    pub name: String,
    /// The block it belongs to; None for the head.
    pub layer: Option<usize>,
    /// The last part of the name: `q_proj`, `gate`, `w1`, `lm_head`.
    pub leaf: &'static str,
    /// Number of its expert; None outside of experts.
    pub expert: Option<usize>,
    /// Rows of the weight.
    pub out_features: usize,
    /// Columns of the weight.
    pub in_features: usize,
}

impl Linear {
    /// Elements of the weight.
    pub fn elements(&self) -> usize {
        self.out_features * self.in_features
    }
    /// The name of the weight in a checkpoint.
    pub fn weight(&self) -> String {
        format!("{}.weight", self.name)
    }
}

impl ModelConfig {
    /// Whether a module has a bias.
    pub fn has_bias(&self, module: &Linear) -> bool {
        self.qkv_bias && ["q_proj", "k_proj", "v_proj"].contains(&module.leaf)
    }
}

/// The head's module.
pub const HEAD: &str = "lm_head";
/// The embedding's module.
pub const EMBEDDING: &str = "model.embed_tokens";

/// The names of an MLP, or of the router and the experts, and of the parts of each.
pub struct MlpNames {
    /// The module in a layer.
    pub path: &'static str,
    /// `gate` and `up`, whose product `down` takes.
    pub gate_up: [&'static str; 2],
    /// See `gate_up`.
    pub down: &'static str,
    /// The three in the order of the module tree.
    in_tree: [&'static str; 3],
}

impl MlpNames {
    /// The names in models of `family`.
    pub fn of(family: Architecture) -> Self {
        let (path, in_tree) = match family {
            Architecture::Mixtral => ("block_sparse_moe", ["w1", "w2", "w3"]),
            _ => ("mlp", ["gate_proj", "up_proj", "down_proj"]),
        };
        let [gate, up, down] = if family == Architecture::Mixtral { ["w1", "w3", "w2"] } else { in_tree };
        Self { path, gate_up: [gate, up], down, in_tree }
    }
}

/// All linear modules in the order of the module tree, the head last (also when its weight is tied).
pub fn linears(config: &ModelConfig) -> Vec<Linear> {
    let hidden = config.hidden_size;
    let mut list = Vec::new();
    for layer in 0..config.layers {
        let mut add = |path: &str, leaf, expert, out_features, in_features| {
            let name = format!("model.layers.{layer}.{path}.{leaf}");
            list.push(Linear { name, layer: Some(layer), leaf, expert, out_features, in_features });
        };
        add("self_attn", "q_proj", None, config.q_width(), hidden);
        add("self_attn", "k_proj", None, config.kv_width(), hidden);
        add("self_attn", "v_proj", None, config.kv_width(), hidden);
        add("self_attn", "o_proj", None, hidden, config.q_width());
        let names = MlpNames::of(config.family);
        if let Some(experts) = config.experts_of(layer) {
            add(names.path, "gate", None, experts.count, hidden);
        }
        let mut mlp = |path: &str, expert, inner| {
            for leaf in names.in_tree {
                let (to, from) = if leaf == names.down { (hidden, inner) } else { (inner, hidden) };
                add(path, leaf, expert, to, from);
            }
        };
        match config.experts_of(layer) {
            None => mlp("mlp", None, config.intermediate_size),
            Some(experts) => {
                for expert in 0..experts.count {
                    mlp(&format!("{}.experts.{expert}", names.path), Some(expert), experts.width);
                }
            }
        }
    }
    let (out_features, in_features) = (config.vocab_size, hidden);
    list.push(Linear { name: HEAD.into(), layer: None, leaf: HEAD, expert: None, out_features, in_features });
    list
}
