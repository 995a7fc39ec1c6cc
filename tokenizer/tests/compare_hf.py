"""Compares byte-level tokenizers with Hugging Face's `tokenizers` on random and adversarial texts. Run by hand:

    pip install tokenizers==0.22.2
    cargo build --release -p halfbyte-tokenizer --example encode
    python tokenizer/tests/compare_hf.py target/release/examples/encode tokenizer.json COUNT SEED [TEXT FILE]...

Texts come from five generators: pieces of the given text files, the same with changes, strings over small alphabets in
which the pre-tokenization patterns branch, strings of random code points of all classes, and marks to normalize; any of
them may have added tokens in it, whole and cut. The script compares the ids with special tokens as text and as tokens, and
the decoded texts of both. If NFC does not change the text and every byte has a token, it also compares the offsets.
"""

import json
import random
import subprocess
import sys
import threading
import unicodedata

from tokenizers import Tokenizer

BRANCHES = [
    "'", "'", "s", "S", "ſ", "t", "re", "RE", "vE", "ll", "lL", "m", "d", "D", " ", " ", "  ", "\t", "\n", "\r", "\r\n",
    "\u00a0", "\u3000", "\u0085", "\u2028", "\x0b", "\x1c", "\u200b", "\ufeff", "\u180e", "1", "23", "456", "7890", "²", "٣",
    "Ⅻ", "\U00011de0", "a", "A", "ab", "AB", "Ab", "aB", "ǅ", "ʰ", "ª", "中", "中文", "あ", "한", "é", "É", "ß", "\u0301",
    "\u0903", "\u20dd", "!", "!!", "/", "//", "-", "=", "_", "'", "’", "\u200d", "😀", "€", "\u0378", "\U000105c0", "\ua7ce",
    "\0", "\x04", "\x7f", "\U000e0001", "\U00040000", "\U0010ffff", "\ufffd", "Ġ", "▁",
]
MARKS = [chr(c) for c in range(0x300, 0x370)] + [chr(c) for c in range(0x110000) if unicodedata.combining(chr(c))]
BASES = [chr(c) for c in range(0x110000) if unicodedata.decomposition(chr(c)) and not 0xD800 <= c < 0xE000]
JAMO = [chr(c) for r in (range(0x1100, 0x1113), range(0x1160, 0x1177), range(0x11A6, 0x11C4)) for c in r] + ["가", "각"]


def code_point(rng):
    top = rng.choice([0x80, 0x250, 0x800, 0x3000, 0x10000, 0x20000, 0x110000])
    c = rng.randrange(top)
    return chr(c) if not 0xD800 <= c < 0xE000 else "\ue000"


def text(rng, corpus, added):
    kind = rng.randrange(5)
    if kind < 2 and corpus:
        start = rng.randrange(len(corpus))
        out = list(corpus[start : start + rng.randint(1, 80)])
        for _ in range(rng.randint(1, 5) if kind else 0):
            out.insert(rng.randint(0, len(out)), rng.choice(BRANCHES))
    elif kind == 3:
        out = [code_point(rng) for _ in range(rng.randint(0, 20))]
    elif kind == 4:
        bases = [BASES, MARKS, MARKS, JAMO, BRANCHES]
        out = [rng.choice(rng.choice(bases)) for _ in range(rng.randint(0, 15))]
    else:
        alphabet = rng.sample(BRANCHES, rng.randint(1, 12))
        long = 200 if rng.random() < 0.02 else 16
        out = [rng.choice(alphabet) for _ in range(rng.randint(0, long))]
    while added and rng.random() < 0.15:
        token = rng.choice(added)
        if rng.random() < 0.3:
            start = rng.randint(0, len(token))
            token = token[start : start + rng.randint(0, len(token))]
        out.insert(rng.randint(0, len(out)), token)
    return "".join(out)


def byte_spans(text, offsets):
    starts = [0]
    for c in text:
        starts.append(starts[-1] + len(c.encode()))
    return [[starts[a], starts[b]] for a, b in offsets]


def main():
    binary, path, count, seed = sys.argv[1:5]
    corpus = "".join(open(name, encoding="utf-8").read() for name in sys.argv[5:])
    settings = json.load(open(path, encoding="utf-8"))
    settings["post_processor"] = None  # It would trim offsets and add tokens.
    added = [token["content"] for token in settings["added_tokens"]][:40]
    spans = len(set(settings["model"]["vocab"]) & {chr(c) for c in [*range(33, 127), *range(161, 324)]} - {"\xad"}) == 256
    nfc = settings.get("normalizer") is not None
    theirs = Tokenizer.from_str(json.dumps(settings))
    rng = random.Random(int(seed))
    ours = subprocess.Popen([binary, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    done = offsets = 0
    while done < int(count):
        texts = [text(rng, corpus, added) for _ in range(min(2000, int(count) - done))]
        send = "".join(json.dumps(t) + "\n" for t in texts)
        writer = threading.Thread(target=lambda: (ours.stdin.write(send), ours.stdin.flush()))
        writer.start()
        records = [json.loads(ours.stdout.readline()) for _ in texts]
        writer.join()
        theirs.encode_special_tokens = True
        raw = theirs.encode_batch(texts, add_special_tokens=False)
        theirs.encode_special_tokens = False
        special = theirs.encode_batch_fast(texts, add_special_tokens=False)
        shown = theirs.decode_batch([e.ids for e in special], skip_special_tokens=True)
        whole = theirs.decode_batch([e.ids for e in special], skip_special_tokens=False)
        for t, got, *expected in zip(texts, records, raw, special, shown, whole):
            pairs = [(got["raw"], expected[0].ids), (got["special"], expected[1].ids)]
            pairs += [(got["text"], expected[2]), (got["text_special"], expected[3])]
            if spans and not (nfc and theirs.normalizer.normalize_str(t) != t):
                pairs.append((got["spans"], byte_spans(t, expected[0].offsets)))
                offsets += 1
            for a, b in pairs:
                if a != b:
                    sys.exit(f"{t!r}:\n  halfbyte   {a}\n  tokenizers {b}")
        done += len(texts)
    print(f"{path}: {done:,} texts, {offsets:,} of them with offsets: no difference", flush=True)


if __name__ == "__main__":
    main()
