//! Keys of `[model]`.

use super::Resume::{Fixed, Free, Noted};
use super::Section::Model;
use super::{RecipeKey, SECRET, alias, no_effect, only, used};

const ATTENTION: &str = "attention is always computed in tiles, without approximation";

// A used key is two lines: what it takes and its default, then what it does.
#[rustfmt::skip]
pub(super) const KEYS: &[RecipeKey] = &[
    used("model_name_or_path", Model, Noted, "a folder or a hub id", "none: it must be given",
        "The model that is fine-tuned. A folder holds config.json, *.safetensors and the tokenizer's files; a hub id is downloaded into the cache that the Python libraries share."),
    alias("model", "model_name_or_path"),
    alias("model_id", "model_name_or_path"),
    alias("model_name", "model_name_or_path"),
    alias("base_model", "model_name_or_path"),
    alias("pretrained_model_name_or_path", "model_name_or_path"),
    used("revision", Model, Noted, "a branch, tag or commit", "none: the main branch",
        "The version of a hub id that is downloaded."),
    alias("model_revision", "revision"),
    used("tokenizer_name_or_path", Model, Noted, "a folder or a hub id", "none: the model's",
        "Where the tokenizer is read from. It must belong to the model: every id needs a row in the embedding."),
    alias("tokenizer_name", "tokenizer_name_or_path"),
    used("torch_dtype", Model, Fixed, "\"auto\", \"float32\", \"float16\" or \"bfloat16\" (or \"fp32\", \"fp16\", \"bf16\")", "none: float16 if the weights are quantized while they are loaded, otherwise float32",
        "The type of the weights before quantization. \"auto\" is the type that config.json names, or the type of the checkpoint."),
    alias("dtype", "torch_dtype"),
    used("adapter_name_or_path", Model, Free, "a folder with adapter_config.json", "none: a new adapter",
        "An adapter to train further. It has its own rank, alpha and targets, so the keys of [lora] must be absent."),
    alias("adapter", "adapter_name_or_path"),
    alias("lora_model_dir", "adapter_name_or_path"),
    used("output_router_logits", Model, Fixed, "true or false", "none: the value in config.json",
        "Adds the load-balancing loss of the router to the loss of a Mixtral model."),
    used("router_aux_loss_coef", Model, Fixed, "a number of at least 0", "none: the value in config.json",
        "The weight of the router's load-balancing loss. It has an effect only with output_router_logits."),
    used("device_map", Model, Free, "\"auto\", \"cpu\", \"cuda\", a GPU's number, or { \"\" = … } with one of them", "none: `--device` decides",
        "The device that holds the whole model. `--device` on the command line overrides it."),
    no_effect("attn_implementation", ATTENTION),
    no_effect("use_flash_attention_2", ATTENTION),
    no_effect("flash_attention", ATTENTION),
    no_effect("flash_attn", ATTENTION),
    no_effect("sdp_attention", ATTENTION),
    no_effect("xformers_attention", ATTENTION),
    no_effect("max_memory", "memory is planned before anything is loaded"),
    no_effect("low_cpu_mem_usage", "weights are mapped into memory, never copied whole"),
    no_effect("trust_remote_code", "code from a model's folder never runs"),
    no_effect("use_cache", "training needs no key-value cache, and generation always has one"),
    no_effect("pretraining_tp", "it only changes how matrix products are split"),
    no_effect("use_safetensors", "weights are always read from safetensors"),
    no_effect("use_fast", "there is one tokenizer"),
    no_effect("use_fast_tokenizer", "there is one tokenizer"),
    no_effect("padding_side", "nothing is padded"),
    no_effect("pad_token", "nothing is padded"),
    only("token", &[], SECRET),
    only("use_auth_token", &["false", "true"], SECRET),
];
