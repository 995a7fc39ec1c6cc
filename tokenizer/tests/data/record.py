"""Records the small golden set in this folder with the SentencePiece library, slow transformers tokenizers and the
tokenizers library.

    pip install sentencepiece==0.2.3 transformers==4.44.2 tokenizers==0.19.1 protobuf==7.36.2
    cargo build --release -p halfbyte-tokenizer --example train
    python tokenizer/tests/data/record.py target/release/examples/train

The models are written by this project's own trainer from corpus.txt; the library must load them and is the oracle.
"""

import io
import json
import os
import random
import subprocess
import sys

import sentencepiece as spm
from sentencepiece import sentencepiece_model_pb2 as pb
from tokenizers import Tokenizer
from transformers import LlamaTokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
CORPUS = os.path.join(HERE, "corpus.txt")

# Rules that replace, delete, compose, and overlap: "a" + U+0301, alone and before another rule.
RULES = {
    "\u0061\u0301": "á", "\u0065\u0301": "é", "ﬁ": "fi", "Ａ": "A", "①": "1", "㈱": "(株)", "\u3000": " ",
    "\u00a0": " ", "\u200b": "", "\ufeff": "", "\t": " ", "\n": " ", "…": "...", "--": "-", "-->": "=>", "ｶ": "カ", "ｶﾞ": "ガ",
}
MODELS = {
    "small": ["1000", "coverage=0.995", "control=[INST]", "control=[/INST]"],
    "small-user": ["1000", "user=<q>", "user=<q>>", "user=the", "user=▁of▁", "user=강"],
    "small-rules": ["900", "no-byte-fallback", "remove-extra-whitespaces", "coverage=0.99", "user=[X]", "charsmap="],
}


def charsmap():
    """The rules as SentencePiece compiles them."""
    tsv = os.path.join(HERE, "rules.tsv")
    with open(tsv, "w") as f:
        for old, new in RULES.items():
            f.write(" ".join(f"{ord(c):X}" for c in old) + "\t" + " ".join(f"{ord(c):X}" for c in new) + "\n")
    model = io.BytesIO()
    lines = open(CORPUS, encoding="utf-8").read().split("\n")
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, model_type="bpe", vocab_size=500, character_coverage=0.98,
        normalization_rule_tsv=tsv, minloglevel=2, hard_vocab_limit=False)
    os.remove(tsv)
    return pb.ModelProto.FromString(model.getvalue()).normalizer_spec.precompiled_charsmap


def texts(rng, corpus):
    lines = [line for line in corpus.split("\n") if line]
    words = corpus.split()
    odd = list(" ▁ ▁\t\n\0\u0301abcdeth①ﬁＡ㈱ｶﾞ\u3000\u00a0\u200b\ufeff…가강한漢字😀\ufffd\ufffe\U0010ffff") + list(RULES)
    hand = ["", " ", "  ", "▁", "▁▁", "a", " a", "a ", "  a  b  ", "\n", "\t\ta", "<q>", "a<q>>b", "<q<q>>", "the", "other",
            "of the", " of ", "king of France", "▁of▁", "[X]", "a[X] [X]", "<s>", "</s>", "<unk>", "<0x41>", "[INST]",
            "a--b-->c--->d", "\u0301", "a\u0301", "e\u0301\u0301", "ｶﾞｶ", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            " " * 70 + "x", "1234567890", "\U0010ffff\U0010ffff", "x\u200by", "x \u200b y", "\u200b", " \u200b "]
    yield from hand
    for _ in range(120):
        yield rng.choice(lines)
    for _ in range(120):
        yield "".join(rng.choice(odd) for _ in range(rng.randint(1, 24)))
    for _ in range(120):
        yield rng.choice([" ", "  ", "▁", ""]).join(rng.choice(words + odd) for _ in range(rng.randint(1, 8)))
    for _ in range(60):
        code = lambda: rng.choice([rng.randint(0, 0x2FF), rng.randint(0, 0xD7FF), rng.randint(0xE000, 0x10FFFF)])
        yield "".join(chr(code()) for _ in range(rng.randint(1, 12)))
    start = rng.randrange(len(corpus) - 3000)
    yield corpus[start:start + 3000]


def write(name, records):
    with open(os.path.join(HERE, "tokenizer_golden", name + ".jsonl"), "w") as f:
        for record in records:
            f.write(json.dumps(record) + "\n")


def slow(model, legacy):
    return LlamaTokenizer(vocab_file=model, legacy=legacy, add_bos_token=False)


STRING = lambda old, new: {"type": "Replace", "pattern": {"String": old}, "content": new}
LEGACY = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, STRING(" ", "▁")]}
METASPACE = lambda scheme, split: {
    "type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split}
KEEP = {"type": "Sequence", "decoders": [STRING("▁", " "), {"type": "ByteFallback"}, {"type": "Fuse"}]}
STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
DROP = {"type": "Sequence", "decoders": KEEP["decoders"] + [STRIP]}
# Name: normalizer, pre-tokenizer, decoder, whether added tokens are `normalized`.
JSONS = {
    "json-legacy": (LEGACY, None, DROP, False),
    "json-normalized": (LEGACY, None, DROP, True),
    "json-first": (None, METASPACE("first", False), DROP, False),
    "json-always-split": (None, METASPACE("always", True), DROP, False),
    "json-never": (None, METASPACE("never", False), KEEP, False),
}


def record_json(rng, corpus, model):
    """tokenizer.json files of a model in all variants, and what the tokenizers library makes of them."""
    sp = spm.SentencePieceProcessor(model_file=model)
    vocab = {sp.id_to_piece(i): i for i in range(sp.vocab_size())}
    merges = []
    for piece, i in vocab.items():
        if not (sp.is_control(i) or sp.is_unknown(i) or sp.is_byte(i)):
            for at in range(1, len(piece)):
                if piece[:at] in vocab and piece[at:] in vocab:
                    merges.append((-sp.get_score(i), piece[:at], piece[at:]))
    merges = [f"{a} {b}" for _, a, b in sorted(merges)]
    for name, (normalizer, pre_tokenizer, decoder, normalized) in JSONS.items():
        added = [(i, p, True) for p, i in vocab.items() if sp.is_control(i) or sp.is_unknown(i)]
        added.append((len(vocab), "<q>", False))
        file = {
            "version": "1.0", "truncation": None, "padding": None, "post_processor": None,
            "added_tokens": [
                {"id": i, "content": p, "single_word": False, "lstrip": False, "rstrip": False,
                 "normalized": normalized, "special": special} for i, p, special in added],
            "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "decoder": decoder,
            "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "vocab": vocab,
                      "merges": merges}}
        folder = os.path.join(HERE, "tokenizers", name)
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, "tokenizer.json")
        with open(path, "w", encoding="utf-8") as f:
            json.dump(file, f, ensure_ascii=False, separators=(",", ":"))
        tokenizer = Tokenizer.from_file(path)
        marks = ["<s>", "</s>", "<unk>", "<q>", "[INST]", " <s>", "</s> ", "\n", " ", "▁", "a", "  "]
        mixed = ["".join(rng.choice(marks + corpus.split()[:50]) for _ in range(rng.randint(1, 8))) for _ in range(100)]
        plain = [t for t in texts(rng, corpus) if len(t) < 200][:200]
        records = []
        for text in dict.fromkeys(mixed + plain):
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            records.append({"text": text, "ids": ids, "decoded": tokenizer.decode(ids)})
        write("hf_json_" + name, records)


def main():
    rng = random.Random(1)
    corpus = open(CORPUS, encoding="utf-8").read()
    rules = os.path.join(HERE, "rules.charsmap")
    with open(rules, "wb") as f:
        f.write(charsmap())
    os.makedirs(os.path.join(HERE, "tokenizer_golden"), exist_ok=True)
    for name, settings in MODELS.items():
        folder = os.path.join(HERE, "tokenizers", name)
        os.makedirs(folder, exist_ok=True)
        model = os.path.join(folder, "tokenizer.model")
        settings = [s + rules if s == "charsmap=" else s for s in settings]
        subprocess.run([sys.argv[1], model] + settings, stdin=open(CORPUS), check=True)
        sp = spm.SentencePieceProcessor(model_file=model)
        encoded = []
        for text in dict.fromkeys(texts(rng, corpus)):
            ids = sp.encode(text)
            record = {"text": text, "ids": ids}
            if sp.decode(ids) != text:
                record["decoded"] = sp.decode(ids)
            encoded.append(record)
        write(name, encoded)
        decoded = [[], [1], [2, 1], [0], [1, 0, 0]]
        for _ in range(200):
            n = rng.randint(1, 12)
            decoded.append([rng.randrange(rng.choice([sp.vocab_size(), 300])) for _ in range(n)])
        for _ in range(100):
            ids = rng.choice(encoded)["ids"]
            decoded.append([rng.choice(ids) for _ in ids[:20]] if rng.random() < 0.5 else ids[rng.randint(0, 3):40])
        write("decode_" + name, [{"ids": ids, "text": sp.decode(ids)} for ids in decoded])
        if name == "small":
            marks = ["<s>", "</s>", "<unk>", " <s>", "</s> ", "\n", " ", "▁", "a"]
            special = ["".join(rng.choice(marks + corpus.split()[:50]) for _ in range(rng.randint(1, 8))) for _ in range(150)]
            old, new = slow(model, True), slow(model, False)
            encode = lambda tokenizer, text: tokenizer.encode(text, add_special_tokens=False)
            write("hf_special_" + name, [
                {"text": t, "sp_raw": sp.encode(t), "hf_legacy": encode(old, t), "hf_nonlegacy": encode(new, t)}
                for t in dict.fromkeys(special)])
            small = model
    record_json(rng, corpus, small)
    os.remove(rules)


main()
