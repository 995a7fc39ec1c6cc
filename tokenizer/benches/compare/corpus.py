"""Collects four corpora of 24 MB without repetition from the files installed on this machine:

    python corpus.py OUT [FOLDER]...

prose.txt    English sentences of installed documentation (HTML, Markdown, reStructuredText, manual pages)
code.txt     installed sources (Python, C, Rust, JavaScript), each distinct file once
cjk.txt      Korean and Chinese of installed documentation and message catalogs; when these are used up, new
             sentences drawn from their two-word sequences (a Markov chain)
unicode.txt  random code points, half of them from the basic plane

The folders default to /usr, the Python prefix and the Rust toolchain.
"""

import gettext
import gzip
import hashlib
import html
import os
import random
import re
import subprocess
import sys

SIZE = 24_000_000
CJK = re.compile("[\u4e00-\u9fff\uac00-\ud7a3]")


def files(folders, endings):
    for folder in folders:
        for path, dirs, names in os.walk(folder):
            dirs.sort()
            for name in sorted(names):
                if name.endswith(endings):
                    yield os.path.join(path, name)


def read(path):
    try:
        data = open(path, "rb").read(4_000_000)
        return (gzip.decompress(data) if path.endswith(".gz") else data).decode("utf-8")
    except (OSError, ValueError, EOFError):
        return ""


def plain(path):
    text = read(path)
    if path.endswith((".html", ".htm")):
        text = re.sub(r"(?s)<(script|style|pre|code|nav)\b.*?</\1>", " ", text)
        text = html.unescape(re.sub(r"(?s)<[^>]*>", " ", text))
    elif path.endswith(".gz"):
        text = re.sub(r"(?m)^[.'].*$|\\f.|\\", "", text)
    return text


def write(out, name, parts):
    size = 0
    with open(os.path.join(out, name), "w", encoding="utf-8", newline="\n") as f:
        for part in parts:
            f.write(part + "\n")
            size += len(part.encode()) + 1
            if size >= SIZE:
                break
    print(name, size, "bytes")


def prose(folders):
    seen = set()
    for path in files(folders, (".html", ".md", ".rst", ".1.gz", ".7.gz", ".3.gz", ".8.gz", ".5.gz")):
        for line in re.split(r"\n\s*\n|(?<=[.!?])\s+", plain(path)):
            line = " ".join(line.split())
            words = sum(w.isalpha() for w in line.split())
            if words >= 6 and words >= 0.75 * len(line.split()) and line.isascii() and line not in seen:
                seen.add(line)
                yield line


def code(folders):
    seen = set()
    for path in files(folders, (".py", ".c", ".h", ".rs", ".js", ".pl", ".sh")):
        text = read(path)
        digest = hashlib.sha256(text.encode()).digest()
        longest = max(map(len, text.split("\n")))
        if len(text) > 200 and longest < 2000 and digest not in seen:
            seen.add(digest)
            yield text


def cjk(folders):
    seen = set()
    texts = []
    for path in files(folders, (".mo", ".html")):
        if not re.search(r"/(ko|zh|zh_CN|zh_TW)/", path):
            continue
        if path.endswith(".mo"):
            try:
                lines = gettext.GNUTranslations(open(path, "rb"))._catalog.values()
            except (OSError, ValueError):
                continue
        else:
            lines = plain(path).split("\n")
        for line in lines:
            line = " ".join(str(line).split())
            if len(CJK.findall(line)) * 2 > len(line) and line not in seen:
                seen.add(line)
                texts.append(line)
                yield line
    # Chinese has no spaces: its steps are pairs of characters there.
    rng = random.Random(1)
    after = {}
    for text in texts:
        parts = re.findall("[\u4e00-\u9fff]|[^\u4e00-\u9fff ]+ ?| ", text)
        for a, b, c in zip([""] + parts, parts, parts[1:] + ["\n"]):
            after.setdefault((a, b), []).append(c)
    starts = [pair for pair in after if not pair[0]]
    while True:
        a, b = rng.choice(starts)
        line = [b]
        while len(line) < 60 and (c := rng.choice(after.get((a, b), ["\n"]))) != "\n":
            line.append(c)
            a, b = b, c
        line = "".join(line)
        if line not in seen:
            seen.add(line)
            yield line


def unicode():
    rng = random.Random(2)
    while True:
        top = lambda: 0xFFFF if rng.random() < 0.5 else 0x10FFFF
        line = "".join(chr(rng.randint(0x20, top())) for _ in range(60))
        yield re.sub("[\ud800-\udfff]", "", line)


def main():
    out = sys.argv[1]
    os.makedirs(out, exist_ok=True)
    toolchain = subprocess.run(["rustc", "--print", "sysroot"], capture_output=True, text=True).stdout.strip()
    folders = sys.argv[2:] or ["/usr", sys.base_prefix, toolchain]
    write(out, "prose.txt", prose(folders))
    write(out, "code.txt", code(folders))
    write(out, "cjk.txt", cjk(folders))
    write(out, "unicode.txt", unicode())


main()
