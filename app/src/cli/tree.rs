//! The module tree of a model as PyTorch prints it (`print(model)`), with equal neighbors folded.

use crate::weights::names::is_quantized;
use halfbyte_core::model::{Architecture, ModelConfig};
use halfbyte_core::model::{HEAD, Linear, MlpNames, linears};

/// A module: its class, and its arguments or its children.
#[derive(PartialEq)]
struct Module {
    class: String,
    inside: Inside,
}

#[derive(PartialEq)]
enum Inside {
    Nothing(String),
    Children(Vec<(String, Module)>),
    List(Vec<Module>),
}

/// The tree of `config`; `quantized` is the skip list of a 4-bit model, None if it is not quantized.
pub fn module_tree(config: &ModelConfig, quantized: Option<&[String]>) -> String {
    let prefix = config.family.class_prefix();
    let all = linears(config);
    let linear = |m: &Linear| {
        let class = if quantized.is_some_and(|skip| is_quantized(m, skip)) { "Linear4bit" } else { "Linear" };
        let bias = if config.has_bias(m) { "True" } else { "False" };
        let inside = format!("in_features={}, out_features={}, bias={bias}", m.in_features, m.out_features);
        (m.leaf.to_string(), leaf(class, &inside))
    };
    let norm_of = |name: &str, width: usize| {
        let class = format!("{prefix}RMSNorm");
        (name.to_string(), leaf(&class, &format!("({width},), eps={}", python(config.rms_norm_eps))))
    };
    let norm = |name: &str| norm_of(name, config.hidden_size);
    let layer = |index: usize| {
        let of = |keep: &dyn Fn(&Linear) -> bool| -> Vec<(String, Module)> {
            all.iter().filter(|m| m.layer == Some(index) && keep(m)).map(linear).collect()
        };
        let with_activation = |mut children: Vec<(String, Module)>| {
            children.push(("act_fn".into(), leaf("SiLU", "")));
            children
        };
        let mut attention = of(&|m| m.name.contains(".self_attn."));
        if config.head_norms {
            attention.extend(["q_norm", "k_norm"].map(|name| norm_of(name, config.head_dim)));
        }
        let attention = node(&format!("{prefix}Attention"), attention);
        let mlp = match config.experts_of(index) {
            Some(experts) => {
                let mixtral = config.family == Architecture::Mixtral;
                let class = format!("{prefix}{}", if mixtral { "BlockSparseTop2MLP" } else { "MLP" });
                let expert = |e| node(&class, with_activation(of(&|m| m.expert == Some(e))));
                let mut children = of(&|m| m.leaf == "gate");
                children.push(("experts".into(), list((0..experts.count).map(expert).collect())));
                (MlpNames::of(config.family).path, node(&format!("{prefix}SparseMoeBlock"), children))
            }
            None => ("mlp", node(&format!("{prefix}MLP"), with_activation(of(&|m| m.name.contains(".mlp."))))),
        };
        let children = vec![
            ("self_attn".to_string(), attention),
            (mlp.0.to_string(), mlp.1),
            norm("input_layernorm"),
            norm("post_attention_layernorm"),
        ];
        node(&format!("{prefix}DecoderLayer"), children)
    };
    let embedding = leaf("Embedding", &format!("{}, {}", config.vocab_size, config.hidden_size));
    let model = vec![
        ("embed_tokens".to_string(), embedding),
        ("layers".to_string(), list((0..config.layers).map(layer).collect())),
        norm("norm"),
        ("rotary_emb".to_string(), leaf(&format!("{prefix}RotaryEmbedding"), "")),
    ];
    let mut children = vec![("model".to_string(), node(&format!("{prefix}Model"), model))];
    children.extend(all.iter().filter(|m| m.leaf == HEAD).map(linear));
    let mut text = String::new();
    write(&node(&format!("{prefix}ForCausalLM"), children), 0, &mut text);
    text + "\n"
}

fn leaf(class: &str, inside: &str) -> Module {
    Module { class: class.into(), inside: Inside::Nothing(inside.into()) }
}

fn node(class: &str, children: Vec<(String, Module)>) -> Module {
    Module { class: class.into(), inside: Inside::Children(children) }
}

fn list(items: Vec<Module>) -> Module {
    Module { class: "ModuleList".into(), inside: Inside::List(items) }
}

/// Formats a float as Python does: 1e-05.
fn python(x: f64) -> String {
    let text = format!("{x:e}");
    match text.split_once("e-") {
        Some((digits, exponent)) if x < 1e-4 => format!("{digits}e-{exponent:0>2}"),
        _ => x.to_string(),
    }
}

fn write(module: &Module, depth: usize, text: &mut String) {
    let pad = "  ".repeat(depth + 1);
    *text += &module.class;
    match &module.inside {
        Inside::Nothing(inside) => *text += &format!("({inside})"),
        Inside::Children(children) => {
            *text += "(\n";
            for (name, child) in children {
                *text += &format!("{pad}({name}): ");
                write(child, depth + 1, text);
                *text += "\n";
            }
            *text += &format!("{})", "  ".repeat(depth));
        }
        Inside::List(items) => {
            *text += "(\n";
            let mut start = 0;
            while let Some(first) = items.get(start) {
                let count = items[start..].iter().take_while(|m| *m == first).count();
                *text += &match count {
                    1 => format!("{pad}({start}): "),
                    _ => format!("{pad}({start}-{}): {count} x ", start + count - 1),
                };
                write(first, depth + 1, text);
                *text += "\n";
                start += count;
            }
            *text += &format!("{})", "  ".repeat(depth));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::known::known;

    fn config(name: &str) -> ModelConfig {
        known(name).expect("a known architecture").1
    }

    #[test]
    fn a_dense_tree_folds_its_blocks() {
        let text = module_tree(&config("mistral-7b-v0.1"), Some(&[]));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..8],
            [
                "MistralForCausalLM(",
                "  (model): MistralModel(",
                "    (embed_tokens): Embedding(32000, 4096)",
                "    (layers): ModuleList(",
                "      (0-31): 32 x MistralDecoderLayer(",
                "        (self_attn): MistralAttention(",
                "          (q_proj): Linear4bit(in_features=4096, out_features=4096, bias=False)",
                "          (k_proj): Linear4bit(in_features=4096, out_features=1024, bias=False)",
            ]
        );
        assert_eq!(
            lines[lines.len() - 6..],
            [
                "    )",
                "    (norm): MistralRMSNorm((4096,), eps=1e-05)",
                "    (rotary_emb): MistralRotaryEmbedding()",
                "  )",
                "  (lm_head): Linear(in_features=4096, out_features=32000, bias=False)",
                ")",
            ]
        );
    }

    #[test]
    fn experts_fold_and_skipped_modules_show() {
        let text = module_tree(&config("mixtral-8x7b-v0.1"), Some(&["model.layers.3.block_sparse_moe.gate".into()]));
        for line in [
            "      (0-2): 3 x MixtralDecoderLayer(",
            "      (3): MixtralDecoderLayer(",
            "      (4-31): 28 x MixtralDecoderLayer(",
            "          (gate): Linear(in_features=4096, out_features=8, bias=False)",
            "            (0-7): 8 x MixtralBlockSparseTop2MLP(",
            "              (w2): Linear4bit(in_features=14336, out_features=4096, bias=False)",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        assert!(!module_tree(&config("llama-2-7b"), None).contains("4bit"));
    }

    #[test]
    fn biases_and_norms_of_heads_show() {
        let text = module_tree(&config("qwen2.5-7b"), Some(&[]));
        assert!(text.contains("(v_proj): Linear4bit(in_features=3584, out_features=512, bias=True)"), "{text}");
        assert!(text.contains("(o_proj): Linear4bit(in_features=3584, out_features=3584, bias=False)"), "{text}");
        let text = module_tree(&config("qwen3-30b-a3b"), Some(&[]));
        for line in [
            "          (q_norm): Qwen3MoeRMSNorm((128,), eps=1e-06)",
            "        (mlp): Qwen3MoeSparseMoeBlock(",
            "          (gate): Linear4bit(in_features=2048, out_features=128, bias=False)",
            "            (0-127): 128 x Qwen3MoeMLP(",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn small_numbers_look_like_pythons() {
        assert_eq!([python(1e-5), python(1e-6), python(0.0001), python(0.01)], ["1e-05", "1e-06", "0.0001", "0.01"]);
    }
}
