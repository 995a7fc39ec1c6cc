//! The linear modules of a model, by the names that Hugging Face gives them.

use super::config::ModelConfig;

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

/// The head's module.
pub const HEAD: &str = "lm_head";
/// The embedding's module.
pub const EMBEDDING: &str = "model.embed_tokens";

/// All linear modules in the order of the module tree, the head last (also when its weight is tied).
pub fn linears(config: &ModelConfig) -> Vec<Linear> {
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
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
        match &config.experts {
            None => {
                add("mlp", "gate_proj", None, inner, hidden);
                add("mlp", "up_proj", None, inner, hidden);
                add("mlp", "down_proj", None, hidden, inner);
            }
            Some(experts) => {
                add("block_sparse_moe", "gate", None, experts.count, hidden);
                for expert in 0..experts.count {
                    let path = format!("block_sparse_moe.experts.{expert}");
                    add(&path, "w1", Some(expert), inner, hidden);
                    add(&path, "w2", Some(expert), hidden, inner);
                    add(&path, "w3", Some(expert), inner, hidden);
                }
            }
        }
    }
    let (out_features, in_features) = (config.vocab_size, hidden);
    list.push(Linear { name: HEAD.into(), layer: None, leaf: HEAD, expert: None, out_features, in_features });
    list
}
