"""Records the small golden set in this folder with the SentencePiece library and slow transformers tokenizers.

    pip install sentencepiece==0.2.1 transformers==4.44.2 protobuf==7.36.2
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
    os.remove(rules)


main()
