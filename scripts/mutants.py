#!/usr/bin/env python3
"""Plants deliberate mistakes in a copy of the project and reports which of them the tests notice.

    scripts/mutants.py check                         are all lines of scripts/mutants.txt still there? (seconds)
    scripts/mutants.py run [--shard 1/4] [NUMBER…]   builds all mistakes into one copy, and runs the tests once for each
    scripts/mutants.py report FILE…                  joins the results of shards; fails below 95 %

Each mistake is an expression of one line that is replaced if the environment variable MUTANT has its number, so one build
serves all of them. Suites run one after the other until one fails; a suite that takes three times as long as without a
mistake counts as a failure, too. Nothing of this is in the sources: the copy gets a function `mutant`.

The list has a line `## file`, then lines of that file exactly as they are (without indentation), each followed by indented
mistakes: `old => new`, or `skip` to leave out the statement. ` # survives: reason` marks a mistake that changes no result.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
LIST = os.path.join(HERE, "mutants.txt")
WANTED = 0.95
SURVIVES = " # survives: "
FUNCTION = """
/// Whether the environment selects this planted mistake.
#[doc(hidden)]
pub fn mutant(number: u32) -> bool {
    static SELECTED: std::sync::LazyLock<u32> =
        std::sync::LazyLock::new(|| std::env::var("MUTANT").ok().and_then(|n| n.parse().ok()).unwrap_or(0));
    *SELECTED == number
}
"""
# Test binaries with a filter, in the order in which they run: the fast ones and those that notice most come first.
SUITES = [("halfbyte-core", "lib", []), ("halfbyte", "lib", []), ("halfbyte", "cli", ["reference"]), ("halfbyte", "golden", []),
          ("halfbyte-core", "model", []), ("halfbyte", "datasets", []), ("halfbyte", "cli", ["resume"]),
          ("halfbyte", "cli", ["--skip", "reference", "--skip", "resume"])]


class Mutant:
    def __init__(self, number, file, line, text):
        change, _, self.reason = text.partition(SURVIVES)
        self.number, self.file, self.line = number, file, line
        self.old, _, self.new = (part.strip() for part in change.partition(" => "))
        if self.old == "skip":
            self.old = self.new = None

    def __str__(self):
        what = f"without `{self.line}`" if self.old is None else f"`{self.old}` -> `{self.new}` in `{self.line}`"
        return f"{self.number} {self.file}: {what}"


def read():
    mutants, file, line = [], None, None
    with open(LIST) as f:
        for text in f.read().splitlines():
            if text.startswith("## "):
                file = text[3:].strip()
            elif text.startswith("    "):
                mutants.append(Mutant(len(mutants) + 1, file, line, text.strip()))
            elif text and not text.startswith("# "):
                line = text
    return mutants


def plant(root, mutants):
    """Rewrites the lines in `root`. Returns what is wrong with the list."""
    wrong = []
    for file in dict.fromkeys(m.file for m in mutants):
        path = os.path.join(root, file)
        if not os.path.isfile(path):
            wrong.append(f"{file} is gone")
            continue
        with open(path) as f:
            lines = f.read().splitlines()
        on = "crate::mutant" if file.startswith("src/") else "halfbyte_core::mutant"
        for line in dict.fromkeys(m.line for m in mutants if m.file == file):
            at = [i for i, text in enumerate(lines) if text.strip() == line]
            if len(at) != 1:
                wrong.append(f"{file}: {len(at)} lines are `{line}`")
                continue
            indent = lines[at[0]][: len(lines[at[0]]) - len(lines[at[0]].lstrip())]
            here = [m for m in mutants if m.file == file and m.line == line]
            edits = {}
            for m in here:
                start = 0 if m.old is None else line.find(m.old)
                if start < 0 or (m.old and line.count(m.old) != 1):
                    wrong.append(f"{file}: `{m.old}` is not once in `{line}`")
                    continue
                edits.setdefault((start, line if m.old is None else m.old), []).append(m)
            for (start, old), group in sorted(edits.items(), key=lambda e: -e[0][0]):
                if group[0].old is None:
                    text = f"if !{on}({group[0].number}) {{ {line} }}"
                else:
                    arms = "".join(f"if {on}({m.number}) {{ {m.new} }} else " for m in group)
                    text = f"({arms}{{ {old} }})"
                new = lines[at[0]].strip()
                lines[at[0]] = indent + new[:start] + text + new[start + len(old) :]
        with open(path, "w") as f:
            f.write("\n".join(lines) + "\n")
    return wrong


def copy(root):
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, files.split("\0")):
        os.makedirs(os.path.dirname(os.path.join(root, name)), exist_ok=True)
        shutil.copy2(os.path.join(ROOT, name), os.path.join(root, name))


def build(root):
    """The test binaries by package and name, and the program."""
    with open(os.path.join(root, "src/lib.rs"), "a") as f:
        f.write(FUNCTION)
    command = ["cargo", "test", "--workspace", "--lib", "--test", "model", "--test", "golden", "--test", "cli", "--test",
               "datasets", "--no-run", "--message-format=json"]
    built = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if built.returncode:
        errors = (json.loads(line) for line in built.stdout.splitlines() if line.startswith("{"))
        errors = (e["message"] for e in errors if e.get("reason") == "compiler-message")
        sys.exit("\n".join(e["rendered"] for e in errors if e["level"] == "error")[:6000])
    binaries = {}
    for line in built.stdout.splitlines():
        made = json.loads(line) if line.startswith("{") else {}
        if made.get("executable"):
            package = made["manifest_path"].removeprefix(os.path.realpath(root))
            package = {"/Cargo.toml": "halfbyte-core", "/app/Cargo.toml": "halfbyte"}.get(package, "tokenizer")
            kind = made["target"]["kind"][0]
            binaries[package, "lib" if kind == "lib" else made["target"]["name"]] = made["executable"]
    return binaries


def passes(root, binary, package, arguments, number, limit):
    """Whether a suite passes with a mistake, and its time."""
    cwd = root if package == "halfbyte-core" else os.path.join(root, "app")
    began = time.monotonic()
    try:
        done = subprocess.run([binary, *arguments], cwd=cwd, env=os.environ | {"MUTANT": str(number), "RUST_BACKTRACE": "0"},
                              timeout=limit, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return done.returncode == 0, time.monotonic() - began
    except subprocess.TimeoutExpired:
        return False, time.monotonic() - began


def run(mutants, shard, numbers, out):
    part, parts = map(int, shard.split("/"))
    chosen = [m for m in mutants if (m.number in numbers if numbers else m.number % parts == part % parts)]
    root = os.path.realpath(tempfile.mkdtemp(prefix="mutants-"))
    try:
        copy(root)
        if wrong := plant(root, mutants):
            sys.exit("\n".join(wrong))
        binaries = build(root)
        times, results = {}, []
        for m in chosen:
            noticed = None
            for suite, (package, target, arguments) in enumerate(SUITES):
                suite_passes = lambda number, limit: passes(root, binaries[package, target], package, arguments, number, limit)
                if suite not in times:
                    fine, times[suite] = suite_passes(0, 1800)
                    if not fine:
                        sys.exit(f"{package} {target} {arguments} fails without a mistake")
                if not suite_passes(m.number, 3 * times[suite] + 10)[0]:
                    noticed = " ".join([package, target, *arguments])
                    break
            results.append({"number": m.number, "noticed": noticed})
            print(f"{'noticed by ' + noticed if noticed else 'SURVIVES':<40} {m}", flush=True)
        with open(out, "w") as f:
            json.dump(results, f)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def report(mutants, files):
    results = {}
    for name in files:
        with open(name) as f:
            results |= {r["number"]: r["noticed"] for r in json.load(f)}
    missing = [m.number for m in mutants if m.number not in results]
    live = [m for m in mutants if m.number in results and results[m.number] is None]
    for m in live:
        print(f"survives: {m}\n    {m.reason or 'NO REASON GIVEN'}")
    for m in mutants:
        if m.reason and results.get(m.number):
            print(f"no longer survives, remove its reason: {m}")
    noticed = 1 - len(live) / max(1, len(results))
    print(f"{len(results)} mistakes, {100 * noticed:.1f} % noticed; not run: {missing or 'none'}")
    sys.exit(bool(missing or noticed < WANTED or any(not m.reason for m in live)))


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("command", choices=["check", "run", "report"])
parser.add_argument("rest", nargs="*")
parser.add_argument("--shard", default="1/1")
parser.add_argument("--out", default="mutants.json")
given = parser.parse_intermixed_args()
listed = read()
if given.command == "report":
    report(listed, given.rest)
elif given.command == "run":
    run(listed, given.shard, list(map(int, given.rest)), given.out)
else:
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        copy(scratch)
        bad = plant(scratch, listed)
    print("\n".join(bad) or f"{len(listed)} mistakes, every line is there")
    sys.exit(bool(bad))
