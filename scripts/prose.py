#!/usr/bin/env python3
"""Lists sentences that are hard to read: in comments, doc lines, messages and Markdown.

    scripts/prose.py               checks every file that git tracks; exit status 1 if there is a finding
    scripts/prose.py PATH..        checks these files and folders only
    scripts/prose.py --count       prints the number of findings for each rule and each folder instead of the findings
    scripts/prose.py --names       lists the Rust types whose name is defined more than once
    scripts/prose.py --self-test   checks the rules themselves on good and bad sentences

A finding is printed as `file:line: rule: text`. scripts/prose-allow.txt holds the exceptions, one for each line:

    path | rule | words of the sentence | reason

An entry that matches no finding is an error, so the list cannot grow stale.

The rules look at words only, so a clean run is not a proof of good prose. They are tuned for few false positives. Text in
`backticks` is code and is skipped. Messages are string literals of three words or more; they are checked for idiom and
spelling, not for the form of their sentences. Names in code are checked for spelling.
"""

import io
import re
import subprocess
import sys
import tokenize
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ALLOW = ROOT / "scripts/prose-allow.txt"
# Data, texts that the program learns from, and this file, which has to quote what it looks for.
SKIPPED = re.compile(
    r"(^|/)tests/data/|^app/assets/|^compiled/|^app/examples/make_quickstart/|^scripts/prose|^LICENSE|^Cargo\.lock$"
)
KINDS = {
    ".rs": "rust", ".cu": "rust", ".cuh": "rust", ".py": "python", ".sh": "shell", ".toml": "shell", ".md": "markdown",
}

# ---- Rules ----------------------------------------------------------------------------------------------------------

# Idiom: looked for everywhere, in messages too. Name, pattern, what to write instead.
IDIOM = [
    ("is-no", r"(?<!there )(?<!There )\b(?:is|are|was|were|be|been) no (?!longer\b|more\b|less\b|fewer\b|better\b|worse\b|"
              r"different\b|larger\b|smaller\b|greater\b|later\b|earlier\b|use\b|faster\b|slower\b|wider\b|deeper\b|one\b)\w+",
     "is not a …"),
    ("tautology", r"\b(?:is|are|was|were) what (?:it|they|he|she) (?:is|are|was|were|says?|said)\b", "say what it is"),
    ("nor", r"\b[Nn]or (?:is|are|was|were|does|do|did|has|have|can|could|will|would|may|must)\b", "and … not"),
    ("that-which", r"\b(?:that|those|this|these) which\b", "what, or name it"),
    ("goes-on", r"(?<!and so )\b(?:go|goes|went|gone) on\b(?! (?:and on|the|a|an|top|one|to the)\b)|\bgoing on (?:from|with)\b", "continue"),
    ("said", r"\b(?:is|are|was|were|be|been|being) said\b(?! to\b)|\bsaid (?:so|at|in|by|before|after|again|once|what|that)\b|"
             r"\b(?:says?|said) (?:anew|nothing)\b", "logged, printed, reported"),
    ("archaic", r"\b(?:anew|unasked|thereof|whereof|wherein|therein|hitherto|lest|thrice|whilst|amongst|too dear|"
                r"as it were|so much(?! (?:less|more|as|that)\b)|be had|their kin|its kin)\b", "use a modern word"),
    ("has-it", r"\bas (?:\w+ ){0,3}\w+ (?:has|have|had) it\b(?! in\b)", "as X does"),
    ("comes-to-its-end", r"\b(?:come|comes|came) to (?:its|their|an) end\b", "ends, finishes"),
    ("riddle", r"\bbehind the \w+'s back\b|\b(?:behind|beside) what\b|, but what (?:they|it) |\bsay yes\b|\bwould ask\b|\bends the interest\b",
     "say what happens"),
    ("unidiomatic", r"\bunder way\b|\bc[oa]mes? to rest\b|\bmade[- ]up weights\b|\bweights are made up\b|\b(?:unless|as was|as is|if not) said\b|"
                    r"\bon the way\b|\b(?:takes?|taken|took) (?:the|each other's|another's|its|their) place\b|\bin the place of\b|\blaid over\b|"
                    r"(?<!, )\bso many\b(?! (?:that|as|of)\b)|\bstands? (?:before|beside|behind|together|below|above)\b|\bhangs? on\b|\bother bits\b|"
                    r"\b(?:holds?|lies?) behind (?:the|it|that)\b|\bof (?:our|its|their|your|his) own making\b|\bthe same way round\b|\bmakes? it to\b",
     "in flight, idle, random, overwrites, overrides, this many, precedes, depends on, different bits"),
    ("dash", r"\w — \w|\w – [a-zA-Z]|\w --- \w", "two sentences, or a colon"),
]

# Sentences: in comments, doc lines and Markdown. A sentence ends with a full stop.
SENTENCE = [
    ("of-first", r"^Of (?!course\b)", "put the subject first"),
    ("relative-first", r"^(?:Also )?(?:What|Who|Whoever|Whatever|That which) [^?]*\.$", "put the subject first"),
    ("inverted", r"^(?:Beside|Behind|Above|Below|Under|In|On|At|Among|Before|After) (?:it|them|this|that|these|those|(?:the|each|every) \w+) "
                 r"(?:lie|lies|lay|stand|stands|stood|come|comes|came|follow|follows|is|are|was|were)\b", "put the subject first"),
    ("inverted", r"^(?:Neither|Never|Nor|Not only|Nowhere|Seldom) (?:is|are|was|were|does|do|did|has|have|can|may|must)\b",
     "put the subject first"),
    ("inverted", r"^(?:Gone|Needed|Excepted|Allowed|Meant|Wanted|Counted|Compared|Refused) (?:is|are|was|were)\b|^Needed:",
     "put the subject first"),
    # A dependent clause that stands alone. A main clause would follow a comma.
    ("fragment", r"^(?:When|Where|Because|Since|Until|Unless|While|Although|Though|Which|So that|As)(?: [^,:;?]+)?\.$",
     "write the main clause"),
    ("fragment", r"^(?:Also|Else|Otherwise|And|But|Or|Not|Nor|Only|By|From|To|With|After|Before|Over|About|Beside|Besides)"
                 r"(?: (?!VERB\b)[^,:;? ]+){0,6}\.$", "write a whole sentence"),
]

BRITISH = re.compile(
    r"(?:optimis|quantis|serialis|initialis|normalis|tokenis|organis|recognis|minimis|maximis|summaris|synchronis|parallelis|"
    r"vectoris|generalis|specialis|memoris|materialis|finalis|visualis|customis|penalis|utilis|regularis|randomis|factoris|"
    r"linearis|equalis|localis|canonicalis|realis|capitalis|categoris|prioritis|standardis|discretis|stabilis)(?:e|ed|es|er|ers|ing|ation|ations)"
    r"(?![a-z])|(?:colour|behaviour|neighbour|favour|honour|flavour|labour|rigour|vigour)|"
    r"(?<![a-z])(?:centre|centres|centred|fibre|fibres|litre|litres|grey|catalogue|analogue|artefact|artefacts|judgement|judgements|"
    r"defence|offence|licence|practise|analyse|analysed|analysing|per cent|modelled|modelling|labelled|labelling|"
    r"cancelled|cancelling|travelled|signalled|signalling|programme|spelt|learnt)(?![a-z])",
    re.I,
)

# Enough of the finite verbs to tell a sentence from a phrase.
VERBS = (
    "is are was were be been has have had do does did can could may might must will would shall should need needs make makes "
    "take takes give gives hold holds keep keeps lie lies go goes come comes get gets run runs read reads write writes say says "
    "stay stays stand stands begin begins end ends use uses want wants cost costs fail fails fit fits differ differs add adds "
    "work works wait waits follow follows agree agrees belong belongs let lets put puts see sees find finds leave leaves "
    "return returns compute computes store stores load loads mean means set sets print prints"
).split()
WORD = re.compile(r"[A-Za-z][A-Za-z'-]*")


def sentence_rules(sentence):
    """Yields (rule, advice) for one sentence that ends with a full stop."""
    for rule, pattern, advice in SENTENCE:
        if "VERB" in pattern:
            pattern = pattern.replace("VERB", "(?:" + "|".join(VERBS) + ")")
        if re.search(pattern, sentence):
            yield rule, advice


def idiom_rules(text):
    """Yields (rule, advice, offset)."""
    for rule, pattern, advice in IDIOM:
        for match in re.finditer(pattern, text):
            yield rule, advice, match.start()
    for match in BRITISH.finditer(text):
        yield "spelling", f"American spelling of “{match.group()}”", match.start()


def repeats_name(doc, item):
    """Whether a doc comment says no more than the name of the item below it, or is a single word."""
    words = [w.lower() for w in WORD.findall(doc)]
    words = [w for w in words if w not in ("the", "a", "an", "its", "of", "this")]
    if len(words) > 2 or "`" in doc or not words:
        return False
    name = re.match(r"\s*(?:pub(?:\([^)]*\))? )?(?:const |static |unsafe |async )*(?:fn |struct |enum |trait |mod |type )?(?:r#)?(\w+)", item)
    if not name:
        return False
    parts = re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", name.group(1))
    parts = {p.lower().rstrip("s") for p in parts}
    return all(w.rstrip("s") in parts for w in words) or (len(words) == 1 and len(WORD.findall(doc)) == 1)


# ---- Text in files --------------------------------------------------------------------------------------------------


class Block:
    """Lines of prose that belong together. `kind` is "prose" (sentences), "paragraph" (of Markdown), "message" or "name"."""

    def __init__(self, kind, lines, doc_of=None):
        self.kind, self.lines, self.doc_of = kind, lines, doc_of  # lines: [(number, text)]


def comment_blocks(comments, source_lines):
    """Joins comments on neighboring lines. comments: [(line, marker, text)]."""
    block, last = [], None
    for line, marker, text in comments:
        alone = source_lines[line - 1].lstrip().startswith(marker)
        if block and not (alone and last == (line - 1, marker)):
            yield finish(block, last, source_lines)
            block = []
        block.append((line, text))
        last = (line, marker) if alone else None
        if not alone:
            yield Block("prose", block)
            block = []
    if block:
        yield finish(block, last, source_lines)


def finish(block, last, source_lines):
    item = None
    if last and last[1] == "///":
        following = [s for s in source_lines[last[0]:last[0] + 6] if not s.lstrip().startswith("#[")]
        item = following[0] if following else None
    return Block("prose", block, item)


RUST = re.compile(r'//[^\n]*|/\*.*?\*/|\bb?r(#*)".*?"\1|b?"(?:\\.|[^"\\])*"|\'(?:\\.[^\']*|[^\'\\])\'|\'[a-zA-Z_]\w*|\w+', re.S)


def rust_blocks(text):
    lines, comments, code = text.split("\n"), [], {}
    line, at = 1, 0
    for match in RUST.finditer(text):
        line += text.count("\n", at, match.start())
        at = match.start()
        token = match.group()
        if token.startswith("//"):
            marker = re.match(r"///(?!/)|//!|//", token).group()
            comments.append((line, marker, token[len(marker):]))
        elif token.startswith("/*"):
            for i, part in enumerate(token.strip("/*").split("\n")):
                comments.append((line + i, "*", part.strip(" *")))
        elif '"' in token[:5] and not token.startswith("'"):
            yield Block("message", [(line + i, part) for i, part in enumerate(token.split("\n"))])
        elif not token.startswith("'"):
            code.setdefault(line, []).append(token)
    yield from comment_blocks(comments, lines)
    for number, words in code.items():
        yield Block("name", [(number, " ".join(words))])


def python_blocks(text):
    lines, comments = text.split("\n"), []
    previous = None
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            comments.append((token.start[0], "#", token.string.lstrip("#!")))
        elif token.type == tokenize.STRING or tokenize.tok_name[token.type] == "FSTRING_MIDDLE":
            docstring = token.string.startswith('"""') and previous in (None, tokenize.NEWLINE, tokenize.INDENT, tokenize.NL, tokenize.COMMENT)
            body = [(token.start[0] + i, part.strip('"')) for i, part in enumerate(token.string.split("\n"))]
            yield Block("prose" if docstring else "message", body)
        elif token.type == tokenize.NAME:
            yield Block("name", [(token.start[0], token.string)])
        if token.type not in (tokenize.NL, tokenize.COMMENT):
            previous = token.type
    yield from comment_blocks(comments, lines)


def shell_blocks(text):
    lines, comments = text.split("\n"), []
    for number, line in enumerate(lines, 1):
        match = re.search(r"(?:^|\s)(#+)(?:\s|$)(.*)", line)
        if match and line[:match.start()].count('"') % 2 == 0:
            comments.append((number, "#", match.group(2)))
        elif re.search(r"\b(?:echo|printf|description)\b", line):
            yield Block("message", [(number, line)])
    yield from comment_blocks(comments, lines)


def markdown_blocks(text):
    block, kind, fenced = [], "paragraph", False
    for number, line in enumerate(text.split("\n"), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
            line = ""
        elif fenced or re.match(r"    |\t", line) and not block:
            line = ""
        if line.startswith("|"):
            for cell in line.strip("|").split(" | "):
                yield Block("prose", [(number, cell.strip())])
            line = ""
        starts_item = re.match(r"\s*(?:[-*]|\d+\.)\s", line)
        if (not line.strip() or starts_item or line.startswith("#")) and block:
            yield Block(kind, block)
            block = []
        if not block:
            kind = "prose" if starts_item else "paragraph"
        if line.startswith("#"):
            yield Block("message", [(number, line.lstrip("# "))])
        elif line.strip():
            block.append((number, re.sub(r"^\s*(?:[-*]|\d+\.)\s+", "", line)))
    if block:
        yield Block(kind, block)


def blocks(path, text):
    kind = "shell" if path == ".ci/run" else KINDS.get(Path(path).suffix)
    readers = {"rust": rust_blocks, "python": python_blocks, "shell": shell_blocks, "markdown": markdown_blocks}
    return readers[kind](text) if kind else []


# ---- Checking -------------------------------------------------------------------------------------------------------


def without_code(text):
    """The same length, with code between backticks and link targets blanked out."""
    text = re.sub(r"`[^`]*`", lambda m: "`" + "x" * (len(m.group()) - 2) + "`" if len(m.group()) > 1 else m.group(), text)
    return re.sub(r"\]\([^)]*\)", lambda m: "]" + "_" * (len(m.group()) - 1), text)


def paragraphs(lines):
    """Cuts a block at empty lines, list items, rulers and indented displays, which are code or formulas."""
    part = []
    for number, text in lines:
        bare = text.strip()
        display = text.startswith("     ") or re.match(r"-{4,}|={4,}", bare)
        if not bare or display or re.match(r"(?:[-*]|\d+\.)\s", bare):
            if part:
                yield part
            part = []
            if not bare or display:
                continue
            bare = re.sub(r"^(?:[-*]|\d+\.)\s+", "", bare)
        part.append((number, bare))
    if part:
        yield part


def check_text(path, text):
    """Yields (line, rule, advice, excerpt)."""
    for block in blocks(path, text):
        if block.kind == "name":
            for number, words in block.lines:
                for match in BRITISH.finditer(words):
                    yield number, "spelling", "in a name", words[max(0, match.start() - 30):match.end() + 30]
            continue
        if block.kind == "message":
            joined = " ".join(t for _, t in block.lines)
            if len(re.findall(r"[A-Za-z]+(?=\W|$)", joined)) < 3 or " " not in joined.strip():
                continue
        if block.doc_of is not None and repeats_name(" ".join(t.strip() for _, t in block.lines), block.doc_of):
            yield block.lines[0][0], "empty-doc", "say what the name does not, or nothing", block.lines[0][1].strip()
            continue
        if block.kind == "paragraph" and re.match(r"[a-z]", block.lines[0][1].strip()):
            yield block.lines[0][0], "headless", "a paragraph after a display needs its own subject", block.lines[0][1].strip()[:100]
        for part in paragraphs(block.lines) if block.kind in ("prose", "paragraph") else [block.lines]:
            joined, starts = "", []
            for number, bare in part:
                starts.append((len(joined), number))
                joined += bare + " "
            joined = without_code(joined)

            def line_of(offset):
                return max((s for s in starts if s[0] <= offset), default=starts[0])[1]

            for rule, advice, offset in idiom_rules(joined):
                yield line_of(offset), rule, advice, joined[max(0, offset - 40):offset + 60].strip()
            if block.kind == "message":
                continue
            at = 0
            for sentence in re.split(r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)(?<! l\.)\)? +(?=[A-Z`\"(\[])", joined):
                offset = joined.find(sentence, at)
                at = offset + len(sentence)
                sentence = re.sub(r"^(?:SAFETY|NOTE): ", "", sentence.strip().strip("()*"))
                for rule, advice in sentence_rules(sentence):
                    yield line_of(offset), rule, advice, sentence[:100]


def tracked(arguments):
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--"] + arguments
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\n")
    return [n for n in names if n and not SKIPPED.search(n) and (Path(n).suffix in KINDS or n == ".ci/run") and (ROOT / n).is_file()]


def allowed():
    """The entries of the allow-list: [path, rule, words, reason]."""
    entries = []
    for line in ALLOW.read_text("utf-8").splitlines() if ALLOW.exists() else []:
        if line.strip() and not line.startswith("#"):
            fields = [f.strip() for f in line.split(" | ")]
            if len(fields) != 4 or not all(fields):
                sys.exit(f"{ALLOW.name}: not `path | rule | words | reason`: {line}")
            entries.append(fields)
    return entries


TYPE = re.compile(r"^(?:pub(?:\([^)]*\))? )?(?:struct|enum|trait|union|type) (\w+)|^ +(?:pub(?:\([^)]*\))? )?(?:struct|enum|trait|union) (\w+)", re.M)


def names():
    """Prints the type names with several definitions outside tests. `Error` and `Result` exist once in each crate by custom."""
    places = {}
    for path in tracked(["*.rs"]):
        if "/src/" in f"/{path}" and not path.endswith("_tests.rs"):
            text = (ROOT / path).read_text("utf-8").split("#[cfg(test)]\nmod ")[0]
            for match in TYPE.finditer(text):
                places.setdefault(match.group(1) or match.group(2), []).append(path)
    several = {n: p for n, p in places.items() if len(p) > 1 and n not in ("Error", "Result")}
    for name, paths in sorted(several.items()):
        print(f"{name}: {' '.join(paths)}")
    print(f"{len(several)} names", file=sys.stderr)
    return 1 if several else 0


def main(arguments):
    if arguments == ["--names"]:
        return names()
    if arguments == ["--self-test"]:
        return self_test()
    count = "--count" in arguments
    paths = [a for a in arguments if not a.startswith("--")]
    entries, used = allowed(), set()
    findings = []
    for path in tracked(paths):
        text = (ROOT / path).read_text("utf-8")
        for line, rule, advice, excerpt in sorted(set(check_text(path, text))):
            lines = " ".join(s.strip() for s in text.split("\n")[line - 1:line + 3])
            entry = next((i for i, e in enumerate(entries) if e[:2] == [path, rule] and e[2] in excerpt + " " + lines), None)
            if entry is None:
                findings.append((path, line, rule, advice, excerpt))
            else:
                used.add(entry)
    stale = [e for i, e in enumerate(entries) if i not in used and (not paths or any(e[0].startswith(p) for p in paths))]
    if count:
        for name, total in Counter(f[2] for f in findings).most_common():
            print(f"{total:5} {name}")
        for name, total in Counter("/".join(f[0].split("/")[:2]) for f in findings).most_common():
            print(f"{total:5} {name}")
    else:
        for path, line, rule, advice, excerpt in findings:
            print(f"{path}:{line}: {rule}: {excerpt}   [{advice}]")
    for entry in stale:
        print(f"{ALLOW.name}: no longer needed: {' | '.join(entry)}")
    print(f"{len(findings)} findings", file=sys.stderr)
    return 1 if findings or stale else 0


# ---- Self-test ------------------------------------------------------------------------------------------------------

# File name, text, rule that must find it; None: no rule may.
EXAMPLES = [
    ("a.rs", "// Two pieces of one text are no vocabulary, nor is one with a NUL.", "is-no"),
    ("a.rs", "// Two pieces of one text are no vocabulary, nor is one with a NUL.", "nor"),
    ("a.rs", 'bail!("{} is no folder", path)', "is-no"),
    ("a.rs", 'bail!("there is no folder named {}", path)', None),
    ("a.rs", "// There are no rows beyond the last one.", None),
    ("a.rs", "// The buffer is no longer live, and is no larger than a page.", None),
    ("a.rs", "// A run that went on from a checkpoint says steps anew; what it says last is what it is.", "goes-on"),
    ("a.rs", "// A run that went on from a checkpoint says steps anew; what it says last is what it is.", "archaic"),
    ("a.rs", "// A run that went on from a checkpoint says steps anew; what it says last is what it is.", "tautology"),
    ("a.rs", "// A run that goes on from its early end has come to its end.", "comes-to-its-end"),
    ("a.rs", "// The launch goes on the second stream, and so on.", None),
    ("a.rs", "// What comes into `stream` from now on waits for the place last recorded.", "relative-first"),
    ("a.rs", "// What does a warp do here? It copies the tile.", None),
    ("a.rs", "// Later work in `stream` waits for this event.", None),
    ("a.rs", "/// Of the rows, so that a position is not taken up in other data.\npub hash: u64,", "of-first"),
    ("a.rs", "/// Hash of the rows: a checkpoint cannot be resumed on other data.\npub hash: u64,", None),
    ("a.rs", "/// Of the last step.\npub loss: f32,", "of-first"),
    ("a.rs", "/// When.\npub strategy: Strategy,", "empty-doc"),
    ("a.rs", "/// The recipe.\npub recipe: Recipe,", "empty-doc"),
    ("a.rs", "/// Learning rate.\n#[serde(default)]\npub learning_rate: f64,", "empty-doc"),
    ("a.rs", "/// Peak learning rate, before the schedule.\npub learning_rate: f64,", None),
    ("a.rs", "/// Mean loss.\npub value: f64,", None),
    ("a.rs", "// As a kill between two checkpoints leaves it.", "fragment"),
    ("a.rs", "// When the ring is full, the copy waits.", None),
    ("a.rs", "// Also when nothing is left.", None),
    ("a.rs", "// Not here.", "fragment"),
    ("a.rs", "// Beside it lie the checksums.", "inverted"),
    ("a.rs", "// The checksums lie beside it.", None),
    ("a.rs", "// A quantised weight.", "spelling"),
    ("a.rs", "// A quantized weight, `quantised` in the file.", None),
    ("a.rs", "let optimiser_state = 1;", "spelling"),
    ("a.rs", "// Registers are too dear to keep it.", "archaic"),
    ("a.rs", "// The reason is said in the report.", "said"),
    ("a.rs", "// The key is said to be unused by one reader.", None),
    ("a.rs", "let c = '\"'; // A comment after a quote is no string.", "is-no"),
    ("a.cu", "// Moments are rounded as each form has it.", "has-it"),
    ("a.py", 'def f():\n    """Returns that which the file holds."""\n', "that-which"),
    ("a.py", "# Colour of the curve.\n", "spelling"),
    ("a.sh", "# The run goes on with it.\n", "goes-on"),
    ("a.rs", "// Nothing waits for them, but what they read waits for them to be done.", "riddle"),
    ("a.rs", "// By instructions for which single values would ask each time.", "riddle"),
    ("a.rs", "// A write of the whole ends the interest in what was there before.", "riddle"),
    ("a.rs", "// Bytes that the device keeps for itself behind what the plan asks for.", "riddle"),
    ("a.rs", "// Copies behind the program's back.", "riddle"),
    ("a.rs", "// It may say yes where the answer is no.", "riddle"),
    ("a.rs", "// `again` is how it goes on.", "goes-on"),
    ("a.rs", "// Which expert is chosen hangs on a rounding.", "unidiomatic"),
    ("a.rs", "// The output takes the place of its input.", "unidiomatic"),
    ("a.rs", "// Waits until the copies under way have ended.", "unidiomatic"),
    ("a.rs", "// The output may overwrite its input in place.", None),
    ("a.rs", "/// Of the random numbers.\npub state: State,", "of-first"),
    ("a.rs", 'bail!("--overwrite begins anew and removes it")', "archaic"),
    ("a.rs", 'bail!("it is no hub id (owner/name)")', "is-no"),
    ("a.md", "```\ncargo test\n```\n\npasses the tests.\n", "headless"),
    ("a.md", "- small items may start like this.\n", None),
    ("a.md", "Needed: an NVIDIA driver.\n", "inverted"),
    ("a.md", "```\nThis is no prose.\n```\n", None),
    ("a.md", "| a | a width that is no multiple of 8 |\n", "is-no"),
    ("a.md", "The kernel — like every other one — waits.\n", "dash"),
]


def self_test():
    failed = 0
    for path, text, wanted in EXAMPLES:
        rules = {rule for _, rule, _, _ in check_text(path, text)}
        if (wanted is None and rules) or (wanted is not None and wanted not in rules):
            print(f"wanted {wanted}, found {sorted(rules)}: {text}")
            failed += 1
    print(f"{len(EXAMPLES) - failed} of {len(EXAMPLES)} examples pass")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
