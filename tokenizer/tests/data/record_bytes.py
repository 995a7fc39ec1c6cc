"""Records the small byte-level golden sets in this folder (`bytes-*`) with the tokenizers library.

    pip install tokenizers==0.22.2
    python tokenizer/tests/data/record_bytes.py

The vocabularies are trained on corpus.txt. Between them, the four files ask for everything that the crate reads in a
byte-level tokenizer.json.
"""

import json
import os
import random
import re
import sys

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.append(os.path.dirname(HERE))
from compare_hf import text as random_text  # noqa: E402

CORPUS = open(os.path.join(HERE, "corpus.txt"), encoding="utf-8").read()
SPLIT = open(os.path.join(HERE, "../../src/byte_level/split.rs"), encoding="utf-8").read()


def pattern(name):
    """The pattern of this name in split.rs."""
    source = re.search(rf'const {name}: &str = (?:concat!\((.*?)\)|(r".*?"));\n', SPLIT, re.S)
    return "".join(re.findall(r'r"(.*?)"(?:,?\n|$)', (source[1] or source[2]) + "\n"))


def byte_level(regex):
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": regex}


def split(name, behavior, invert):
    step = {"type": "Split", "pattern": {"Regex": pattern(name)}, "behavior": behavior, "invert": invert}
    return {"type": "Sequence", "pretokenizers": [step, byte_level(False)]}


DIGITS = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level(True)]}


def token(content, special=True, **flags):
    return AddedToken(content, special=special, normalized=flags.pop("normalized", False), **flags)


def template(before, after, ids):
    item = lambda name: {"SpecialToken": {"id": name, "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    special = {name: {"id": name, "ids": [ids[name]], "tokens": [name]} for name in [*before, *after]}
    single = [*map(item, before), text, *map(item, after)]
    process = {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": special}
    return {"type": "Sequence", "processors": [byte_level(True), process]}


FLAGS = [token("<l>", lstrip=True), token("<r>", rstrip=True), token("<w>", single_word=True),
         token("<lr>", special=False, lstrip=True, rstrip=True), token("\n<w>\n", special=False), token("<ww>", False, single_word=True)]
FORMS = [token("<|end|>"), token("<think>", special=False), token("e\u0301<n>", False, normalized=True), token("<é>", normalized=True),
         token("e\u0301", special=False), token("<N>", False, normalized=True, lstrip=True, rstrip=True)]
PLAIN = [token("<|begin|>"), token("<|end|>"), token("<|end|>>")]
# Name: pre-tokenizer, normalizer, added tokens.
FILES = {
    "bytes-gpt2": (DIGITS, None, FLAGS),
    "bytes-llama3": (split("LLAMA3", "Isolated", False), None, PLAIN),
    "bytes-qwen2": (split("QWEN2", "Isolated", False), {"type": "NFC"}, FORMS),
    "bytes-tekken": (split("TEKKEN", "Removed", True), None, PLAIN + FLAGS),
}


def train(name, pre_tokenizer, normalizer, added):
    tokenizer = Tokenizer(models.BPE())
    settings = json.loads(tokenizer.to_str())
    settings.update(pre_tokenizer=pre_tokenizer, normalizer=normalizer, decoder=byte_level(True))
    tokenizer = Tokenizer.from_str(json.dumps(settings))
    # The first one lacks the bytes that the corpus lacks.
    alphabet = [] if name == "bytes-gpt2" else pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator([CORPUS], trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False))
    tokenizer.add_tokens(added)
    settings = json.loads(tokenizer.to_str())
    model = settings["model"]
    ids = {entry["content"]: entry["id"] for entry in settings["added_tokens"]}
    if name == "bytes-llama3":
        settings["post_processor"] = template(["<|begin|>"], ["<|end|>"], ids)
        # These tokens are reached as whole words only.
        model["ignore_merges"] = True
        gone = {"".join(pair) for pair in model["merges"][-60::7]}
        model["merges"] = [" ".join(pair) for pair in model["merges"] if "".join(pair) not in gone]
    return settings


def write(name, records):
    with open(os.path.join(HERE, "tokenizer_golden", name + ".jsonl"), "w") as f:
        f.writelines(json.dumps(record) + "\n" for record in records)


def main():
    rng = random.Random(1)
    for name, (pre_tokenizer, normalizer, added) in FILES.items():
        settings = train(name, pre_tokenizer, normalizer, added)
        folder = os.path.join(HERE, "tokenizers", name)
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as f:
            json.dump(settings, f, ensure_ascii=False, separators=(",", ":"))
        tokenizer = Tokenizer.from_str(json.dumps(settings))
        contents = [t.content for t in added]
        records, special = [], []
        for text in dict.fromkeys(["", *(random_text(rng, CORPUS, []) for _ in range(250)), CORPUS[5000:7000]]):
            if any(content in text for content in contents):
                continue
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            record = {"text": text, "ids": ids}
            if tokenizer.decode(ids) != text:
                record["decoded"] = tokenizer.decode(ids)
            records.append(record)
        write(name, records)
        around = [" ", "  ", "\n", "a", "é", "\u0301", "_", "!", "1", "\u3000", "e\u0301", "e", *CORPUS.split()[:20]]
        for _ in range(150):
            text = "".join(rng.choice(contents if rng.random() < 0.5 else around) for _ in range(rng.randint(1, 8)))
            tokenizer.encode_special_tokens = True
            record = {"text": text, "raw": tokenizer.encode(text, add_special_tokens=False).ids}
            tokenizer.encode_special_tokens = False
            record["hf"] = tokenizer.encode(text, add_special_tokens=False).ids
            record["hf_with_special"] = tokenizer.encode(text).ids
            special.append(record)
        write("hf_special_" + name, special)
        decoded, size = [], tokenizer.get_vocab_size()
        for _ in range(200):
            ids = [rng.randrange(rng.choice([size, 300, 40])) for _ in range(rng.randint(0, 12))]
            ids += [size - 1 - rng.randrange(len(added))] * rng.randint(0, 1)
            rng.shuffle(ids)
            record = {"ids": ids, "text": tokenizer.decode(ids)}
            if tokenizer.decode(ids, skip_special_tokens=False) != record["text"]:
                record["with_special"] = tokenizer.decode(ids, skip_special_tokens=False)
            decoded.append(record)
        write("decode_" + name, decoded)


main()
