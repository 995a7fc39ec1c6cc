"""Writes about BYTES of JSON lines that do not repeat, {"text": …} of 20 to 400 words (Python 3, no packages).

    python benches/words.py 1e9 > words.jsonl

A third of the words are common English ones, the others are made of syllables, so that a tokenizer's cache of words cannot
hold them all; some are followed by punctuation, line breaks and numbers. docs/benchmarks/data.md says what it is for.
"""

import random
import sys

rng = random.Random(7)
SYLLABLES = "ka lo min tre sa vor ne ti shu bel dra pon ix ur mey zan qui fo ga rith".split()
COMMON = (
    "the of and to in is that it was for on are as with his they at be this from have or by one had not but what all were "
    "when we there can an your which their said if do will each about how up out them then she many some so these would other "
    "into has more her two like him see time could no make than first been its who now people my made over did down only way "
    "find use may water long little very after words called just where most know"
).split()
VOCABULARY = COMMON * 200 + ["".join(rng.choices(SYLLABLES, k=rng.randint(1, 4))) for _ in range(60000)]

written, target = 0, float(sys.argv[1])
while written < target:
    words = rng.choices(VOCABULARY, k=rng.randint(20, 400))
    for i in range(12, len(words), 13):
        words[i] += rng.choice([".", ",", "?", ":", "\\n", " 3.14", f" ({rng.randint(0, 99999)})"])
    line = f'{{"text": "{" ".join(words)} {written}"}}\n'
    sys.stdout.write(line)
    written += len(line)
