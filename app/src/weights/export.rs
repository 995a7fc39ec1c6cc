//! Writes a merged model, base weights with an adapter added, to a Hugging Face model folder.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::config::fields::JsonFields;
use crate::disk::write::{write_bytes, write_text};
use crate::weights::adapter::{Adapter, LoraWeights};
use crate::weights::merge::{MergeBase, add, delta, merged};
use crate::weights::names::{TensorSpec, is_quantized, tensors};
use crate::weights::quantize::load;
use crate::weights::safetensors::{Output, TensorFiles, write};
use crate::weights::targets::AdapterModule;
use halfbyte_core::dtype::DType;
use halfbyte_core::error::{Error, Result};
use halfbyte_core::model::ModelConfig;
use halfbyte_core::model::{EMBEDDING, HEAD, Linear, linears};

/// The most bytes of one file, as in `save_pretrained`.
const SHARD: usize = 5_000_000_000;

/// The tokenizer's files in a model folder; a folder may lack some of them.
pub const TOKENIZER_FILES: [&str; 7] = [
    "tokenizer.model",
    "tokenizer.json",
    "tekken.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
];

/// The choices of an export.
#[derive(Clone, Copy, Debug)]
pub struct Export<'a> {
    /// The base weight to which the adapter is added.
    pub base: MergeBase,
    /// Modules that stayed in 16 bit in the 4-bit base (`llm_int8_skip_modules`).
    pub skip_modules: &'a [String],
    /// The type in which the model was loaded for training.
    pub load_as: DType,
    /// The type of the merged weights.
    pub dtype: DType,
}

/// Writes the model in `folder`, with `adapter` added, to `out`: weights, config.json, and copies of its tokenizer
/// files. Errors when `out` is `folder`.
pub fn export(folder: &Path, adapter: &Adapter, how: Export, out: &Path) -> Result<()> {
    let (config, checkpoint) = (crate::config::config_json::open(folder)?, TensorFiles::open(folder)?);
    std::fs::create_dir_all(out).map_err(|e| Error::io("create", out, e))?;
    let absolute = |path: &Path| std::fs::canonicalize(path).map_err(|e| Error::io("find", path, e));
    if absolute(folder)? == absolute(out)? {
        return Err(Error::usage(format!("{}: a merged model cannot replace its base", out.display()))
            .hint("name another folder"));
    }
    // An adapted head differs from the embedding, so it needs a tensor.
    let untied = config.tied && adapter.modules.iter().any(|m| m.module.leaf == HEAD);
    let mut specs = tensors(&config);
    if untied {
        specs.push(TensorSpec { name: format!("{HEAD}.weight"), shape: vec![config.vocab_size, config.hidden_size] });
    }
    let shards = shards(specs, how.dtype);
    let merger = ExportMerger { modules: linears(&config), checkpoint, config, adapter, how };
    let mut index = Map::new();
    for (i, shard) in shards.iter().enumerate() {
        let file = match shards.len() {
            1 => "model.safetensors".to_string(),
            count => format!("model-{:05}-of-{count:05}.safetensors", i + 1),
        };
        let outputs: Vec<Output> = shard.iter().map(|spec| merger.tensor(spec)).collect::<Result<_>>()?;
        write(&out.join(&file), &outputs)?;
        index.extend(shard.iter().map(|spec| (spec.name.clone(), Value::from(file.clone()))));
    }
    if shards.len() > 1 {
        let total: usize = shards.iter().flatten().map(|s| bytes(s, how.dtype)).sum();
        let text = json!({"metadata": {"total_size": total}, "weight_map": index});
        write_text(&out.join("model.safetensors.index.json"), &format!("{text:#}\n"))?;
    }
    let companions = ["generation_config.json"].into_iter().chain(TOKENIZER_FILES);
    for name in companions.filter(|name| folder.join(name).is_file()) {
        let bytes = std::fs::read(folder.join(name)).map_err(|e| Error::io("read", &folder.join(name), e))?;
        write_bytes(&out.join(name), &bytes)?;
    }
    // Last, so that a folder with a config.json is complete.
    write_text(&out.join("config.json"), &config_text(folder, how.dtype, untied)?)
}

fn bytes(spec: &TensorSpec, dtype: DType) -> usize {
    spec.shape.iter().product::<usize>() * dtype.bytes()
}

fn shards(specs: Vec<TensorSpec>, dtype: DType) -> Vec<Vec<TensorSpec>> {
    let mut shards = vec![Vec::new()];
    let mut size = 0;
    for spec in specs {
        if size > 0 && size + bytes(&spec, dtype) > SHARD {
            shards.push(Vec::new());
            size = 0;
        }
        size += bytes(&spec, dtype);
        if let Some(last) = shards.last_mut() {
            last.push(spec);
        }
    }
    shards
}

struct ExportMerger<'a> {
    config: ModelConfig,
    checkpoint: TensorFiles,
    modules: Vec<Linear>,
    adapter: &'a Adapter,
    how: Export<'a>,
}

impl ExportMerger<'_> {
    fn tensor(&self, spec: &TensorSpec) -> Result<Output<'static>> {
        let how = &self.how;
        let of_spec = |m: &&Linear| spec.name.strip_suffix(".weight") == Some(m.name.as_str());
        let values = match self.modules.iter().find(of_spec) {
            None => self.plain(&spec.name, &spec.shape)?,
            Some(head) if self.config.tied && head.leaf == HEAD => {
                let mut values = self.plain(&format!("{EMBEDDING}.weight"), &spec.shape)?;
                if let Some((module, weights)) = self.adapted(head) {
                    add(&mut values, &delta(module, weights), how.dtype);
                }
                values
            }
            Some(module) => {
                let base = if is_quantized(module, how.skip_modules) { how.base } else { MergeBase::Original };
                merged(&self.checkpoint, module, self.adapted(module), base, how.load_as, how.dtype)?
            }
        };
        Ok(Output::floats(spec.name.clone(), how.dtype, spec.shape.clone(), &values))
    }

    /// A tensor without an adapter, loaded as `load_as` and rounded to the type of the merged weights.
    fn plain(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let mut values = load(&self.checkpoint.shaped(name, shape)?, self.how.load_as)?;
        values.iter_mut().for_each(|x| *x = self.how.dtype.round(*x));
        Ok(values)
    }

    fn adapted(&self, module: &Linear) -> Option<(&AdapterModule, &LoraWeights)> {
        let at = self.adapter.modules.iter().position(|m| m.module.name == module.name)?;
        Some((&self.adapter.modules[at], &self.adapter.weights[at]))
    }
}

/// The base's config.json with the type of the merged weights and without `quantization_config`.
fn config_text(folder: &Path, dtype: DType, untied: bool) -> Result<String> {
    let mut fields = JsonFields::open(&folder.join("config.json"))?.map;
    fields.shift_remove("quantization_config");
    let key = if fields.contains_key("dtype") { "dtype" } else { "torch_dtype" };
    fields.insert(key.into(), dtype.torch_name().into());
    if untied {
        fields.insert("tie_word_embeddings".into(), false.into());
    }
    Ok(format!("{:#}\n", Value::Object(fields)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::lora::{LoraConfig, Pattern, Targets};
    use crate::weights::names::check;
    use crate::weights::safetensors::tests::Folder;
    use crate::weights::targets::resolve;
    use halfbyte_core::quant::{QuantKind, Scheme};

    /// A model folder whose weights vary from element to element.
    fn model(folder: &Folder, tied: bool) -> ModelConfig {
        let text = format!(
            r#"{{"model_type": "llama", "vocab_size": 32, "hidden_size": 16, "intermediate_size": 32, "torch_dtype": "float32",
                "num_hidden_layers": 2, "num_attention_heads": 4, "tie_word_embeddings": {tied}}}"#
        );
        folder.file("config.json", &text);
        folder.file("tokenizer.model", "pieces");
        let config = crate::config::config_json::open(&folder.0).expect("valid");
        let fill = |(i, spec): (usize, &TensorSpec)| {
            let values: Vec<f32> = (0..spec.shape.iter().product())
                .map(|j: usize| ((i * 31 + j * 17) % 101) as f32 * 0.01 - 0.5)
                .collect();
            Output::floats(spec.name.clone(), DType::F32, spec.shape.clone(), &values)
        };
        let outputs: Vec<Output> = tensors(&config).iter().enumerate().map(fill).collect();
        write(&folder.0.join("model.safetensors"), &outputs).expect("written");
        config
    }

    fn adapter(config: &ModelConfig, names: &[&str], b: f32) -> Adapter {
        let names = names.iter().map(|n| n.to_string()).collect();
        let lora = LoraConfig { targets: Targets::Matching(Pattern::Names(names)), ..LoraConfig::default() };
        let modules = resolve(&lora, config).expect("matches").modules;
        let weights = modules
            .iter()
            .map(|m| LoraWeights { a: vec![0.5; m.r * m.module.in_features], b: vec![b; m.r * m.module.out_features] });
        Adapter { weights: weights.collect(), modules, config: lora, base_model: None, head: None }
    }

    const ORIGINAL: Export<'static> =
        Export { base: MergeBase::Original, skip_modules: &[], load_as: DType::F32, dtype: DType::F32 };

    #[test]
    fn a_merged_model_is_a_model() {
        let (from, to) = (Folder::new("export-from"), Folder::new("export-to"));
        let config = model(&from, false);
        export(&from.0, &adapter(&config, &["q_proj", "lm_head"], 0.25), ORIGINAL, &to.0).expect("merged");
        let (before, after) = (TensorFiles::open(&from.0).expect("valid"), TensorFiles::open(&to.0).expect("valid"));
        check(&after, &crate::config::config_json::open(&to.0).expect("valid")).expect("complete");
        assert!(to.0.join("tokenizer.model").is_file());
        for spec in tensors(&config) {
            let values = |c: &TensorFiles| c.tensor(&spec.name).expect("there").to_f32().expect("floats");
            // delta = 8 · 0.25 · 0.5 · (8 / 8)
            let moved = if spec.name.contains("q_proj") || spec.name.contains("lm_head") { 1.0 } else { 0.0 };
            assert!(values(&before).iter().zip(values(&after)).all(|(a, b)| a + moved == b), "{}", spec.name);
        }
    }

    #[test]
    fn only_quantized_modules_come_from_four_bits() {
        let (from, to) = (Folder::new("export4-from"), Folder::new("export4-to"));
        let config = model(&from, false);
        let base = MergeBase::Dequantized(Scheme { kind: QuantKind::Nf4, blocksize: 64, double: false });
        let skip = ["k_proj".to_string()];
        let how = Export { base, skip_modules: &skip, dtype: DType::Bf16, ..ORIGINAL };
        export(&from.0, &adapter(&config, &["v_proj"], 0.0), how, &to.0).expect("merged");
        let (before, after) = (TensorFiles::open(&from.0).expect("valid"), TensorFiles::open(&to.0).expect("valid"));
        assert_eq!(crate::config::config_json::open(&to.0).expect("valid").torch_dtype, Some(DType::Bf16));
        for module in linears(&config) {
            let values = |c: &TensorFiles| c.tensor(&module.weight()).expect("there").to_f32().expect("floats");
            let kept = values(&before).iter().zip(values(&after)).all(|(a, b)| DType::Bf16.round(*a) == b);
            assert_eq!(kept, matches!(module.leaf, "k_proj" | "lm_head"), "{}", module.name);
        }
    }

    #[test]
    fn an_adapted_tied_head_gets_a_weight_of_its_own() {
        let (from, to) = (Folder::new("tied-from"), Folder::new("tied-to"));
        let config = model(&from, true);
        export(&from.0, &adapter(&config, &["lm_head"], 0.25), ORIGINAL, &to.0).expect("merged");
        let merged = crate::config::config_json::open(&to.0).expect("valid");
        assert!(!merged.tied);
        let after = TensorFiles::open(&to.0).expect("valid");
        check(&after, &merged).expect("complete");
        let values = |name: &str| after.tensor(name).expect("there").to_f32().expect("floats");
        let (head, embedding) = (values("lm_head.weight"), values("model.embed_tokens.weight"));
        assert!(head.iter().zip(embedding).all(|(head, e)| *head == e + 1.0));
    }

    #[test]
    fn the_base_is_never_replaced() {
        let from = Folder::new("export-same");
        let config = model(&from, false);
        let error =
            export(&from.0, &adapter(&config, &["q_proj"], 0.0), ORIGINAL, &from.0).expect_err("the same folder");
        assert!(error.to_string().contains("cannot replace its base"));
    }

    #[test]
    fn large_models_are_cut_into_files() {
        let specs: Vec<TensorSpec> =
            (0..5).map(|i| TensorSpec { name: format!("{i}"), shape: vec![1 << 15, 1 << 15] }).collect();
        let sizes = |dtype| shards(specs.clone(), dtype).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(DType::F32), [1, 1, 1, 1, 1]);
        assert_eq!(sizes(DType::Bf16), [2, 2, 1]);
    }
}
