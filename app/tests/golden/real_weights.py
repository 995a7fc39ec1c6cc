"""Records a golden set of a trained model with transformers and PEFT, on the device where the tests then run.

    python real_weights.py MODEL ROWS.jsonl SET [cpu]
    HALFBYTE_DEVICE=cuda HALFBYTE_GOLDEN=SET cargo test -p halfbyte --test golden -- real

Forward passes, a training trace and greedy texts, each in f32 (without TF32) and in bf16. The tests compare our bf16 with
HF's f32, and allow it a multiple of the error that HF's bf16 has on the same card. A row has `instruction`, `input` and
`output`, as in the quickstart.
"""

import json
import os
import shutil
import sys

os.environ["HF_HUB_OFFLINE"] = "1"

import peft
import sentencepiece
import torch
import transformers
from safetensors.torch import save_file

MODEL, ROWS, ROOT = sys.argv[1:4]
DEVICE = sys.argv[4] if len(sys.argv) > 4 else "cuda"
VERSIONS = {m.__name__: m.__version__ for m in (torch, transformers, peft)}
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
STEPS, ACCUMULATION, BATCH = 12, 2, 4
LR, DECAY, MAX_NORM, WARMUP = 1e-3, 0.01, 0.5, 2
torch.backends.cuda.matmul.allow_tf32 = False
torch.backends.cudnn.allow_tf32 = False
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

VOCAB = sentencepiece.SentencePieceProcessor(model_file=os.path.join(MODEL, "tokenizer.model"))


def prompt(row):
    given = f"### Input: {row['input']}" if row["input"] else ""
    return [VOCAB.bos_id()] + VOCAB.encode(f"### Question: {row['instruction']}{given}### Answer:")


def text(row):
    return prompt(row) + VOCAB.encode(row["output"]) + [VOCAB.eos_id()]


with open(ROWS) as f:
    DATA = [json.loads(line) for line in f]
TEXTS = [text(row) for row in DATA]


def batch(texts):
    """Right-padded."""
    width = max(map(len, texts))
    pad = lambda values, filler: torch.tensor([v + [filler] * (width - len(v)) for v in values])
    return {"input_ids": pad(texts, 0), "labels": pad(texts, -100), "attention_mask": pad([[1] * len(t) for t in texts], 0)}


def on_device(tensors):
    return {k: v.to(DEVICE) for k, v in tensors.items()}


def base(dtype, model="real"):
    net = transformers.AutoModelForCausalLM.from_pretrained(
        os.path.join(ROOT, "models", model), dtype=TYPES[dtype], attn_implementation="eager")
    return net.to(DEVICE).eval()


def save(tensors, *path):
    path = os.path.join(ROOT, *path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    save_file({k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}, path)


def write_json(value, *path):
    path = os.path.join(ROOT, *path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        json.dump(value, f, indent=1)


def forward(model):
    joined = sum(TEXTS, [])
    inputs = {"padded": batch(TEXTS[:12]), **{f"single{n}": {"input_ids": torch.tensor([joined[:n]]), "labels": torch.tensor([joined[:n]])}
                                            for n in (2, 37, 300)}}
    variants = {}
    for name, dtype in (("fp32", "float32"), ("bf16", "bfloat16")):
        net, cases, out = base(dtype, model), {}, {}
        for case, b in inputs.items():
            b = on_device(b)
            with torch.no_grad():
                logits = net(**{k: v for k, v in b.items() if k != "labels"}).logits.float()
            targets = b["labels"][:, 1:]
            there = targets != -100
            log = torch.log_softmax(logits[:, :-1].double(), -1)
            total = -log.gather(-1, targets.clamp(min=0)[..., None])[..., 0][there].sum().item()
            predicted, items = int(there.sum()), int((b["labels"] != -100).sum())
            cases[case] = {"loss": total / predicted, "loss_num_items": total / items, "predicted_tokens": predicted,
                           "num_items_in_batch": items}
            out[f"{case}.logits"] = logits
        save(out, "forward", model, f"{name}.safetensors")
        variants[name] = {"load_dtype": dtype, "quant": None, "compute_dtype": dtype, "cases": cases}
    save({f"{case}.{k}": v for case, b in inputs.items() for k, v in b.items()}, "forward", model, "inputs.safetensors")
    write_json({"versions": VERSIONS, "variants": variants}, "forward", model, "meta.json")


def start(dtype):
    torch.manual_seed(3)
    lora = peft.LoraConfig(r=8, lora_alpha=16, task_type="CAUSAL_LM", target_modules=TARGETS)
    net = peft.get_peft_model(base(dtype), lora)
    generator = torch.Generator().manual_seed(4)
    trained = {n.replace(".default.", "."): p for n, p in net.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for name, p in trained.items():
            bound = p.shape[-1] ** -0.5 if "lora_A" in name else 0.02
            p.copy_(torch.empty(p.shape).uniform_(-bound, bound, generator=generator))
    return net, trained


def save_adapter(trained, *path):
    save(trained, *path, "adapter_model.safetensors")
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 8, "lora_alpha": 16, "target_modules": TARGETS,
              "base_model_name_or_path": "real"}
    write_json(config, *path, "adapter_config.json")


def train(dtype, twin):
    name = "real_r8" if twin is None else "bf16_real_r8"
    net, trained = start(dtype)
    if twin is None:
        save_adapter(trained, "train", name, "adapter_init")
    rows = [TEXTS[(i * 7) % len(TEXTS)] for i in range(STEPS * ACCUMULATION * BATCH)]
    micros = [batch(rows[i : i + BATCH]) for i in range(0, len(rows), BATCH)]
    steps = [micros[i : i + ACCUMULATION] for i in range(0, len(micros), ACCUMULATION)]
    last = batch(TEXTS[-8:])
    tensors = {f"step{s:02}.micro{j}.{k}": v for s, m in enumerate(steps) for j, b in enumerate(m) for k, v in b.items()}
    save(tensors | {f"eval.{k}": v for k, v in last.items()}, "train", name, "batches.safetensors")
    autocast = lambda: torch.autocast(DEVICE, torch.bfloat16, enabled=dtype == "bfloat16")
    losses, logits, records = {}, {}, []

    def evaluate(which):
        with torch.no_grad(), autocast():
            out = net(**on_device(last))
        losses[which], logits[which] = out.loss.item(), out.logits.float()

    with net.disable_adapter():
        evaluate("base_without_adapter")
    evaluate("before")
    optimizer = torch.optim.AdamW(trained.values(), lr=LR, weight_decay=DECAY)
    schedule = transformers.get_scheduler("linear", optimizer, WARMUP, STEPS)
    first = {}
    for s, micros in enumerate(steps):
        items = sum(int((b["labels"] != -100).sum()) for b in micros)
        parts = []
        for b in micros:
            with autocast():
                loss = net(**on_device(b), num_items_in_batch=items).loss
            loss.backward()
            parts.append(loss.item())
        if s == 0:
            first = {n: p.grad.detach().clone() for n, p in trained.items()}
            save(first, "train", name, "grads_step0.safetensors")
        norm = torch.nn.utils.clip_grad_norm_(trained.values(), MAX_NORM).item()
        rate = schedule.get_last_lr()[0]
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if s == 0 and twin is None:
            save(trained, "train", name, "adapter_step1.safetensors")
        records.append({"step": s + 1, "loss": sum(parts), "micro_losses": parts, "num_items_in_batch": items,
                        "grad_norm": norm, "learning_rate": rate})
    save_adapter(trained, "train", name, "adapter_final")
    evaluate("after")
    save({k: logits[k] for k in ("before", "after")}, "train", name, "eval_logits.safetensors")
    spec = {"steps": STEPS, "accum": ACCUMULATION, "lr": LR, "weight_decay": DECAY, "max_grad_norm": MAX_NORM,
            "optim": "adamw_torch", "compute": dtype, "quant": None, "aux": False, "model": "real", "r": 8, "alpha": 16,
            "sched": {"name": "linear", "warmup_steps": WARMUP}}
    trace = {"spec": spec, "adapter_init": "train/real_r8/adapter_init", "eval": losses, "steps": records, "versions": VERSIONS}
    final = {n: p.detach().clone() for n, p in trained.items()}
    if twin is not None:
        worst = lambda key: max(abs(a[key] - b[key]) / abs(b[key]) for a, b in zip(records, twin["records"]))
        flat = lambda tensors: torch.cat([tensors[n].flatten().double() for n in sorted(tensors)])
        cosine = lambda a, b: torch.nn.functional.cosine_similarity(a.flatten().double(), b.flatten().double(), 0).item()
        moved = flat(twin["final"]) - flat(twin["init"])
        trace["compared_with"] = {
            "trace": "real_r8", "max_rel_diff_loss": worst("loss"), "max_rel_diff_grad_norm": worst("grad_norm"),
            "max_abs_diff_grads_step0": (flat(first) - flat(twin["first"])).abs().max().item(),
            "min_cosine_grads_step0": min(cosine(first[n], g) for n, g in twin["first"].items()),
            "rel_l2_diff_of_adapter_change": ((flat(final) - flat(twin["final"])).norm() / moved.norm()).item()}
        print("HF's own bf16 against f32:", trace["compared_with"])
    write_json(trace, "train", name, "trace.json")
    return {"records": records, "first": first, "final": final, "init": {n: p.detach() for n, p in start(dtype)[1].items()}}


def generate():
    meta, exact = {}, {}
    for name, dtype in (("fp32", "float32"), ("bf16", "bfloat16")):
        net, out, facts = base(dtype), {}, {"model": "models/real", "quant": None, "adapter": None, "compute": dtype}
        for i in range(8):
            given = prompt(DATA[i])
            ids = list(given)
            with torch.no_grad():
                while len(ids) < len(given) + 32:
                    ids.append(int(net(torch.tensor([ids], device=DEVICE)).logits[0, -1].float().argmax()))
                exact.setdefault(i, ids)
                logits = net(torch.tensor([exact[i]], device=DEVICE)).logits[0, len(given) - 1 : -1].float()
            out |= {f"prompt{i}.input_ids": torch.tensor(given), f"prompt{i}.output_ids": torch.tensor(ids[len(given):]),
                    f"prompt{i}.logits": logits}
            facts[f"prompt{i}"] = {"prompt_length": len(given)}
        if name == "bf16":
            facts["f32"] = "generate/real/fp32.safetensors"
        save(out, "generate/real", f"{name}.safetensors")
        meta[f"real/{name}"] = facts
    write_json({"greedy": meta, "versions": VERSIONS}, "generate/meta.json")


def stretched(kind, rope):
    """The same weights with 64 original positions, of which the longest case uses 300."""
    folder = f"models/real-{kind}"
    shutil.copytree(MODEL, os.path.join(ROOT, folder), dirs_exist_ok=True)
    with open(os.path.join(MODEL, "config.json")) as f:
        config = json.load(f)
    inside = {} if kind == "linear" or kind == "dynamic" else {"original_max_position_embeddings": 64}
    positions = 64 if not inside else 320
    write_json(config | {"max_position_embeddings": positions, "rope_scaling": {"rope_type": kind, "factor": 5.0} | rope | inside},
               folder, "config.json")
    forward(f"real-{kind}")


os.makedirs(os.path.join(ROOT, "models"), exist_ok=True)
shutil.copytree(MODEL, os.path.join(ROOT, "models/real"), dirs_exist_ok=True)
forward("real")
# The longest case comes last, because HF's dynamic frequencies depend on the batches before.
for kind, rope in {"linear": {}, "dynamic": {}, "llama3": {"low_freq_factor": 1.0, "high_freq_factor": 4.0}, "yarn": {}}.items():
    stretched(kind, rope)
train("bfloat16", train("float32", None))
generate()
print("recorded on", torch.cuda.get_device_name() if DEVICE == "cuda" else DEVICE, VERSIONS)
