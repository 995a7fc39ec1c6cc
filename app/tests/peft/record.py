"""Records `forward/tiny-moe` and `train/moe_aux_r4` of ../data/golden with transformers and PEFT.

    python record.py ../data/golden

A Mixtral of 130 thousand random parameters in bf16, run and trained in f32: right-padded batches, adapters on attention,
router and experts, the auxiliary loss, accumulation, clipping, AdamW as `transformers.Trainer` combines them. The
numbers depend on the version of torch in their last digits only.
"""

import json
import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import peft
import safetensors
import torch
import transformers
from safetensors.torch import save_file

ROOT = sys.argv[1]
MODEL, TRACE = "tiny-moe", "moe_aux_r4"
STEPS, ACCUMULATION, BATCH = 4, 2, 2
LR, DECAY, MAX_NORM = 1e-3, 0.01, 0.5
VERSIONS = {m.__name__: m.__version__ for m in (torch, transformers, peft, safetensors, np)}
torch.manual_seed(20)
torch.set_num_threads(1)


def model():
    config = transformers.MixtralConfig(
        vocab_size=96, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=32, num_local_experts=4, num_experts_per_tok=2, max_position_embeddings=128,
        sliding_window=None, tie_word_embeddings=False, rms_norm_eps=1e-5, router_aux_loss_coef=0.02)
    folder = os.path.join(ROOT, "models", MODEL)
    made = transformers.MixtralForCausalLM(config)
    with torch.no_grad():
        for name, p in made.named_parameters():
            if "norm" in name:
                p.uniform_(0.7, 1.3)
            else:
                p.normal_(0, 1.0 if "embed" in name else p.shape[-1] ** -0.5 * (3.0 if "lm_head" in name else 1.5))
    made.to(torch.bfloat16).save_pretrained(folder)
    return transformers.MixtralForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


def batch():
    """A right-padded batch; some labels are masked."""
    lengths = torch.randint(6, 15, (BATCH,))
    width = int(lengths.max())
    mask = (torch.arange(width)[None] < lengths[:, None]).long()
    ids = torch.randint(3, 96, (BATCH, width)) * mask
    labels = torch.where((mask == 1) & (torch.rand(BATCH, width) > 0.2), ids, -100)
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


def predicted(b):
    return int((b["labels"][:, 1:] != -100).sum())


def save(tensors, *path):
    path = os.path.join(ROOT, *path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    save_file({k: v.detach().clone().contiguous() for k, v in tensors.items()}, path)


def write_json(value, *path):
    with open(os.path.join(ROOT, *path), "w") as f:
        json.dump(value, f, indent=1)


def forward(base):
    inputs = {"padded": batch(), "single7": {k: v[:1, :6] for k, v in batch().items() if k != "attention_mask"}}
    cases, out = {}, {}
    for name, b in inputs.items():
        with torch.no_grad():
            r = base(**b, output_router_logits=True, output_hidden_states=True)
        out[f"{name}.logits"] = r.logits
        for i, logits in enumerate(r.router_logits):
            out[f"{name}.router_logits.layer{i}"] = logits
        if name == "single7":
            for i, h in enumerate(r.hidden_states):
                out[f"{name}.hidden.{i}"] = h
        items = int((b["labels"] != -100).sum())
        lm = (r.loss - base.config.router_aux_loss_coef * r.aux_loss).item()
        cases[name] = {
            "loss": lm, "loss_num_items": lm * predicted(b) / items, "aux_loss": r.aux_loss.item(),
            "loss_with_aux": r.loss.item(), "predicted_tokens": predicted(b), "num_items_in_batch": items}
    save({f"{n}.{k}": v for n, b in inputs.items() for k, v in b.items()}, "forward", MODEL, "inputs.safetensors")
    save(out, "forward", MODEL, "fp32.safetensors")
    variant = {"load_dtype": "float32", "quant": None, "compute_dtype": "float32", "cases": cases}
    write_json({"versions": VERSIONS, "variants": {"fp32": variant}}, "forward", MODEL, "meta.json")


def train(base):
    lora = peft.LoraConfig(
        r=4, lora_alpha=8, task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj", "gate", "w1", "w2", "w3"])
    net = peft.get_peft_model(base, lora)
    net.peft_config["default"].base_model_name_or_path = MODEL
    with torch.no_grad():
        for name, p in net.named_parameters():
            if "lora_B" in name:
                p.normal_(0, 0.05)
    trained = {n.replace(".default.", "."): p for n, p in net.named_parameters() if p.requires_grad}
    net.save_pretrained(os.path.join(ROOT, "train", TRACE, "adapter_init"))
    steps = [[batch() for _ in range(ACCUMULATION if s != 2 else 1)] for s in range(STEPS)]
    last = batch()
    tensors = {f"step{s:02}.micro{j}.{k}": v for s, m in enumerate(steps) for j, b in enumerate(m) for k, v in b.items()}
    save(tensors | {f"eval.{k}": v for k, v in last.items()}, "train", TRACE, "batches.safetensors")
    losses, logits, records = {}, {}, []

    def evaluate(name):
        with torch.no_grad():
            r = net(**last)
        losses[name] = r.loss.item()
        return r.logits

    with net.disable_adapter():
        evaluate("base_without_adapter")
    logits["before"] = evaluate("before")
    optimizer = torch.optim.AdamW(trained.values(), lr=LR, weight_decay=DECAY)
    for s, micros in enumerate(steps):
        items = sum(int((b["labels"] != -100).sum()) for b in micros)
        parts = []
        for b in micros:
            loss = net(**b, output_router_logits=True, num_items_in_batch=items).loss
            loss.backward()
            parts.append(loss.item())
        without = sorted(n for n, p in trained.items() if p.grad is None)
        if s == 0:
            save({n: p.grad for n, p in trained.items() if p.grad is not None}, "train", TRACE, "grads_step0.safetensors")
        norm = torch.nn.utils.clip_grad_norm_(trained.values(), MAX_NORM).item()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if s == 0:
            save(trained, "train", TRACE, "adapter_step1.safetensors")
        records.append({
            "step": s + 1, "loss": sum(parts), "micro_losses": parts, "num_items_in_batch": items, "grad_norm": norm,
            "learning_rate": LR, "parameters_without_gradient": without})
    net.save_pretrained(os.path.join(ROOT, "train", TRACE, "adapter_final"))
    logits["after"] = evaluate("after")
    save(logits, "train", TRACE, "eval_logits.safetensors")
    spec = {
        "steps": STEPS, "accum": ACCUMULATION, "lr": LR, "weight_decay": DECAY, "max_grad_norm": MAX_NORM,
        "optim": "adamw_torch", "compute": "float32", "quant": None, "aux": True, "sched": {"name": "constant"},
        "model": MODEL, "r": 4, "alpha": 8}
    write_json({
        "spec": spec, "adapter_init": f"train/{TRACE}/adapter_init", "eval": losses, "steps": records,
        "versions": VERSIONS}, "train", TRACE, "trace.json")
    for which in ("adapter_init", "adapter_final"):
        os.remove(os.path.join(ROOT, "train", TRACE, which, "README.md"))


base = model()
forward(base)
train(base)
