#!/usr/bin/env python3
"""Makes data in the columns of the four tutorials' data sets out of instruction and dialog records, for runs of the recipes
with `--dummy-weights` where the originals are out of reach.

    scripts/recipe-data.py DATASETS OUT

DATASETS holds .jsonl files of {instruction, input, output} records and of Baize dialogs {topic, input}. Writes to OUT:
a.jsonl (chat_sample), b.jsonl and b-test.jsonl (prompt, response, source), c.jsonl (instruction, input, output) and
d.jsonl (text with <usr> and <bot>).
"""
import json
import pathlib
import sys

PREAMBLE = ("Below is an instruction that describes a task. Write a response that appropriately completes the request."
            "\n\n### Instruction\n{}\n\n### Response\n")


def dialog(text):
    """Turns of a Baize dialog."""
    turns = [part.split("[|AI|]") for part in text.split("[|Human|]")[1:]]
    return [(t[0].strip(), t[1].strip()) for t in turns if len(t) == 2]


def main(datasets, out):
    instructions, code, dialogs = [], [], []
    for file in sorted(pathlib.Path(datasets).glob("*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            if "output" in record:
                (code if "code" in file.name else instructions).append(record)
            else:
                dialogs.append(dialog(record["input"]))
    asked = lambda r: f"{r['instruction']}\n{r['input']}" if r["input"] else r["instruction"]
    turns = dialogs + [[(asked(r), r["output"])] for r in instructions]
    swapped = [{"prompt": PREAMBLE.format(asked(r)), "response": r["output"], "source": "own"} for r in instructions]
    files = {
        "a": [{"chat_sample": "The conversation between Human and AI assisatance named Gathnex "
               + "\n".join(f"[INST] {q}\n[/INST] {a}" for q, a in t)} for t in turns],
        "b": swapped[:-200],
        "b-test": swapped[-200:],
        "c": [{k: r[k] for k in ("instruction", "input", "output")} for r in code],
        "d": [{"text": "\n".join(f"<usr> {q}\n<bot> {a}" for q, a in t)} for t in turns],
    }
    pathlib.Path(out).mkdir(parents=True, exist_ok=True)
    for name, records in files.items():
        text = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records)
        pathlib.Path(out, f"{name}.jsonl").write_text(text, encoding="utf-8")
        print(f"{name}.jsonl: {len(records)} records")


main(*sys.argv[1:])
