//! Tests of [`super`]: one for each rule.

use super::*;
use crate::config::data::{OverLength, PackingStrategy, TestSize, TextFormat, TrainOn};
use crate::config::lora::{Pattern, Targets};
use crate::config::training::{Formula, Optim, Placement, Tracker};
use halfbyte_core::quant::{QuantKind, Scheme};

const MODEL: &str = "model_name_or_path = \"m\"\n";

fn recipe(text: &str) -> Result<Recipe> {
    Recipe::parse(&format!("{MODEL}{text}"), "r.toml", &[])
}

fn ok(text: &str) -> Recipe {
    recipe(text).unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn refused(text: &str, words: &[&str]) {
    let message = recipe(text).expect_err(text).to_string();
    for word in words.iter().chain(&["r.toml", "hint:"]).filter(|w| **w != "no hint") {
        assert!(
            message.contains(word) || (*word == "hint:" && words.contains(&"no hint")),
            "{text}: {message:?} lacks {word:?}"
        );
    }
}

fn set(text: &str, overrides: &[&str]) -> Result<Recipe> {
    Recipe::parse(&format!("{MODEL}{text}"), "r.toml", &overrides.iter().map(|s| s.to_string()).collect::<Vec<_>>())
}

#[test]
fn defaults_are_those_of_hugging_face() {
    let r = ok("");
    let t = &r.training;
    assert_eq!((t.epochs, t.max_steps, t.batch_size, t.eval_batch_size, t.accumulation), (3.0, None, 8, 8, 1));
    assert_eq!((t.learning_rate, t.schedule.as_str(), t.weight_decay, t.max_grad_norm), (5e-5, "linear", 0.0, 1.0));
    assert_eq!((t.adam_beta1, t.adam_beta2, t.adam_epsilon), (0.9, 0.999, 1e-8));
    assert_eq!((t.warmup_ratio, t.warmup_steps, t.seed, t.data_seed), (0.0, 0.0, 42, 42));
    assert_eq!((t.logging, t.eval, t.save), (Cadence::Steps(10), Cadence::Never, Cadence::Steps(500)));
    assert_eq!((t.save_total_limit, t.checkpointing, t.drop_last), (None, None, false));
    assert_eq!(t.optim, Optim { formula: Formula::Torch, bits: 32, placement: Placement::Resident });
    assert_eq!((r.lora.r, r.lora.alpha, r.lora.dropout), (8, 8.0, 0.0));
    assert_eq!((&r.lora.targets, &r.quantization, r.compute), (&Targets::Default, &None, DType::F32));
    assert_eq!((r.data.split.as_str(), r.data.train_on, r.data.packing), ("train", None, false));
    assert_eq!((r.data.over_length, r.data.packing_strategy), (OverLength::Truncate, PackingStrategy::Bfd));
    assert!(r.notes.is_empty());
}

#[test]
fn keys_stand_in_sections_or_flat() {
    let flat = ok("r = 16\nlearning_rate = 2e-4\npacking = true");
    let sections = ok("[lora]\nr = 16\n[training]\nlearning_rate = 2e-4\n[data]\npacking = true");
    let elsewhere = ok("[training]\nr = 16\nlearning_rate = 2e-4\npacking = true");
    assert_eq!(flat, sections);
    assert_eq!(flat, elsewhere);
    refused("r = 16\n[lora]\nr = 8", &["`r = 16` and `r = 8` are the same key with two values"]);
    refused("lora_r = 16\nr = 8", &["`lora_r = 16` and `r = 8`", "keep one"]);
    assert_eq!(ok("lora_r = 16\nr = 16").lora.r, 16, "the same value twice does not conflict");
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_name() {
    refused("learning_rat = 1e-4", &["`learning_rat`", "did you mean `learning_rate`?"]);
    refused("[trainin]\nr = 8", &["`trainin`", "did you mean `training`?"]);
    refused("[lora]\nrank_patern = {}", &["did you mean `rank_pattern`?"]);
    refused("[lora]\nrnk = 8", &["`rnk`"]);
    refused("colour = 3", &["`colour`", "TrainingArguments", "halfbyte keys"]);
    // local_rank would be nearer, but it has no effect.
    refused("locl_rank = 16", &["did you mean `lora_rank`?"]);
    refused("r = ", &["line 2"]);
}

#[test]
fn all_wrong_keys_and_values_are_named_at_once() {
    let text =
        "learning_rat = 1\n[lora]\nlora_rnk = 8\nbias = \"all\"\n[training]\nseed = \"x\"\nbf16 = 1\noptim = \"sgd\"";
    let message = set(text, &["packing=yes", "nonsense"]).expect_err("wrong").to_string();
    for word in [
        "r.toml: unknown key `learning_rat`\n  hint: did you mean `learning_rate`?\n",
        "r.toml: unknown key `lora_rnk`\n  hint: did you mean `lora_rank`?\n",
        "`bias` is \"all\"",
        "`seed` is \"x\"",
        "`bf16` is 1",
        "`optim` is \"sgd\"",
        "--set: `packing` is \"yes\": expected true or false",
        "--set nonsense: expected key=value",
    ] {
        assert!(message.contains(word), "{message}\nlacks {word}");
    }
    // An error that a wrong key may have caused is not reported.
    let message = recipe("load_in_4bt = true\nbnb_4bit_quant_type = \"nf4\"").expect_err("wrong").to_string();
    assert_eq!(message, "r.toml: unknown key `load_in_4bt`\n  hint: did you mean `load_in_4bit`?");
    // Contradictions in different sections are all reported.
    let message =
        recipe("bf16 = true\nfp16 = true\npacking = true\ngroup_by_length = true").expect_err("wrong").to_string();
    assert!(message.contains("group_by_length") && message.contains("`bf16` is true as well"), "{message}");
}

#[test]
fn an_error_about_a_setting_of_the_command_line_names_it() {
    let message = |setting: &str| set("r = 4\nlearning_rate = 1e-4", &[setting]).expect_err(setting).to_string();
    assert!(
        message("learning_rate=abc").starts_with("--set: `learning_rate` is \"abc\""),
        "{}",
        message("learning_rate=abc")
    );
    assert!(message("r=0").starts_with("--set: `r` is 0"), "{}", message("r=0"));
    assert!(message("learning_rat=1").starts_with("--set: unknown key"), "{}", message("learning_rat=1"));
}

#[test]
fn names_of_other_programs_are_the_keys_they_mean() {
    let train_on = |text: &str| ok(text).data.train_on;
    assert_eq!(train_on("completion_only_loss = true"), Some(TrainOn::Completion));
    assert_eq!(train_on("completion_only_loss = false"), Some(TrainOn::All));
    assert_eq!(train_on("assistant_only_loss = true"), Some(TrainOn::Assistant));
    assert_eq!(train_on("assistant_only_loss = false"), None);
    assert_eq!(train_on("train_on_inputs = false"), Some(TrainOn::Assistant));
    assert_eq!(train_on("train_on_inputs = true"), Some(TrainOn::All));
    refused(
        "completion_only_loss = true\ntrain_on = \"all\"",
        &["completion_only_loss", "`train_on = \"all\"`", "two values"],
    );
    assert_eq!(train_on("completion_only_loss = true\ntrain_on = \"completion\""), Some(TrainOn::Completion));
    refused("completion_only_loss = 1", &["`completion_only_loss` is 1", "true or false", "train_on"]);
    let set = set("completion_only_loss = true", &["train_on=all"]).expect("the command line wins");
    assert_eq!(set.data.train_on, Some(TrainOn::All));

    let r = ok(
        "lora_rank = 4\nsequence_len = 64\nsample_packing = true\nmicro_batch_size = 2\nnum_epochs = 1\nlr = 1e-3\n\
                lr_scheduler = \"cosine\"\nrandom_state = 7\nquantization_bit = 4\nuse_gradient_checkpointing = \"unsloth\"",
    );
    assert_eq!((r.lora.r, r.data.max_seq_length, r.data.packing), (4, Some(64), true));
    assert_eq!((r.training.batch_size, r.training.epochs, r.training.learning_rate), (2, 1.0, 1e-3));
    assert_eq!((r.training.schedule.as_str(), r.training.seed, r.training.checkpointing), ("cosine", 7, Some(true)));
    assert!(r.quantization.is_some());
    refused("quantization_bit = 8", &["quantization_bit", "expected 4"]);
    assert_eq!(ok("lora_target_linear = true").lora.targets, Targets::AllLinear);
    assert_eq!(ok("lora_target = \"all\"").lora.targets, Targets::AllLinear);
    let names = Pattern::Names(vec!["q_proj".into(), "v_proj".into()]);
    assert_eq!(ok("lora_target = \"q_proj,v_proj\"").lora.targets, Targets::Matching(names));
    refused("adapter = \"qlora\"", &["`adapter` is \"qlora\"", "load_in_4bit = true"]);
    assert_eq!(ok("dtype = \"bf16\"").compute, DType::Bf16);
}

#[test]
fn a_chat_template_is_a_text_or_a_known_name() {
    let data = |text: &str| ok(text).data;
    assert_eq!(data("chat_template = \"chatml\"").chat_template.as_deref(), Some("chatml"));
    assert_eq!(data("chat_template = \"llama3\"").chat_template.as_deref(), Some("llama-3"));
    let named = data("template = \"mistral_v2v3\"");
    assert_eq!((named.template, named.chat_template.as_deref()), (None, Some("mistral-v3")));
    assert_eq!(data("chat_template = \"tokenizer_default\"").chat_template, None);
    assert_eq!(data("template = \"{{ x }}\"").template.as_deref(), Some("{{ x }}"));
    for (text, word) in [
        ("template = \"mistral\"", "mistral-v1"),
        ("chat_template = \"chatlm\"", "did you mean \"chatml\"?"),
        ("template = \"Question:\"", "every record would become the same text"),
        ("template = \"\"", "names chatml"),
        ("template = \"zephyr\"\nchat_template = \"chatml\"", "`chat_template` says something else"),
    ] {
        refused(text, &["template", word]);
    }
}

#[test]
fn overrides_win_and_are_toml_or_text() {
    let r =
        set("learning_rate = 1e-4\nlora_r = 4", &["learning_rate=2e-4", "lora.r=16", "run_name=my run", "bf16=true"]);
    let r = r.expect("valid");
    assert_eq!((r.training.learning_rate, r.lora.r, r.compute), (2e-4, 16, DType::Bf16));
    assert_eq!(r.training.run_name.as_deref(), Some("my run"));
    let r = set("", &["target_modules=[\"q_proj\"]", "evaluation_strategy=no"]).expect("valid");
    assert_eq!(r.lora.targets, Targets::Matching(Pattern::Names(vec!["q_proj".into()])));
    for (bad, word) in [("learning_rate", "key=value"), ("learning_rat=1", "learning_rate"), ("r=x", "whole number")] {
        assert!(set("", &[bad]).expect_err(bad).to_string().contains(word), "{bad}");
    }
    assert_eq!(Recipe::parse("", "r.toml", &["model=x".into()]).expect("valid").model.name_or_path, "x");
}

#[test]
fn aliases_keys_without_effect_and_refused_keys() {
    let r = ok("test_size = 0.1\nevaluation_strategy = \"epoch\"\nmax_length = 64\ndataset_text_field = \"t\"");
    assert_eq!((r.training.eval, r.data.max_seq_length), (Cadence::Epoch, Some(64)));
    assert_eq!(r.data.text_column.as_deref(), Some("t"));
    let quiet = ok(
        "use_cache = false\ntrust_remote_code = true\npretraining_tp = 1\nlow_cpu_mem_usage = true\nbias = \"none\"",
    );
    assert_eq!(quiet.notes.len(), 4);
    let remote = quiet.notes.iter().find(|note| note.contains("trust_remote_code")).expect("noted");
    assert!(remote.contains("never runs"), "{remote}");
    refused("bias = \"all\"", &["`bias`", "\"all\"", "bias = \"none\""]);
    refused("modules_to_save = [\"embed_tokens\"]", &["modules_to_save"]);
    refused("use_dora = true", &["use_dora"]);
    refused("target_parameters = [\"x\"]", &["target_parameters", "w1"]);
    refused("load_in_8bit = true", &["load_in_8bit"]);
    refused("hub_token = \"x\"", &["hub_token", "HF_TOKEN"]);
    ok("label_smoothing_factor = 0.0\nresume_from_checkpoint = false");
    refused("label_smoothing_factor = 0.1", &["label_smoothing_factor"]);
}

#[test]
fn a_device_map_puts_the_whole_model_on_one_device() {
    for (value, device) in [
        ("0", "cuda:0"),
        ("\"cuda:3\"", "cuda:3"),
        ("\"cpu\"", "cpu"),
        ("{ \"\" = 1 }", "cuda:1"),
        ("{ \"\" = \"cpu\" }", "cpu"),
        ("\"auto\"", "auto"),
        ("\"balanced\"", "auto"),
    ] {
        let r = ok(&format!("device_map = {value}"));
        assert_eq!(r.model.device.as_deref(), Some(device), "{value}");
        let said = r.notes.iter().any(|note| note.contains("device_map") && note.contains("one device"));
        assert_eq!(said, device == "auto", "{value}: {:?}", r.notes);
    }
    assert_eq!(ok("").model.device, None);
    for value in ["-1", "true", "\"gpu\"", "\"cuda:x\"", "{ \"model.layers.0\" = 0 }", "{ \"\" = 0, \"lm_head\" = 1 }"]
    {
        refused(&format!("device_map = {value}"), &["device_map", "the first GPU"]);
    }
}

#[test]
fn values_have_the_type_that_is_expected() {
    refused("learning_rate = \"fast\"", &["`learning_rate` is \"fast\"", "number", "no hint"]);
    refused("lora_r = 1.5", &["`lora_r` is 1.5", "no hint"]);
    refused("packing = 1", &["`packing`", "true or false", "no hint"]);
    refused("gradient_accumulation_steps = 0", &["gradient_accumulation_steps", "from 1 to", "no hint"]);
    refused("per_device_train_batch_size = 9223372036854775807", &["per_device_train_batch_size", "no hint"]);
    refused("max_seq_length = 10000000", &["max_seq_length", "1048576", "no hint"]);
    refused("num_train_epochs = -1", &["num_train_epochs", "no hint"]);
    refused("warmup_ratio = 1.5", &["warmup_ratio", "no hint"]);
    refused("adam_beta1 = 1.0", &["adam_beta1", "no hint"]);
    refused("max_steps = -2", &["max_steps", "no hint"]);
    refused("optim = \"adamw_torh\"", &["did you mean \"adamw_torch\"?"]);
    refused("target_modules = [1]", &["target_modules", "no hint"]);
    refused("torch_dtype = \"int8\"", &["torch_dtype", "no hint"]);
    let none = Recipe::parse("r = 8", "r.toml", &[]).expect_err("no model").to_string();
    assert!(none.contains("`model_name_or_path` is missing"), "{none}");
}

#[test]
fn ranks_and_alphas_are_checked() {
    refused("r = 0", &["`r` is 0"]);
    refused("lora_dropout = 1.0", &["lora_dropout", "no hint"]);
    let r = ok("rank_pattern = { \"z\" = 4, \"a\" = 2 }\n[lora.alpha_pattern]\nq_proj = 32");
    assert_eq!(r.lora.rank_pattern, [("z".to_string(), 4), ("a".to_string(), 2)], "in the order typed");
    assert_eq!(r.lora.alpha_pattern, [("q_proj".to_string(), 32.0)]);
    refused("rank_pattern = { q = 1.5 }", &["rank_pattern", "no hint"]);
    refused("adapter_name_or_path = \"a\"\nr = 8", &["`r`", "its own configuration"]);
}

#[test]
fn targets_are_names_a_pattern_or_all_linear() {
    assert_eq!(ok("target_modules = \"all-linear\"").lora.targets, Targets::AllLinear);
    assert_eq!(ok("target_modules = \".*q\"").lora.targets, Targets::Matching(Pattern::Regex(".*q".into())));
    assert_eq!(ok("target_modules = []").lora.targets, Targets::Default);
    assert_eq!(ok("layers_to_transform = 1").lora.layers, Some(vec![1]));
}

#[test]
fn the_compute_type_follows_the_keys_and_contradictions_are_refused() {
    let four = |text: &str| format!("load_in_4bit = true\n{text}");
    let named = |text: &str| ok(&four(text)).compute;
    assert_eq!(named(""), DType::F32);
    assert_eq!(named("bf16 = true"), DType::Bf16);
    assert_eq!(named("bnb_4bit_compute_dtype = \"bfloat16\"\nfp16 = false"), DType::Bf16);
    assert_eq!(named("bnb_4bit_compute_dtype = \"torch.float16\"\nfp16 = true"), DType::F16);
    let quiet = ok(&four("bnb_4bit_compute_dtype = \"float16\"\nfp16 = false\nbf16 = false"));
    assert_eq!(quiet.compute, DType::F16);
    assert!(quiet.notes[0].contains("scales the loss"), "{:?}", quiet.notes);
    refused(&four("bnb_4bit_compute_dtype = \"float16\"\nbf16 = true"), &["`bf16`", "float16", "bf16 = false"]);
    refused(&four("bnb_4bit_compute_dtype = \"float32\"\nfp16 = true"), &["`fp16`", "float32"]);
    refused("bf16 = true\nfp16 = true", &["`fp16`"]);
    refused(&four("bnb_4bit_compute_dtype = \"int8\""), &["bnb_4bit_compute_dtype", "no hint"]);
    assert_eq!(ok("torch_dtype = \"bfloat16\"").compute, DType::Bf16);
    assert_eq!(named("torch_dtype = \"bfloat16\""), DType::F32);
}

#[test]
fn quantization_is_asked_for_by_load_in_4bit() {
    let q = ok("load_in_4bit = true").quantization.expect("asked for");
    assert_eq!(q.scheme, Scheme { kind: QuantKind::Fp4, blocksize: 64, double: false });
    let q = ok(
        "load_in_4bit = true\nbnb_4bit_quant_type = \"nf4\"\nuse_nested_quant = true\nblocksize = 128\nllm_int8_skip_modules = [\"gate\"]",
    );
    let q = q.quantization.expect("asked for");
    assert_eq!(q.scheme, Scheme { kind: QuantKind::Nf4, blocksize: 128, double: true });
    assert_eq!(q.skip_modules, ["gate"]);
    refused("load_in_4bit = true\nblocksize = 96", &["`blocksize` is 96"]);
    let notes = |skip: &str| ok(&format!("load_in_4bit = true\nllm_int8_skip_modules = {skip}")).notes.join("");
    assert!(notes("[\"gate\"]").contains("does not name lm_head"), "{}", notes("[\"gate\"]"));
    assert_eq!(notes("[\"gate\", \"lm_head\"]") + &notes("[]"), "");
    refused("bnb_4bit_quant_type = \"nf4\"", &["load_in_4bit = true"]);
    let off = ok("load_in_4bit = false\nbnb_4bit_quant_type = \"nf4\"");
    assert!(off.quantization.is_none() && off.notes[0].contains("bnb_4bit_quant_type"));
}

#[test]
fn cadences_are_steps_shares_or_epochs() {
    let t = ok("test_size = 10\nlogging_steps = 25\neval_strategy = \"steps\"\nsave_strategy = \"epoch\"").training;
    assert_eq!((t.logging, t.eval, t.save), (Cadence::Steps(25), Cadence::Steps(25), Cadence::Epoch));
    let t = ok("logging_steps = 0.1\nsave_strategy = \"no\"\nsave_total_limit = 2\nmax_steps = 7").training;
    assert_eq!((t.logging, t.save, t.save_total_limit), (Cadence::Share(0.1), Cadence::Never, Some(2)));
    assert_eq!(t.max_steps, Some(7));
    assert_eq!(ok("max_steps = -1").training.max_steps, None);
    refused("eval_strategy = \"steps\"", &["no records to evaluate on", "test_size"]);
    refused("save_steps = 0", &["save_steps", "no hint"]);
}

#[test]
fn optimizers_have_a_formula_and_a_placement() {
    let optim = |name: &str| ok(&format!("optim = \"{name}\"")).training.optim;
    assert_eq!(optim("paged_adamw_8bit").placement, Placement::Paged);
    assert_eq!((optim("adamw_bnb_8bit").bits, optim("adamw_bnb_8bit").formula), (8, Formula::Bitsandbytes));
    assert_eq!((optim("paged_adamw_32bit").bits, optim("paged_adamw_32bit").formula), (32, Formula::Bitsandbytes));
    assert_eq!(optim("adamw_torch_fused"), optim("adamw_torch"));
    let hf = ok("optimizer = \"adamw_hf\"");
    assert_eq!(hf.training.optim, optim("adamw_torch"));
    assert!(hf.notes[0].contains("adamw_hf") && hf.notes[0].contains("epsilon"), "{:?}", hf.notes);
    refused("optim = \"sgd\"", &["optim", "no hint"]);
}

#[test]
fn a_missing_recipe_is_named() {
    let error = Recipe::open(Path::new("no/such/recipe.toml"), &[]).expect_err("missing").to_string();
    assert!(error.contains("no/such/recipe.toml"), "{error}");
}

#[test]
fn the_data_section_is_checked() {
    let d = ok(
        "dataset = [\"a.jsonl\", \"b.jsonl\"]\ntemplate = \"{{ x }}\"\nrole_markers = [\"[INST]\", \"[/INST]\"]\ntrain_on = \"completion\"",
    );
    assert_eq!(d.data.dataset.len(), 2);
    assert_eq!((d.data.train_on, d.data.format), (Some(TrainOn::Completion), None));
    assert_eq!(ok("format = \"alpaca\"").data.format, Some(TextFormat::Alpaca));
    assert_eq!(ok("val_set_size = 0.05").data.test_size, Some(TestSize::Share(0.05)));
    assert_eq!(ok("report_to = [\"tensorboard\"]").training.report_to, [Tracker::TensorBoard]);
    assert_eq!(ok("report_to = \"none\"").training.report_to, []);
    for all in ["\"all\"", "[\"all\"]", "[\"wandb\", \"tensorboard\", \"wandb\"]"] {
        let recipe = ok(&format!("report_to = {all}"));
        assert_eq!(recipe.training.report_to, [Tracker::TensorBoard, Tracker::Wandb], "{all}");
    }
    assert_eq!(ok("logging_dir = \"logs\"").training.logging_dir.as_deref(), Some("logs"));
    refused("format = \"template\"", &["template", "{{ question }}"]);
    refused("format = \"alpaca\"\ntemplate = \"{{ x }}\"", &["format"]);
    refused("format = \"alpacca\"", &["\"sharegpt\"", "\"prompt-completion\"", "did you mean \"alpaca\"?"]);
    refused("format = \"alpaca\"\nchat_template = \"chatml\"", &["`format`", "prompt of its own"]);
    refused("role_markers = [\"x\"]", &["role_markers"]);
    refused("test_size = 0.1\neval_split = \"test\"", &["test_size"]);
    refused("test_size = 1.5", &["test_size", "no hint"]);
    refused("packing = true\ngroup_by_length = true", &["group_by_length"]);
    refused("packing = true\npacking_strategy = \"wrapped\"\nover_length = \"drop\"", &["over_length", "bfd"]);
    refused("report_to = \"mlflow\"", &["report_to", "no hint"]);
    refused("report_to = [\"none\", \"wandb\"]", &["report_to", "no hint"]);
    refused("max_seq_length = 1", &["max_seq_length", "no hint"]);
}

#[test]
fn the_router_is_that_of_a_mixtral_model() {
    let config = |family: &str| {
        let text = format!(
            r#"{{"model_type": "{family}", "vocab_size": 8, "hidden_size": 8, "intermediate_size": 8,
                "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}}"#
        );
        crate::config::config_json::parse(&text, Path::new("config.json")).expect("valid")
    };
    let asks = ok("output_router_logits = true\nrouter_aux_loss_coef = 0.02");
    let experts = asks.apply(config("mixtral")).expect("has a router").experts.expect("has experts");
    assert_eq!((experts.output_router_logits, experts.aux_loss_coef), (true, 0.02));
    assert!(asks.apply(config("mistral")).expect_err("no router").to_string().contains("router_aux_loss_coef"));
    ok("output_router_logits = false").apply(config("mistral")).expect("nothing asked");
}

#[test]
fn the_resolved_recipe_is_the_recipe() {
    let texts = [
        "",
        "adapter_name_or_path = \"a\"\ntorch_dtype = \"auto\"\nlogging_steps = 0.5",
        "load_in_4bit = true\nbnb_4bit_quant_type = \"nf4\"\nbf16 = true\nllm_int8_skip_modules = [\"gate\"]\n\
         target_modules = [\"q_proj\", \"w1\"]\nr = 64\nlora_dropout = 0.1\nrank_pattern = { z = 1, a = 2 }\n\
         optim = \"paged_adamw_8bit\"\nlr_scheduler_type = \"cosine_with_restarts\"\nlr_scheduler_kwargs = { num_cycles = 3 }\n\
         warmup_steps = 0.03\nmax_steps = 100\ntest_size = 0.1\neval_strategy = \"steps\"\neval_steps = 20\n\
         dataset = \"x y.jsonl\"\ntemplate = \"\"\"<s>[INST] {{ a }}\n\\\"{{ b }}\\\" [/INST]\"\"\"\nshuffle_seed = 7\n\
         role_markers = [\"<usr>\", \"<bot>\"]\nreport_to = \"all\"\nadd_bos_token = false\nlearning_rate = 2.5e-5",
        "train_on_inputs = false\ntemplate = \"llama3\"\nlora_target = \"q_proj,v_proj\"\noptim = \"adamw_hf\"\ndtype = \"bf16\"",
        "load_in_4bit = true\nbnb_4bit_compute_dtype = \"float16\"\nuse_cache = false\nlayers_to_transform = [0, 3]",
    ];
    for text in texts {
        let mut first = ok(text);
        let printed = first.resolved_toml();
        let mut second = Recipe::parse(&printed, "resolved", &[]).unwrap_or_else(|e| panic!("{printed}\n{e}"));
        assert_eq!(second.resolved_toml(), printed);
        (first.notes, second.notes) = (Vec::new(), Vec::new());
        assert_eq!(first, second, "{printed}");
    }
}
