"""Encodes the corpora of corpus.py with four engines, one thread each, and prints a table.

    pip install sentencepiece==0.2.3
    python corpus.py CORPORA
    cargo build --release
    python compare.py CORPORA tokenizer.model tokenizer.json [ROUNDS]

The two tokenizer files are those of one tokenizer (tokenizer.json with the legacy normalizer). Every run is a process
of its own with a fresh tokenizer; engines take turns, and the median of the rounds (3) counts, with the least and the
largest ratio of a round beside it. Encoding is in CPU time, loading in wall time.
"""

import os
import statistics
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
    print("| corpus | engine | load, ms | MB/s | ids | same ids as SentencePiece | halfbyte is faster by |")
    print("|---|---|---|---|---|---|---|")
    for corpus in ["prose", "code", "cjk", "unicode"]:
        runs = {engine: [] for engine in ENGINES}
        for _ in range(rounds):
            for engine in ENGINES:
                runs[engine].append(run(engine, model, json, os.path.join(folder, corpus + ".txt")))
        for engine in ENGINES:
            load = statistics.median(result[0] for result in runs[engine])
            cpu = statistics.median(result[1] for result in runs[engine])
            _, _, size, ids, crc = runs[engine][0]
            same = "yes" if crc == runs["sentencepiece"][0][4] else "**no**"
            ratios = sorted(theirs[1] / ours[1] for theirs, ours in zip(runs[engine], runs["halfbyte"]))
            factor = f"{statistics.median(ratios):.1f}× ({ratios[0]:.1f} to {ratios[-1]:.1f})"
            factor = "" if engine == "halfbyte" else factor
            rate = size / 1e6 / cpu
            print(f"| {corpus} | {engine} | {load:.1f} | {rate:.1f} | {ids:,} | {same} | {factor} |", flush=True)


main()
