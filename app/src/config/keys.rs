//! Every key that a recipe may have: the parameters of Hugging Face's `TrainingArguments`, `SFTConfig`, `LoraConfig`,
//! `BitsAndBytesConfig` and `from_pretrained`, word for word, and what we do with each; and our own.

/// The sections of a recipe, in the order in which the resolved recipe is printed. A key may stand in any of them or
/// above all; this says where it belongs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Section {
    /// What is fine-tuned.
    Model,
    /// What it is trained on.
    Data,
    /// The adapter.
    Lora,
    /// The 4-bit base.
    Quantization,
    /// Everything else.
    Training,
}

impl Section {
    /// All, in order.
    pub const ALL: [Section; 5] = [Model, Data, Lora, Quantization, Training];

    /// The name of its table.
    pub fn name(self) -> &'static str {
        match self {
            Model => "model",
            Data => "data",
            Lora => "lora",
            Quantization => "quantization",
            Training => "training",
        }
    }
}

/// What `--resume` does when the value of a key differs from the one in the checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resume {
    /// Refuses: the checkpoint does not fit the new value.
    Fixed,
    /// Goes on and says so: from here on it is another run. A folder or a data set may have moved; what is read from it
    /// is checked for itself.
    Noted,
    /// Goes on: the numbers stay the same.
    Free,
}

/// What we do with a key.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Use {
    /// Used.
    Used(Section, Resume),
    /// Another name of a used key.
    Alias(&'static str),
    /// Changes nothing here; one report line says why.
    NoEffect(&'static str),
    /// Not implemented: accepted with one of these values (as TOML), else refused for this reason.
    Only(&'static [&'static str], &'static str),
}

use Resume::{Fixed, Free, Noted};
use Section::{Data, Lora, Model, Quantization, Training};
use Use::{Alias, NoEffect, Only, Used};

const NO_FRAMEWORK: &str = "halfbyte has its own kernels and loaders";
const ONE_GPU: &str = "halfbyte runs as one process";
const REMOTE: &str = "remote code never runs";
const HUB: &str = "halfbyte does not upload: `hf upload NAME OUTPUT_DIR .` does";
const LOGS: &str = "halfbyte has its own progress and log files";
const LORA_KIND: &str = "this kind of adapter is not implemented";
const NOT_YET: &str = "this is not implemented";
const RESUME: &str = "give --resume on the command line";

/// Name and use of every known key. The order of used keys is that of the resolved recipe.
pub const KEYS: &[(&str, Use)] = &[
    // ---- model
    ("model_name_or_path", Used(Model, Noted)),
    ("model", Alias("model_name_or_path")),
    ("model_id", Alias("model_name_or_path")),
    ("model_name", Alias("model_name_or_path")),
    ("base_model", Alias("model_name_or_path")),
    ("pretrained_model_name_or_path", Alias("model_name_or_path")),
    ("revision", Used(Model, Noted)),
    ("model_revision", Alias("revision")),
    ("tokenizer_name_or_path", Used(Model, Noted)),
    ("tokenizer_name", Alias("tokenizer_name_or_path")),
    ("torch_dtype", Used(Model, Fixed)),
    ("dtype", Alias("torch_dtype")),
    ("adapter_name_or_path", Used(Model, Free)),
    ("adapter", Alias("adapter_name_or_path")),
    ("output_router_logits", Used(Model, Fixed)),
    ("router_aux_loss_coef", Used(Model, Fixed)),
    ("attn_implementation", NoEffect("attention is always computed in tiles, exactly")),
    ("use_flash_attention_2", NoEffect("attention is always computed in tiles, exactly")),
    ("device_map", Used(Model, Free)),
    ("max_memory", NoEffect("the memory plan is made before anything is loaded")),
    ("low_cpu_mem_usage", NoEffect("weights are mapped, not read")),
    ("trust_remote_code", NoEffect(REMOTE)),
    ("use_cache", NoEffect("training keeps no cache, generation always does")),
    ("pretraining_tp", NoEffect("it changes only how products are cut")),
    ("use_safetensors", NoEffect("weights are always read from safetensors")),
    ("use_fast", NoEffect("there is one tokenizer")),
    ("use_fast_tokenizer", NoEffect("there is one tokenizer")),
    ("padding_side", NoEffect("nothing is padded")),
    ("pad_token", NoEffect("nothing is padded")),
    ("token", Only(&[], "secrets do not belong into a recipe: set HF_TOKEN")),
    ("use_auth_token", Only(&["false", "true"], "secrets do not belong into a recipe: set HF_TOKEN")),
    // ---- data
    ("dataset", Used(Data, Noted)),
    ("dataset_name", Alias("dataset")),
    ("dataset_path", Alias("dataset")),
    ("data_path", Alias("dataset")),
    ("data_files", Alias("dataset")),
    ("train_file", Alias("dataset")),
    ("split", Used(Data, Fixed)),
    ("dataset_split", Alias("split")),
    ("train_split", Alias("split")),
    ("eval_dataset", Used(Data, Noted)),
    ("eval_file", Alias("eval_dataset")),
    ("eval_split", Used(Data, Noted)),
    ("dataset_eval_split", Alias("eval_split")),
    ("test_size", Used(Data, Fixed)),
    ("val_set_size", Alias("test_size")),
    ("shuffle_seed", Used(Data, Fixed)),
    ("select", Used(Data, Fixed)),
    ("max_train_samples", Alias("select")),
    ("max_samples", Alias("select")),
    ("max_eval_samples", Used(Data, Free)),
    ("format", Used(Data, Fixed)),
    ("text_column", Used(Data, Fixed)),
    ("dataset_text_field", Alias("text_column")),
    ("template", Used(Data, Fixed)),
    ("role_markers", Used(Data, Fixed)),
    ("train_on", Used(Data, Fixed)),
    ("chat_template", Used(Data, Fixed)),
    ("special_in_template", Used(Data, Fixed)),
    ("add_bos_token", Used(Data, Fixed)),
    ("add_eos_token", Used(Data, Fixed)),
    ("legacy", Used(Data, Fixed)),
    ("model_max_length", Used(Data, Fixed)),
    ("max_seq_length", Used(Data, Fixed)),
    ("max_length", Alias("max_seq_length")),
    ("cutoff_len", Alias("max_seq_length")),
    ("over_length", Used(Data, Fixed)),
    ("packing", Used(Data, Fixed)),
    ("packing_strategy", Used(Data, Fixed)),
    ("group_by_length", Used(Data, Fixed)),
    ("length_column_name", NoEffect("lengths are counted")),
    ("eval_packing", Only(&[], "evaluation is packed as training is")),
    ("completion_only_loss", Only(&["false"], "write train_on = \"completion\"")),
    ("assistant_only_loss", Only(&["false"], "write train_on = \"assistant\"")),
    ("train_on_inputs", Only(&["true"], "write train_on = \"completion\"")),
    ("response_template", Only(&[], "write role_markers and train_on = \"assistant\"")),
    ("padding_free", NoEffect("nothing is ever padded")),
    ("pad_to_multiple_of", NoEffect("nothing is padded")),
    ("dataset_num_proc", NoEffect("all cores are used")),
    ("dataset_batch_size", NoEffect(NO_FRAMEWORK)),
    ("dataset_kwargs", Only(&["{}"], NOT_YET)),
    ("num_of_sequences", NoEffect("packing sees the whole data set")),
    ("chars_per_token", NoEffect("packing counts tokens")),
    ("remove_unused_columns", NoEffect("columns that are not named are not read")),
    ("label_names", NoEffect("labels are made from the text")),
    ("streaming", Only(&["false"], "data sets are read in place: streaming is not needed")),
    // ---- lora
    ("r", Used(Lora, Fixed)),
    ("lora_r", Alias("r")),
    ("lora_alpha", Used(Lora, Fixed)),
    ("lora_dropout", Used(Lora, Fixed)),
    ("use_rslora", Used(Lora, Fixed)),
    ("target_modules", Used(Lora, Fixed)),
    ("lora_target_modules", Alias("target_modules")),
    ("exclude_modules", Used(Lora, Fixed)),
    ("layers_to_transform", Used(Lora, Fixed)),
    ("layers_pattern", Used(Lora, Fixed)),
    ("rank_pattern", Used(Lora, Fixed)),
    ("alpha_pattern", Used(Lora, Fixed)),
    ("use_peft", Only(&["true"], "halfbyte trains adapters only")),
    ("task_type", Only(&["\"CAUSAL_LM\""], "halfbyte trains causal language models")),
    ("peft_type", Only(&["\"LORA\""], LORA_KIND)),
    ("inference_mode", Only(&["false"], "an adapter in inference mode is not trained")),
    ("bias", Only(&["\"none\""], LORA_KIND)),
    ("lora_bias", Only(&["false"], LORA_KIND)),
    ("fan_in_fan_out", Only(&["false"], "these models have no Conv1D layers")),
    ("modules_to_save", Only(&["[]"], "train the head with a target module instead: \"lm_head\"")),
    ("lora_modules_to_save", Only(&["[]"], "train the head with a target module instead: \"lm_head\"")),
    ("init_lora_weights", Only(&["true"], "A starts random and B at zero")),
    ("use_dora", Only(&["false"], LORA_KIND)),
    ("use_qalora", Only(&["false"], LORA_KIND)),
    ("qalora_group_size", NoEffect("it belongs to use_qalora")),
    ("target_parameters", Only(&["[]"], "name the experts' modules w1, w2, w3 in target_modules")),
    ("trainable_token_indices", Only(&["[]"], LORA_KIND)),
    ("layer_replication", Only(&["[]"], LORA_KIND)),
    ("loftq_config", Only(&["{}"], LORA_KIND)),
    ("eva_config", Only(&["{}"], LORA_KIND)),
    ("corda_config", Only(&["{}"], LORA_KIND)),
    ("arrow_config", Only(&["{}"], LORA_KIND)),
    ("alora_invocation_tokens", Only(&["[]"], LORA_KIND)),
    ("ensure_weight_tying", Only(&["false"], LORA_KIND)),
    ("megatron_config", Only(&["{}"], LORA_KIND)),
    ("megatron_core", NoEffect("it belongs to megatron_config")),
    ("runtime_config", NoEffect(NO_FRAMEWORK)),
    ("auto_mapping", NoEffect(NO_FRAMEWORK)),
    // ---- quantization
    ("load_in_4bit", Used(Quantization, Fixed)),
    ("bnb_4bit_quant_type", Used(Quantization, Fixed)),
    ("bnb_4bit_use_double_quant", Used(Quantization, Fixed)),
    ("use_nested_quant", Alias("bnb_4bit_use_double_quant")),
    ("bnb_4bit_blocksize", Used(Quantization, Fixed)),
    ("blocksize", Alias("bnb_4bit_blocksize")),
    ("bnb_4bit_compute_dtype", Used(Quantization, Fixed)),
    ("llm_int8_skip_modules", Used(Quantization, Fixed)),
    ("bnb_4bit_quant_storage", Only(&["\"uint8\"", "\"torch.uint8\""], "codes are stored as bytes")),
    ("load_in_8bit", Only(&["false"], "halfbyte quantises to 4 bits")),
    ("llm_int8_threshold", NoEffect("it belongs to 8-bit loading")),
    ("llm_int8_has_fp16_weight", NoEffect("it belongs to 8-bit loading")),
    ("llm_int8_enable_fp32_cpu_offload", NoEffect("it belongs to 8-bit loading")),
    ("quant_method", Only(&["\"bitsandbytes\""], NOT_YET)),
    // ---- training
    ("output_dir", Used(Training, Free)),
    ("adapter_dir", Used(Training, Free)),
    ("run_name", Used(Training, Free)),
    ("num_train_epochs", Used(Training, Noted)),
    ("max_steps", Used(Training, Noted)),
    ("per_device_train_batch_size", Used(Training, Fixed)),
    ("per_gpu_train_batch_size", Alias("per_device_train_batch_size")),
    ("per_device_eval_batch_size", Used(Training, Free)),
    ("per_gpu_eval_batch_size", Alias("per_device_eval_batch_size")),
    ("gradient_accumulation_steps", Used(Training, Fixed)),
    ("dataloader_drop_last", Used(Training, Fixed)),
    ("learning_rate", Used(Training, Noted)),
    ("lr_scheduler_type", Used(Training, Noted)),
    ("lr_scheduler_kwargs", Used(Training, Noted)),
    ("loraplus_lr_ratio", Used(Training, Noted)),
    ("warmup_ratio", Used(Training, Noted)),
    ("warmup_steps", Used(Training, Noted)),
    ("optim", Used(Training, Fixed)),
    ("weight_decay", Used(Training, Noted)),
    ("adam_beta1", Used(Training, Fixed)),
    ("adam_beta2", Used(Training, Fixed)),
    ("adam_epsilon", Used(Training, Fixed)),
    ("max_grad_norm", Used(Training, Noted)),
    ("bf16", Used(Training, Fixed)),
    ("fp16", Used(Training, Fixed)),
    ("neftune_noise_alpha", Used(Training, Noted)),
    ("gradient_checkpointing", Used(Training, Free)),
    ("seed", Used(Training, Fixed)),
    ("data_seed", Used(Training, Fixed)),
    ("logging_strategy", Used(Training, Free)),
    ("logging_steps", Used(Training, Free)),
    ("logging_first_step", Used(Training, Free)),
    ("eval_strategy", Used(Training, Free)),
    ("evaluation_strategy", Alias("eval_strategy")),
    ("eval_steps", Used(Training, Free)),
    ("eval_on_start", Used(Training, Free)),
    ("load_best_model_at_end", Used(Training, Noted)),
    ("metric_for_best_model", Used(Training, Noted)),
    ("greater_is_better", Used(Training, Noted)),
    ("early_stopping_patience", Used(Training, Free)),
    ("early_stopping_threshold", Used(Training, Free)),
    ("sample_prompts", Used(Training, Free)),
    ("sample_strategy", Used(Training, Free)),
    ("sample_steps", Used(Training, Free)),
    ("sample_max_new_tokens", Used(Training, Free)),
    ("save_strategy", Used(Training, Free)),
    ("save_steps", Used(Training, Free)),
    ("save_minutes", Used(Training, Free)),
    ("save_total_limit", Used(Training, Free)),
    ("watchdog", Used(Training, Free)),
    ("report_to", Used(Training, Free)),
    ("logging_dir", Used(Training, Free)),
    ("gradient_checkpointing_kwargs", NoEffect("recomputation is exact in either mode")),
    ("do_train", Only(&["true"], "the command says what is done")),
    ("do_eval", NoEffect("eval_strategy decides")),
    ("do_predict", Only(&["false"], NOT_YET)),
    ("overwrite_output_dir", NoEffect("a run never overwrites another")),
    ("prediction_loss_only", NoEffect("evaluation computes the loss only")),
    ("eval_accumulation_steps", NoEffect("evaluation keeps no logits")),
    ("eval_do_concat_batches", NoEffect("evaluation keeps no logits")),
    ("batch_eval_metrics", NoEffect("evaluation keeps no logits")),
    ("include_inputs_for_metrics", NoEffect("evaluation keeps no logits")),
    ("include_for_metrics", NoEffect("evaluation keeps no logits")),
    ("eval_use_gather_object", NoEffect(ONE_GPU)),
    ("eval_delay", Only(&["0"], NOT_YET)),
    ("torch_empty_cache_steps", NoEffect("memory is planned, not cached")),
    ("log_level", NoEffect(LOGS)),
    ("log_level_replica", NoEffect(LOGS)),
    ("log_on_each_node", NoEffect(LOGS)),
    ("logging_nan_inf_filter", NoEffect("a loss that is not finite is never hidden")),
    ("disable_tqdm", NoEffect(LOGS)),
    ("project", NoEffect(LOGS)),
    ("trackio_space_id", NoEffect(LOGS)),
    ("include_tokens_per_second", NoEffect("tokens per second are always shown")),
    ("include_num_input_tokens_seen", NoEffect("tokens are always counted")),
    ("skip_memory_metrics", NoEffect("memory is always shown")),
    ("save_safetensors", Only(&["true"], "halfbyte writes safetensors only")),
    ("save_on_each_node", NoEffect(ONE_GPU)),
    ("save_only_model", Only(&["false"], "checkpoints are always complete")),
    ("restore_callback_states_from_checkpoint", NoEffect("checkpoints are always complete")),
    ("resume_from_checkpoint", Only(&["false"], RESUME)),
    ("ignore_data_skip", Only(&["false"], "a resumed run sees the data it would have seen")),
    ("no_cuda", NoEffect("the device is chosen on the command line")),
    ("use_cpu", NoEffect("the device is chosen on the command line")),
    ("use_mps_device", NoEffect("the device is chosen on the command line")),
    ("jit_mode_eval", NoEffect(NO_FRAMEWORK)),
    ("use_ipex", NoEffect(NO_FRAMEWORK)),
    ("fp16_opt_level", NoEffect(NO_FRAMEWORK)),
    ("half_precision_backend", NoEffect(NO_FRAMEWORK)),
    ("fp16_backend", NoEffect(NO_FRAMEWORK)),
    ("bf16_full_eval", NoEffect("evaluation computes as training does")),
    ("fp16_full_eval", NoEffect("evaluation computes as training does")),
    ("tf32", NoEffect("16-bit products do not use it")),
    ("local_rank", NoEffect(ONE_GPU)),
    ("ddp_backend", NoEffect(ONE_GPU)),
    ("ddp_find_unused_parameters", NoEffect(ONE_GPU)),
    ("ddp_bucket_cap_mb", NoEffect(ONE_GPU)),
    ("ddp_broadcast_buffers", NoEffect(ONE_GPU)),
    ("ddp_timeout", NoEffect(ONE_GPU)),
    ("tpu_num_cores", NoEffect(ONE_GPU)),
    ("tpu_metrics_debug", NoEffect(ONE_GPU)),
    ("mp_parameters", NoEffect(ONE_GPU)),
    ("ray_scope", NoEffect(ONE_GPU)),
    ("average_tokens_across_devices", NoEffect("losses are always averaged over tokens")),
    ("fsdp", Only(&["\"\"", "[]"], "halfbyte does not shard models")),
    ("fsdp_config", Only(&["{}"], "halfbyte does not shard models")),
    ("fsdp_min_num_params", NoEffect("it belongs to fsdp")),
    ("fsdp_transformer_layer_cls_to_wrap", NoEffect("it belongs to fsdp")),
    ("deepspeed", Only(&["\"\""], "halfbyte does not shard models")),
    ("accelerator_config", NoEffect(NO_FRAMEWORK)),
    ("parallelism_config", Only(&["{}"], "halfbyte does not shard models")),
    ("debug", NoEffect(NO_FRAMEWORK)),
    ("dataloader_num_workers", NoEffect(NO_FRAMEWORK)),
    ("dataloader_prefetch_factor", NoEffect(NO_FRAMEWORK)),
    ("dataloader_pin_memory", NoEffect(NO_FRAMEWORK)),
    ("dataloader_persistent_workers", NoEffect(NO_FRAMEWORK)),
    ("past_index", Only(&["-1"], NOT_YET)),
    ("label_smoothing_factor", Only(&["0"], NOT_YET)),
    ("loss_type", Only(&["\"nll\""], NOT_YET)),
    ("optim_args", Only(&["\"\""], NOT_YET)),
    ("optim_target_modules", Only(&["[]"], NOT_YET)),
    ("adafactor", Only(&["false"], "halfbyte has AdamW only")),
    ("auto_find_batch_size", Only(&["false"], "the memory plan says beforehand what fits")),
    ("full_determinism", NoEffect("every run is deterministic")),
    ("torch_compile", NoEffect(NO_FRAMEWORK)),
    ("torch_compile_backend", NoEffect(NO_FRAMEWORK)),
    ("torch_compile_mode", NoEffect(NO_FRAMEWORK)),
    ("torchdynamo", NoEffect(NO_FRAMEWORK)),
    ("use_liger_kernel", NoEffect(NO_FRAMEWORK)),
    ("liger_kernel_config", NoEffect(NO_FRAMEWORK)),
    ("activation_offloading", Only(&["false"], NOT_YET)),
    ("use_legacy_prediction_loop", NoEffect(NO_FRAMEWORK)),
    ("push_to_hub", Only(&["false"], HUB)),
    ("hub_model_id", NoEffect(HUB)),
    ("hub_strategy", NoEffect(HUB)),
    ("hub_token", Only(&[], "secrets do not belong into a recipe: set HF_TOKEN")),
    ("hub_private_repo", NoEffect(HUB)),
    ("hub_always_push", NoEffect(HUB)),
    ("hub_revision", NoEffect(HUB)),
    ("push_to_hub_model_id", NoEffect(HUB)),
    ("push_to_hub_organization", NoEffect(HUB)),
    ("push_to_hub_token", Only(&[], "secrets do not belong into a recipe: set HF_TOKEN")),
];

/// What we do with `key`; None: never heard of.
pub fn lookup(key: &str) -> Option<(&'static str, Use)> {
    KEYS.iter().find(|(name, _)| *name == key).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_consistent() {
        for (i, (key, used)) in KEYS.iter().enumerate() {
            assert!(!KEYS[..i].iter().any(|(k, _)| k == key), "{key} is there twice");
            match used {
                Alias(of) => assert!(matches!(lookup(of), Some((_, Used(..)))), "{key} is an alias of nothing"),
                Only(values, _) => {
                    for value in *values {
                        toml::from_str::<toml::Table>(&format!("x = {value}")).expect(key);
                    }
                }
                _ => {}
            }
        }
    }
}
