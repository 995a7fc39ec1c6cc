"""Records ../data/trainer: runs of a plain transformers + PEFT loop on the batches of `halfbyte inspect-data --json`.

    python -m venv venv && venv/bin/pip install torch==2.9.1 transformers==4.57.6 peft==0.18.1 bitsandbytes==0.50.2 \
        accelerate sentencepiece
    venv/bin/python app/tests/trainer/record.py target/debug/halfbyte

Every case is a model of a few thousand random parameters, an adapter to start from, a recipe, and the numbers that the
loop gives: the log, the evaluations, the final adapter, and greedy tokens. Rows, their order, and random bits are
halfbyte's: rows and order come from `inspect-data`, and dropout and NEFTune take their bits from Philox4x32-10. The rest
is torch, transformers and PEFT in f32, but for bitsandbytes' AdamW, which has no CPU kernels and is written out here.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
import tomllib

os.environ["HF_HUB_OFFLINE"] = "1"

import bitsandbytes.functional as bnb
import numpy as np
import peft
import peft.optimizers
import safetensors
import sentencepiece
import torch
import transformers
from safetensors.torch import load_file, save_file

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "../data/trainer")
TOKENIZER = os.path.join(HERE, "../../../tokenizer/tests/data/tokenizers/small/tokenizer.model")
PROGRAM = os.path.abspath(sys.argv[1])
VERSIONS = {m.__name__: m.__version__ for m in (torch, transformers, peft, safetensors, np)}
VOCAB = sentencepiece.SentencePieceProcessor(model_file=TOKENIZER)
PROMPT = "Q: which word comes"
torch.set_num_threads(1)

# Every record has a length of its own, up to about 60 tokens.
WORDS = "the king of a small land went to the sea and saw one old ship with nine red flags in the cold wind".split()
DATA = [
    {"question": " ".join(WORDS[i % 7 : i % 7 + 1 + i % 5]), "answer": " ".join(WORDS[(3 * i + j) % 22] for j in range(1 + i * i % 11))}
    for i in range(26)
]

SIZES = {"vocab_size": VOCAB.vocab_size(), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128,
         "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "rope_theta": 10000.0}
MODELS = {
    "llama": (transformers.LlamaConfig, {}),
    "tied": (transformers.LlamaConfig, {"tie_word_embeddings": True, "hidden_size": 64, "head_dim": 16}),
    "mixtral": (transformers.MixtralConfig, {
        "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 9, "router_aux_loss_coef": 0.05,
        "output_router_logits": True}),
}
# Positions end at 16, so that most rows need the stretch.
SHORT = {"max_position_embeddings": 16}
ROPES = {
    "linear": SHORT | {"rope_scaling": {"rope_type": "linear", "factor": 4.0}},
    "dynamic": SHORT | {"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}},
    "llama3": {"max_position_embeddings": 64, "rope_scaling": {
        "rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16}},
    "yarn": {"max_position_embeddings": 64, "rope_scaling": {
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 8.0, "beta_slow": 1.0}},
}
RECIPE = {
    "model_name_or_path": "model", "adapter_name_or_path": "init", "dataset": ["data.jsonl"], "output_dir": "run",
    "template": "Q: {{ question }} A:{% generation %} {{ answer }}</s>{% endgeneration %}", "special_in_template": True,
    "torch_dtype": "float32", "max_seq_length": 64, "test_size": 5, "per_device_train_batch_size": 3,
    "per_device_eval_batch_size": 3, "gradient_accumulation_steps": 2, "max_steps": 9, "learning_rate": 0.01,
    "logging_steps": 2, "eval_strategy": "steps", "eval_steps": 4, "save_strategy": "steps", "save_steps": 5,
    "lr_scheduler_type": "cosine", "warmup_steps": 2, "max_grad_norm": 1.0, "weight_decay": 0.1,
}
# name: model, changes of its configuration, adapter, changes of the recipe
CASES = {
    "padded": ("llama", {}, {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "down_proj"]}, {
        "train_on": "all", "gradient_accumulation_steps": 3, "max_grad_norm": 0.3}),
    "dropout": ("llama", {}, {
        "r": 4, "lora_alpha": 8, "lora_dropout": 0.3, "use_rslora": True, "rank_pattern": {"q_proj": 7, "layers.1.mlp.up_proj": 2},
        "alpha_pattern": {"v_proj": 3}, "target_modules": ["q_proj", "v_proj", "up_proj", "down_proj"]}, {
        "packing": True, "max_seq_length": 40, "per_device_train_batch_size": 2, "neftune_noise_alpha": 5.0,
        "lr_scheduler_type": "linear", "logging_steps": 1, "gradient_checkpointing": True}),
    "layers": ("llama", {}, {
        "r": 3, "lora_alpha": 4, "target_modules": ["k_proj", "o_proj", "gate_proj"], "layers_to_transform": [1],
        "layers_pattern": "layers"}, {
        "optim": "paged_adamw_32bit", "lr_scheduler_type": "inverse_sqrt", "lr_scheduler_kwargs": {"timescale": 50.0},
        "group_by_length": True, "loraplus_lr_ratio": 4.0}),
    "experts": ("mixtral", {}, {"r": 2, "lora_alpha": 6, "target_modules": ["q_proj", "gate", "w1", "w2", "w3"]}, {
        "logging_steps": 3, "per_device_train_batch_size": 2, "lr_scheduler_type": "constant_with_warmup"}),
    "tied": ("tied", {}, {"r": 16, "lora_alpha": 16, "target_modules": ["v_proj", "lm_head", "o_proj"]}, {
        "optim": "paged_adamw_8bit", "lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"power": 2.0, "lr_end": 1e-4}}),
} | {
    f"rope_{kind}": ("llama", change, {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "k_proj"]}, {
        "max_steps": 4, "logging_steps": 1, "eval_steps": 2, "gradient_accumulation_steps": 1})
    for kind, change in ROPES.items()
}


# Philox4x32-10 (Salmon et al. 2011), vectorized over the counter.
def philox(groups, site, key):
    c = [groups.astype(np.uint64) & 0xFFFFFFFF, groups.astype(np.uint64) >> 32,
         np.full(groups.shape, site, np.uint64), np.zeros(groups.shape, np.uint64)]
    k = [int(key[0]) & 0xFFFFFFFF, int(key[1]) & 0xFFFFFFFF]
    for _ in range(10):
        a, b = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        low = np.uint64(0xFFFFFFFF)
        c = [(b >> np.uint64(32)) ^ c[1] ^ np.uint64(k[0]), b & low, (a >> np.uint64(32)) ^ c[3] ^ np.uint64(k[1]), a & low]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return np.stack(c, -1)


def random_bits(tokens, width, site, key):
    """32 bits for every element of a stream of tokens."""
    n = tokens * width
    return philox(np.arange((n + 3) // 4), site, key).reshape(-1)[:n].reshape(tokens, width)


class Stream:
    """Which token of the stream stands where in the current batch, and the key of its random numbers; None: no training."""

    places, key = None, None

    def spread(self, per_token):
        """`[tokens, width]` to the layout of the batch. Padding gets zeros."""
        out = np.zeros((*self.places.shape, per_token.shape[-1]), per_token.dtype)
        out[self.places >= 0] = per_token[self.places[self.places >= 0]]
        return torch.from_numpy(out)


class Mask(torch.nn.Module):
    def __init__(self, stream, site, p):
        super().__init__()
        self.stream, self.site, self.p = stream, site, p

    def forward(self, x):
        if self.stream.key is None:
            return x
        bits = random_bits(int(self.stream.places.max()) + 1, x.shape[-1], self.site, self.stream.key)
        kept = (bits >= np.uint64(int(self.p * 2**32))).astype(np.float32)
        return x * self.stream.spread(kept) * (1.0 / (1.0 - self.p))


def neftune(stream, alpha):
    def hook(_, inputs, output):
        if stream.key is None:
            return output
        # TRL flattens packed rows, so this is the length of the only row; otherwise that of the longest.
        rows, length = stream.places.shape
        magnitude = alpha / math.sqrt(length * output.shape[-1])
        bits = random_bits(int(stream.places.max()) + 1, output.shape[-1], 0, stream.key)
        unit = ((bits >> np.uint64(9)).astype(np.float32) + np.float32(0.5)) * np.float32(2**-22) - np.float32(1)
        return output + magnitude * stream.spread(unit)

    return hook


class Bitsandbytes(torch.optim.Optimizer):
    """AdamW of bitsandbytes' CUDA kernels: the update, then the decay; with 8 bits, tensors of at least 4096 elements
    have moments in blocks of 256."""

    def __init__(self, params, bits, lr, weight_decay):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        self.bits = bits
        self.maps = [bnb.create_dynamic_map(signed=signed).numpy().astype(np.float32) for signed in (True, False)]

    def quantize(self, values, which):
        table = self.maps[which]
        blocks = np.zeros(-(-values.size // 256) * 256, np.float32)
        blocks[: values.size] = values
        blocks = blocks.reshape(-1, 256)
        absmax = np.abs(blocks).max(1, keepdims=True)
        scaled = np.divide(blocks, absmax, out=np.zeros_like(blocks), where=absmax > 0)
        codes = np.searchsorted((table[1:] + table[:-1]) * np.float32(0.5), scaled)
        if which == 0:
            flipped = np.signbit(table[codes]) != np.signbit(blocks)
            codes = np.where(flipped, codes + np.where(blocks > 0, 1, -1), codes)
        return (table[codes] * absmax).reshape(-1)[: values.size]

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state.update(t=0, m=np.zeros(p.numel(), np.float32), v=np.zeros(p.numel(), np.float32))
                g, lr = p.grad.numpy().reshape(-1), np.float32(group["lr"])
                state["t"] += 1
                m = np.float32(0.9) * state["m"] + np.float32(1 - 0.9) * g
                v = np.float32(0.999) * state["v"] + np.float32(1 - 0.999) * g * g
                one, two = 1 - 0.9 ** state["t"], math.sqrt(1 - 0.999 ** state["t"])
                change = np.float32(-group["lr"] * two / one) * (m / (np.sqrt(v) + np.float32(two * 1e-8)))
                new = (p.numpy().reshape(-1) + change) * np.float32(1 - lr * group["weight_decay"])
                small = self.bits == 32 or p.numel() < 4096
                state["m"], state["v"] = (m, v) if small else (self.quantize(m, 0), self.quantize(v, 1))
                p.copy_(torch.from_numpy(new).reshape(p.shape))


def make_model(name):
    kind, changes = MODELS[name]
    torch.manual_seed(len(name))
    made = kind(**(SIZES | changes))
    net = transformers.AutoModelForCausalLM.from_config(made)
    with torch.no_grad():
        for parameter, p in net.named_parameters():
            if "norm" in parameter:
                p.uniform_(0.7, 1.3)
            else:
                p.normal_(0, 1.0 if "embed" in parameter else p.shape[-1] ** -0.5 * (2.0 if "lm_head" in parameter else 1.5))
    weights = {n: p.to(torch.bfloat16).contiguous() for n, p in net.state_dict().items()}
    if changes.get("tie_word_embeddings"):
        weights["model.embed_tokens.weight"] *= 0.1
        del weights["lm_head.weight"]
    save_file(weights, os.path.join(ROOT, f"{name}.safetensors"), {"format": "pt"})


def write(value, *path):
    path = os.path.join(*path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        f.write(value if isinstance(value, str) else json.dumps(value, indent=1) + "\n")


def toml(recipe):
    def value(v):
        if isinstance(v, dict):
            return "{ " + ", ".join(f"{k} = {value(x)}" for k, x in v.items()) + " }"
        return json.dumps(v)

    return "".join(f"{k} = {value(v)}\n" for k, v in recipe.items())


def collate(rows, packed):
    """The batch of some rows, and the place of every token in the stream; -1 for padding. transformers finds the documents
    of a packed row by their positions, if there is no mask and no cache."""
    documents = [(d["ids"], d["labels"]) for row in rows for d in row]
    if packed:
        batch = {"input_ids": [sum((ids for ids, _ in documents), [])],
                 "labels": [sum((labels for _, labels in documents), [])],
                 "position_ids": [[t for ids, _ in documents for t in range(len(ids))]]}
        places = np.arange(len(batch["input_ids"][0]))[None]
    else:
        width = max(len(ids) for ids, _ in documents)
        pad = lambda values, filler: values + [filler] * (width - len(values))
        batch = {"input_ids": [pad(ids, 0) for ids, _ in documents],
                 "labels": [pad(labels, -100) for _, labels in documents],
                 "attention_mask": [pad([1] * len(ids), 0) for ids, _ in documents]}
        mask = np.array(batch["attention_mask"])
        places = np.where(mask.reshape(-1) == 1, mask.reshape(-1).cumsum() - 1, -1).reshape(mask.shape)
    return {k: torch.tensor(v) for k, v in batch.items()}, places


def hits(logits, labels):
    """Predicted tokens, and those that have the largest logit."""
    targets, best = labels[:, 1:], logits[:, :-1].argmax(-1)
    there = targets != -100
    return int(there.sum()), int((there & (best == targets)).sum())


def reset(net):
    """The frequencies of dynamic rope depend on the batches before; halfbyte's depend on the batch alone."""
    rotary = net.get_base_model().model.rotary_emb
    if rotary.rope_type == "dynamic":
        rotary.max_seq_len_cached = rotary.original_max_seq_len
        rotary.register_buffer("inv_freq", rotary.original_inv_freq, persistent=False)


def optimizer_of(net, recipe):
    lr, decay = recipe["learning_rate"], recipe["weight_decay"]
    name, ratio = recipe.get("optim", "adamw_torch"), recipe.get("loraplus_lr_ratio")
    trained = [p for p in net.parameters() if p.requires_grad]
    if ratio:
        # PEFT's groups, with the optimizer of the recipe.
        made = peft.optimizers.create_loraplus_optimizer(
            net, torch.optim.AdamW, lr=lr, loraplus_lr_ratio=ratio, loraplus_weight_decay=decay, weight_decay=decay)
        trained = [{"params": g["params"], "lr": g["lr"], "weight_decay": decay} for g in made.param_groups]
    if name == "adamw_torch":
        return torch.optim.AdamW(trained, lr=lr, weight_decay=decay)
    return Bitsandbytes(trained, 8 if "8bit" in name else 32, lr, decay)


def evaluate(net, rows, recipe, step):
    """As `Trainer` does: the loss of a batch counts for each of its rows."""
    weighted = total = 0.0
    predicted = hit = count = 0
    size = recipe["per_device_eval_batch_size"]
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        batch, _ = collate(part, recipe.get("packing"))
        reset(net)
        with torch.no_grad():
            out = net(**batch, use_cache=False)
        weighted += out.loss.item() * len(part)
        count += len(part)
        n, h = hits(out.logits, batch["labels"])
        log = torch.log_softmax(out.logits[:, :-1].float(), -1)
        targets = batch["labels"][:, 1:]
        total -= log.gather(-1, targets.clamp(min=0)[..., None])[..., 0][targets != -100].sum().item()
        predicted, hit = predicted + n, hit + h
    return {"step": step, "eval_loss": weighted / count, "eval_loss_per_token": total / predicted,
            "eval_mean_token_accuracy": hit / predicted, "eval_tokens": predicted}


def save_adapter(net, folder):
    net.save_pretrained(folder)
    os.remove(os.path.join(folder, "README.md"))
    # The names are a set, in an order that changes from run to run.
    with open(os.path.join(folder, "adapter_config.json")) as f:
        config = json.load(f)
    write(config | {"target_modules": sorted(config["target_modules"])}, folder, "adapter_config.json")
    # PEFT adds the weight of an adapted head. It is not needed to load the adapter, and it is large.
    file = os.path.join(folder, "adapter_model.safetensors")
    save_file({n: t for n, t in load_file(file).items() if "base_layer" not in n and "lora_" in n}, file, {"format": "pt"})


def run(case):
    name, config_changes, lora, recipe_changes = CASES[case]
    folder = os.path.join(ROOT, case)
    recipe = RECIPE | recipe_changes
    write(toml(recipe), folder, "recipe.toml")
    kind, changes = MODELS[name]
    config = kind(**(SIZES | changes | config_changes))
    with tempfile.TemporaryDirectory() as work:
        model = os.path.join(work, "model")
        config.save_pretrained(model)
        saved = json.load(open(os.path.join(model, "config.json")))
        saved["architectures"] = [kind.__name__.replace("Config", "ForCausalLM")]
        write(saved, model, "config.json")
        write(saved, folder, "config.json")
        for source, target in ((f"{ROOT}/{name}.safetensors", "model.safetensors"), (TOKENIZER, "tokenizer.model")):
            with open(source, "rb") as f, open(os.path.join(model, target), "wb") as g:
                g.write(f.read())
        base = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation="eager")
        torch.manual_seed(1)
        net = peft.get_peft_model(base, peft.LoraConfig(task_type="CAUSAL_LM", **lora))
        net.peft_config["default"].base_model_name_or_path = "model"
        with torch.no_grad():
            for parameter, p in net.named_parameters():
                if "lora_B" in parameter:
                    p.normal_(0, 0.05)
        for target in (os.path.join(folder, "init"), os.path.join(work, "init")):
            save_adapter(net, target)
        for target in (ROOT, work):
            write("".join(json.dumps(r) + "\n" for r in DATA), target, "data.jsonl")
        write(toml(recipe), work, "recipe.toml")
        command = [PROGRAM, "inspect-data", "recipe.toml", "--json", "--rows", "100000"]
        said = json.loads(subprocess.run(command, cwd=work, check=True, capture_output=True).stdout)

    stream = Stream()
    site = 0
    for module in net.modules():
        if isinstance(module, peft.tuners.lora.LoraLayer):
            site += 1
            if lora.get("lora_dropout"):
                module.lora_dropout["default"] = Mask(stream, site, lora["lora_dropout"])
    if alpha := recipe.get("neftune_noise_alpha"):
        net.get_base_model().get_input_embeddings().register_forward_hook(neftune(stream, alpha))
    optimizer = optimizer_of(net, recipe)
    schedule = transformers.get_scheduler(
        recipe["lr_scheduler_type"], optimizer, recipe["warmup_steps"], recipe["max_steps"],
        recipe.get("lr_scheduler_kwargs"))
    trained = [p for p in net.parameters() if p.requires_grad]
    logs, evals, since, micro_steps = [], [], [], 0
    for step, micro_batches in enumerate(said["step_rows"], 1):
        batches = [collate([said["rows"][n - 1] for n in rows], recipe.get("packing")) for rows in micro_batches]
        items = sum(int((batch["labels"] != -100).sum()) for batch, _ in batches)
        loss, predicted, hit = 0.0, 0, 0
        for batch, stream.places in batches:
            stream.key = (42, micro_steps)
            reset(net)
            out = net(**batch, num_items_in_batch=items, use_cache=False)
            out.loss.backward()
            loss += out.loss.item()
            n, h = hits(out.logits, batch["labels"])
            predicted, hit, micro_steps = predicted + n, hit + h, micro_steps + 1
        stream.key = None
        norm = torch.nn.utils.clip_grad_norm_(trained, recipe["max_grad_norm"]).item()
        rate = schedule.get_last_lr()[0]
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        since.append((loss, predicted, hit))
        if step % recipe["logging_steps"] == 0 or step == recipe["max_steps"]:
            losses, all_predicted, all_hits = zip(*since)
            logs.append({"step": step, "loss": sum(losses) / len(losses), "grad_norm": norm, "learning_rate": rate,
                         "mean_token_accuracy": sum(all_hits) / sum(all_predicted)})
            since = []
        if step % recipe["eval_steps"] == 0 or step == recipe["max_steps"]:
            evals.append(evaluate(net, said["eval_rows"], recipe, step))
    save_adapter(net, os.path.join(folder, "final"))
    os.remove(os.path.join(folder, "final", "adapter_config.json"))
    prompt = [VOCAB.bos_id()] + VOCAB.encode(PROMPT)
    ids = list(prompt)
    while len(ids) < len(prompt) + 30:
        reset(net)
        with torch.no_grad():
            ids.append(int(net(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    expected = {"versions": VERSIONS, "model": name, "logs": logs, "evals": evals, "prompt": PROMPT, "prompt_ids": prompt,
                "new_ids": ids[len(prompt):]}
    write(expected, folder, "expected.json")
    print(case, *(f"{log['loss']:.4f}" for log in logs), f"eval {evals[-1]['eval_loss']:.4f}", ids[len(prompt):][:8])


os.makedirs(ROOT, exist_ok=True)
for model_name in MODELS:
    make_model(model_name)
for case_name in sys.argv[2:] or CASES:
    run(case_name)
