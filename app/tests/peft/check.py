"""Loads adapters that halfbyte trained and saved in PEFT, and compares the logits.

    HALFBYTE_KEEP=/tmp/kept cargo test --test golden -- train/ steps
    python check.py ../data/golden/models /tmp/kept/*

The first command keeps the adapters of the unquantized traces, each with halfbyte's logits of the evaluation batch. (The
reverse, adapters of PEFT in halfbyte, is in the golden tests.)
"""

import json
import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

torch.set_num_threads(1)
models, folders = sys.argv[1], sys.argv[2:]
failed = not folders
for folder in folders:
    with open(os.path.join(folder, "adapter_config.json")) as f:
        name = json.load(f)["base_model_name_or_path"]
    base = AutoModelForCausalLM.from_pretrained(
        os.path.join(models, name), dtype=torch.float32, attn_implementation="eager")
    recorded = load_file(os.path.join(folder, "logits.safetensors"))
    ids, ours = recorded["input_ids"].long(), recorded["logits"]
    documents = ids.split(recorded["lengths"].tolist())

    def run(net):
        with torch.no_grad():
            return torch.cat([net(input_ids=d[None]).logits[0] for d in documents])

    without = run(base)
    theirs = run(PeftModel.from_pretrained(base, folder))
    worst = (ours - theirs).abs().max().item()
    effect = (theirs - without).abs().max().item()
    # An adapter that PEFT did not load would change nothing.
    ok = worst <= 1e-4 and effect > 1e-2
    failed |= not ok
    print(f"{'ok  ' if ok else 'FAIL'} {folder}: worst {worst:.1e}, the adapter changes logits by up to {effect:.1e}")
sys.exit(failed)
