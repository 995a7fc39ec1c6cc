//! The tensors and linear modules of a model under Hugging Face's names, with their shapes; parameter counts.

use std::collections::BTreeSet;

use crate::suggest::nearest;
use crate::weights::safetensors::TensorFiles;
use halfbyte_core::error::{Error, Result};
use halfbyte_core::model::{EMBEDDING, HEAD, Linear, ModelConfig, linears};

/// Name and shape of a tensor of an unquantized checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// For example `model.layers.0.input_layernorm.weight`.
    pub name: String,
    /// `[out_features, in_features]`, or the length of a norm's weight or of a bias.
    pub shape: Vec<usize>,
}

/// All tensors of an unquantized checkpoint, in the order of the module tree. A tied head has no tensor.
pub fn tensors(config: &ModelConfig) -> Vec<TensorSpec> {
    let vector = |name: String, length| TensorSpec { name, shape: vec![length] };
    let norm = |name: String| vector(name, config.hidden_size);
    let mut list =
        vec![TensorSpec { name: format!("{EMBEDDING}.weight"), shape: vec![config.vocab_size, config.hidden_size] }];
    let mut modules = linears(config).into_iter().peekable();
    for layer in 0..config.layers {
        while let Some(module) = modules.next_if(|m| m.layer == Some(layer)) {
            list.push(TensorSpec { name: module.weight(), shape: vec![module.out_features, module.in_features] });
            if config.has_bias(&module) {
                list.push(vector(format!("{}.bias", module.name), module.out_features));
            }
        }
        if config.head_norms {
            let of_head = |name| vector(format!("model.layers.{layer}.self_attn.{name}.weight"), config.head_dim);
            list.extend(["q_norm", "k_norm"].map(of_head));
        }
        list.push(norm(format!("model.layers.{layer}.input_layernorm.weight")));
        list.push(norm(format!("model.layers.{layer}.post_attention_layernorm.weight")));
    }
    list.push(norm("model.norm.weight".into()));
    list.extend(
        modules
            .filter(|_| !config.tied)
            .map(|head| TensorSpec { name: head.weight(), shape: vec![head.out_features, head.in_features] }),
    );
    list
}

/// The modules that are neither linears nor the embedding, by the names that transformers gives them: containers, norms,
/// activations, the rotary embedding.
pub fn other_modules(config: &ModelConfig) -> BTreeSet<String> {
    let linears = linears(config);
    let mut others = BTreeSet::from(["model.rotary_emb".to_string()]);
    for tensor in tensors(config) {
        let module = tensor.name.rsplit_once('.').map_or(tensor.name.as_str(), |(module, _)| module);
        others.extend(module.match_indices('.').map(|(end, _)| module[..end].to_string()));
        if module != EMBEDDING && linears.iter().all(|linear| linear.name != module) {
            others.insert(module.to_string());
        }
    }
    let gates = linears.iter().filter_map(|m| m.name.strip_suffix(".gate_proj").or(m.name.strip_suffix(".w1")));
    others.extend(gates.map(|mlp| format!("{mlp}.act_fn")));
    others
}

/// Whether a 4-bit model stores this module in 4 bits: every linear except the head and those that `skip`
/// (`llm_int8_skip_modules`) matches. (In transformers a list that is given replaces the default, which has the head. The
/// head then becomes 4-bit.)
pub fn is_quantized(module: &Linear, skip: &[String]) -> bool {
    module.leaf != HEAD && !skip.iter().any(|pattern| skips(pattern, &module.name))
}

/// Whether an entry of `llm_int8_skip_modules` keeps the module `name` in 16 bit: the entry is the full name, its last
/// parts, or a parent module. (transformers 4 accepts the last part, but not several: "mlp.gate_proj". transformers 5
/// accepts any end of a name.)
fn skips(pattern: &str, name: &str) -> bool {
    name == pattern || name.ends_with(&format!(".{pattern}")) || format!(".{name}").contains(&format!(".{pattern}."))
}

/// Entries of `llm_int8_skip_modules` that match no linear module.
pub fn unmatched_skips(config: &ModelConfig, skip: &[String]) -> Vec<String> {
    let modules = linears(config);
    skip.iter().filter(|pattern| !modules.iter().any(|m| skips(pattern, &m.name))).cloned().collect()
}

/// Parameter counts of a base model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParameterCounts {
    /// Elements of all tensors.
    pub parameters: u64,
    /// The count that transformers reports for a 4-bit model: a quantized weight counts as its bytes, two elements
    /// each.
    pub packed: u64,
}

impl ParameterCounts {
    /// The line of PEFT's `print_trainable_parameters`, which counts elements.
    pub fn line(&self, trainable: u64) -> String {
        let all = self.parameters + trainable;
        let percent = 100.0 * trainable as f64 / all as f64;
        format!(
            "trainable params: {} || all params: {} || trainable%: {percent:.4}",
            thousands(trainable),
            thousands(all)
        )
    }

    /// The line that the QLoRA tutorials print, which counts packed bytes as parameters.
    pub fn packed_line(&self, trainable: u64) -> String {
        let all = self.packed + trainable;
        let percent = 100.0 * trainable as f64 / all as f64;
        format!("trainable params: {trainable} || all params: {all} || trainable%: {percent}")
    }
}

/// `n` with commas between groups of three digits: 46,759,628,800.
fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Counts the parameters of `config`. `quantized` is the skip list of a 4-bit model, or `None` for an unquantized one.
pub fn count(config: &ModelConfig, quantized: Option<&[String]>) -> ParameterCounts {
    let parameters: usize = tensors(config).iter().map(|t| t.shape.iter().product::<usize>()).sum();
    let in_4_bits = |m: &Linear| quantized.is_some_and(|skip| is_quantized(m, skip));
    let saved: usize = linears(config).iter().filter(|m| in_4_bits(m)).map(|m| m.elements() / 2).sum();
    ParameterCounts { parameters: parameters as u64, packed: (parameters - saved) as u64 }
}

/// Checks that `checkpoint` has exactly the tensors of `config`, with their shapes; a pre-quantized checkpoint may
/// store any linear in 4 bits. The error names the first missing or unexpected tensor and counts the others.
pub fn check(checkpoint: &TensorFiles, config: &ModelConfig) -> Result<()> {
    let specs = tensors(config);
    let place = checkpoint.path().display();
    let prequantized =
        |name: &str| config.quantization.is_some() && checkpoint.get(&format!("{name}.quant_map")).is_some();
    let missing: Vec<&TensorSpec> = specs.iter().filter(|s| checkpoint.get(&s.name).is_none()).collect();
    if let Some(first) = missing.first() {
        let more = if missing.len() > 1 { format!(" (and {} more)", missing.len() - 1) } else { String::new() };
        let error = Error::input(format!("{place}: the tensor `{}` is missing{more}", first.name));
        return Err(match nearest(&first.name, checkpoint.names()) {
            Some(near) => error.hint(format!("there is `{near}`: does config.json belong to these weights?")),
            None => error.hint("does config.json belong to these weights?"),
        });
    }
    for spec in &specs {
        match checkpoint.get(&spec.name) {
            Some(tensor) if tensor.shape != spec.shape && !prequantized(&spec.name) => {
                let what = format!("{place}: `{}` has shape {:?}, expected {:?}", spec.name, tensor.shape, spec.shape);
                return Err(Error::input(what).hint("config.json does not belong to these weights"));
            }
            _ => {}
        }
    }
    let known = |name: &str| {
        // Old checkpoints store the rotary frequencies, and some store a tied head.
        name.ends_with(".rotary_emb.inv_freq") || (config.tied && name == "lm_head.weight")
    };
    let expected: std::collections::HashSet<&str> = specs.iter().map(|s| s.name.as_str()).collect();
    let belongs = |name: &str| {
        let weight = name.find(".weight.").map(|end| &name[..end + ".weight".len()]);
        expected.contains(name) || known(name) || weight.is_some_and(|w| expected.contains(w) && prequantized(w))
    };
    let unexpected: Vec<&str> = checkpoint.names().filter(|name| !belongs(name)).collect();
    match unexpected.first() {
        Some(first) => {
            let more =
                if unexpected.len() > 1 { format!(" (and {} more)", unexpected.len() - 1) } else { String::new() };
            let what =
                format!("{place}: the tensor `{first}` is unexpected{more} in a {} model", config.family.model_type());
            Err(Error::input(what).hint("does config.json belong to these weights?"))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
#[path = "names_tests.rs"]
mod tests;
