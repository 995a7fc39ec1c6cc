"""Records what numpy 2.4.6 and datasets 5.2.0 give; the tests compare with rows.json.

    pip install numpy==2.4.6 datasets==5.2.0
    python tests/data/rows/record.py > tests/data/rows/rows.json
"""

import json

import datasets
import numpy
from datasets import Dataset
from datasets.arrow_reader import ReadInstruction

SEEDS = [0, 1, 42, 1234, 2**31 - 1, 2**32, 2**63 + 12345]
SIZES = [1, 2, 3, 10, 97, 1000]
SPECS = [
    "train", "train[:10%]", "train[10%:]", "train[-10%:]", "train[10:20]", "train[:25]", "train[-3:]", "train[5:]",
    "train[33%:67%]", "train[:1%]", "train[50:20]", "train[1_0:2_0]", "train[10:20%]", "train[-500:7]",
    "train[:50%](closest)", "train[:50%](pct1_dropremainder)", "train[:2]+train[-2:]", "train[:10%] + test[1:2]",
]


def permutations():
    for seed in SEEDS:
        for n in SIZES:
            yield {"entropy": [seed], "n": n, "order": numpy.random.default_rng(seed).permutation(n).tolist()}
    # A list of entropy: what the sampler uses (seed, epoch).
    for entropy in [[42, 0], [42, 1], [2**40, 7]]:
        yield {"entropy": entropy, "n": 50, "order": numpy.random.default_rng(entropy).permutation(50).tolist()}


def shuffles():
    rows = Dataset.from_dict({"i": range(123)})
    return [{"seed": s, "rows": rows.shuffle(seed=s)["i"][:]} for s in SEEDS[:5]]


def splits():
    for n in [2, 10, 101]:
        rows = Dataset.from_dict({"i": range(n)})
        for size in [0.1, 0.25, 0.5, 1, 7]:
            for seed in [0, 42]:
                if isinstance(size, int) and size >= n:
                    continue
                try:
                    both = rows.train_test_split(test_size=size, seed=seed)
                except ValueError:
                    continue
                yield {
                    "n": n, "test_size": size, "fraction": isinstance(size, float), "seed": seed,
                    "train": both["train"]["i"][:], "test": both["test"]["i"][:],
                }


def slices():
    for n in [7, 100, 1005]:
        sizes = {"train": n, "test": 5}
        for spec in SPECS:
            if "pct1" in spec and n < 100:
                continue
            parts = ReadInstruction.from_spec(spec).to_absolute(sizes)
            yield {"sizes": sizes, "spec": spec, "parts": [[p.splitname, p.from_, p.to] for p in parts]}


json.dump(
    {
        "versions": {"numpy": numpy.__version__, "datasets": datasets.__version__},
        "permutations": list(permutations()),
        "shuffles": shuffles(),
        "train_test_splits": list(splits()),
        "slices": list(slices()),
    },
    __import__("sys").stdout,
    separators=(",", ":"),
)
