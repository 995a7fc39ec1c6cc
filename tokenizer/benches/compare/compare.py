"""Encodes the corpora of corpus.py with several engines, one thread each, and prints a table.

    pip install sentencepiece==0.2.3
    python corpus.py CORPORA
    cargo build --release
    python compare.py sentencepiece CORPORA ROUNDS tokenizer.model tokenizer.json
    python compare.py byte-level CORPORA ROUNDS tokenizer.json
    python compare.py split CORPORA ROUNDS llama3

The two files of the first comparison are those of one tokenizer (tokenizer.json with the legacy normalizer). Every run is
a process of its own with a fresh tokenizer. The engines take turns; the table has the median of the rounds, with the least
and the largest ratio of a round beside it. Encoding is measured in CPU time, loading in wall time. The last comparison
times pre-tokenization alone, line by line.
"""

import os
import statistics
import subprocess
import sys
import time
import zlib
from array import array

DOCUMENT = 2000
# The engines; the second gives the ids that the others are compared with.
ENGINES = {
    "sentencepiece": ["halfbyte", "sentencepiece", "kitoken", "tokenizers"],
    "byte-level": ["halfbyte", "tokenizers", "kitoken", "fastokens", "tokie"],
    "split": ["automaton", "onig", "fancy-regex"],
}
HERE = os.path.dirname(os.path.abspath(__file__))


def documents(text):
    out, part, size = [], [], 0
    for line in text.split("\n"):
        part.append(line)
        size += len(line.encode()) + 1
        if size >= DOCUMENT:
            out.append("\n".join(part) + "\n")
            part, size = [], 0
    out.append("\n".join(part))
    return out


def sentencepiece(model, corpus):
    import sentencepiece as spm

    text = open(corpus, encoding="utf-8", newline="\n").read()
    docs = documents(text)
    begin = time.perf_counter()
    sp = spm.SentencePieceProcessor(model_file=model)
    load = (time.perf_counter() - begin) * 1e3
    ids = array("I")
    wall, cpu = time.perf_counter(), time.process_time()
    for doc in docs:
        ids.extend(sp.encode(doc))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    print(f"{load:.2f} {cpu:.4f} {wall:.4f} {len(text.encode())} {len(ids)} {zlib.crc32(ids.tobytes()):08x}")


def run(kind, engine, files, corpus):
    """Milliseconds of loading, seconds of encoding, bytes, tokens, and what tells their ids apart."""
    binary = os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(HERE, "target")), "release")
    command = [os.path.join(binary, "split" if kind == "split" else "compare-tokenizers"), engine]
    command += [files[-1] if engine == "tokenizers" else files[0], corpus]
    if engine == "sentencepiece":
        command = [sys.executable, os.path.abspath(__file__), "--sentencepiece", files[0], corpus]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{engine}: {done.stderr}")
    if kind == "split":
        cpu, size, words = done.stdout.split()
        return 0.0, float(cpu), int(size), int(words), words
    load, cpu, wall, size, ids, crc = done.stdout.split()
    return float(load), float(cpu), int(size), int(ids), crc


def main():
    if sys.argv[1] == "--sentencepiece":
        return sentencepiece(*sys.argv[2:])
    kind, folder, rounds, *files = sys.argv[1:]
    engines = ENGINES[kind]
    what, oracle = "words" if kind == "split" else "ids", engines[1]
    print(f"| corpus | engine | load, ms | MB/s | {what} | same {what} as {oracle} | {engines[0]} is faster by |")
    print("|---|---|---|---|---|---|---|")
    # Random code points say little about byte-level vocabularies, where most characters are three or four tokens.
    for corpus in ["prose", "code", "cjk"] + (["unicode"] if kind == "sentencepiece" else []):
        runs = {engine: [] for engine in engines}
        for _ in range(int(rounds)):
            for engine in engines:
                runs[engine].append(run(kind, engine, files, os.path.join(folder, corpus + ".txt")))
        for engine in engines:
            load = statistics.median(result[0] for result in runs[engine])
            cpu = statistics.median(result[1] for result in runs[engine])
            _, _, size, ids, crc = runs[engine][0]
            same = "yes" if crc == runs[oracle][0][4] else "**no**"
            ratios = sorted(theirs[1] / ours[1] for theirs, ours in zip(runs[engine], runs[engines[0]]))
            factor = f"{statistics.median(ratios):.2f}× ({ratios[0]:.2f} to {ratios[-1]:.2f})"
            factor = "" if engine == engines[0] else factor
            load, rate = f"{load:.1f}" if load else "", size / 1e6 / cpu
            print(f"| {corpus} | {engine} | {load} | {rate:.1f} | {ids:,} | {same} | {factor} |", flush=True)


main()
