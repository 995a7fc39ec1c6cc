"""Encodes the corpora of corpus.py with four engines, one thread each, and prints a table.

    pip install sentencepiece==0.2.3
    python corpus.py CORPORA
    cargo build --release
    python compare.py CORPORA tokenizer.model tokenizer.json [ROUNDS]

The two tokenizer files are those of one tokenizer (tokenizer.json with the legacy normalizer). Every run is a process
of its own with a fresh tokenizer; engines take turns, the best of the rounds (3) counts. Times are CPU times.
"""

import os
import subprocess
import sys
import time
import zlib
from array import array

DOCUMENT = 2000
ENGINES = ["halfbyte", "sentencepiece", "kitoken", "tokenizers"]
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


def run(engine, model, json, corpus):
    binary = os.path.join(HERE, "target/release/compare-tokenizers")
    command = [binary, engine, json if engine == "tokenizers" else model, corpus]
    if engine == "sentencepiece":
        command = [sys.executable, os.path.abspath(__file__), "--sentencepiece", model, corpus]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{engine}: {done.stderr}")
    load, cpu, wall, size, ids, crc = done.stdout.split()
    return float(load), float(cpu), int(size), int(ids), crc


def main():
    if sys.argv[1] == "--sentencepiece":
        return sentencepiece(*sys.argv[2:])
    folder, model, json = sys.argv[1:4]
    rounds = int(sys.argv[4]) if len(sys.argv) > 4 else 3
    print("| corpus | MB | engine | load, ms | MB/s | ids | same ids as SentencePiece | halfbyte is faster by |")
    print("|---|---|---|---|---|---|---|---|")
    for corpus in ["prose", "code", "cjk", "unicode"]:
        best = {}
        for _ in range(rounds):
            for engine in ENGINES:
                result = run(engine, model, json, os.path.join(folder, corpus + ".txt"))
                old = best.get(engine, result)
                best[engine] = (min(old[0], result[0]), min(old[1], result[1])) + result[2:]
        ours = best["halfbyte"][1]
        for engine in ENGINES:
            load, cpu, size, ids, crc = best[engine]
            same = "yes" if crc == best["sentencepiece"][4] else "**no**"
            factor = "" if engine == "halfbyte" else f"{cpu / ours:.1f}×"
            print(f"| {corpus} | {size / 1e6:.1f} | {engine} | {load:.1f} | {size / 1e6 / cpu:.1f} | {ids:,} | {same} | {factor} |", flush=True)


main()
