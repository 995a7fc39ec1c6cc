"""Writes classes.rs and composition.rs beside this file: what the `tokenizers` library knows about Unicode.

    pip install tokenizers==0.22.2 unicodedata2==16.0.0
    python generate.py

The classes come from the library itself, by trying every code point: its regular expressions are of Unicode 16, its
`Digits` step of 17. Its NFC tables are older. Unicode never changes a combining class or a decomposition, so those of
Unicode 16 serve, less the code points that the library does not know.
"""

import os

import unicodedata2 as unicode
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

CHARS = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
CLASSES = [r"\p{Lu}|\p{Lt}", r"\p{Ll}", r"\p{Lm}|\p{Lo}", r"\p{M}", r"\p{N}", r"[^\S\r\n]", r"[\r\n]"]
WORD, COMBINES, DIGIT = 8, 16, 32
HANGUL = range(0xAC00, 0xD7A4)
JAMO = [*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)]
HEAD = '//! Written by `generate.py`.\n\n'


def matches(pattern):
    found = set()
    step = pre_tokenizers.Split(Regex(pattern), "removed", invert=True)
    for start in range(0, len(CHARS), 4096):
        for text, _ in step.pre_tokenize_str("".join(CHARS[start : start + 4096])):
            found.update(text)
    return found


def word_chars():
    """The characters that count as a word's beside a `single_word` token."""
    tokenizer = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    tokenizer.add_tokens([AddedToken("@@", single_word=True, normalized=False)])
    token = tokenizer.token_to_id("@@")
    return {c for c in CHARS if token not in tokenizer.encode(c + "@@").ids}


def digits():
    step = pre_tokenizers.Digits(individual_digits=True)
    return {c for c in CHARS if len(step.pre_tokenize_str(f"a{c}a")) == 3}


def canonical():
    """Combining classes, decompositions and compositions, as far as the library knows them."""
    nfd, nfc = normalizers.NFD().normalize_str, normalizers.NFC().normalize_str
    reorders = lambda c: nfd("\u0345" + c) != "\u0345" + c or nfd(c + "\u0334") != c + "\u0334"
    combining = {c: unicode.combining(c) for c in CHARS if unicode.combining(c) and reorders(c)}
    parts, composed = {}, {}
    for c in CHARS:
        text = unicode.decomposition(c)
        if not text or text.startswith("<") or ord(c) in HANGUL or nfd(c) == c:
            continue
        parts[c] = "".join(chr(int(code, 16)) for code in text.split())
        if len(parts[c]) == 2 and nfc(parts[c]) == c:
            composed[parts[c]] = c
    return combining, parts, composed


def rows(cells, width=116):
    line = "   "
    for cell in cells:
        if len(line) + len(cell) + 2 > width:
            yield line
            line = "   "
        line += f" {cell},"
    yield line


def write(name, text):
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), name), "w", encoding="utf-8") as f:
        f.write(HEAD + text)


def table(doc, name, kind, cells):
    body = "\n".join(rows(cells))
    return f"/// {doc}\n#[rustfmt::skip]\npub(super) const {name}: &[{kind}] = &[\n{body}\n];\n"


def main():
    combining, parts, composed = canonical()
    info = dict.fromkeys(CHARS, 0)
    for index, pattern in enumerate(CLASSES):
        for c in matches(pattern):
            assert info[c] == 0, c
            info[c] = index + 1
    combines = {*combining, *(pair[1] for pair in composed), *(chr(c) for c in JAMO)}
    combines |= {c for c in parts if parts[c] not in composed}
    for flag, chars in [(WORD, word_chars()), (COMBINES, combines), (DIGIT, digits())]:
        for c in chars:
            info[c] |= flag
    runs = []
    for code in range(0x110000):
        value = info.get(chr(code), 0)
        if not runs or runs[-1][1] != value:
            runs.append([0, value])
        runs[-1][0] += 1
    doc = "How many code points in a row have the same entry, and that entry."
    write("classes.rs", table(doc, "RUNS", "(u32, u8)", (f"({n}, {value})" for n, value in runs)))

    number = lambda c: f"0x{ord(c):X}"
    runs = []
    for c in sorted(combining):
        if runs and ord(c) == runs[-1][0] + runs[-1][1] and combining[c] == runs[-1][2]:
            runs[-1][1] += 1
        else:
            runs.append([ord(c), 1, combining[c]])
    text = table("First code point, how many, and their combining class.", "COMBINING", "(u32, u32, u8)",
                 (f"(0x{start:X}, {n}, {value})" for start, n, value in runs))
    doc = "A character and what it decomposes into: two characters that compose it again."
    pairs = [c for c in sorted(parts) if parts[c] in composed]
    text += "\n" + table(doc, "COMPOSED", "(u32, u32, u32)",
                         (f"({number(c)}, {number(parts[c][0])}, {number(parts[c][1])})" for c in pairs))
    doc = "A character and what it decomposes into for good: one character, or two (the second is 0 for one)."
    single = [c for c in sorted(parts) if parts[c] not in composed]
    text += "\n" + table(doc, "REPLACED", "(u32, u32, u32)",
                         (f"({number(c)}, {', '.join([*map(number, parts[c]), '0'][:2])})" for c in single))
    write("composition.rs", text)


main()
