"""Records what the formatting functions of two tutorials return (Python 3, no packages); see tests/datasets/formats.rs.

    python tests/data/rows/record_tutorials.py > tests/data/rows/tutorials.json
"""

import json

PREAMBLE = "Below is an instruction that describes a task. Write a response that appropriately completes the request."


def swapped_roles(sample):
    system_message = (
        "[INST]Use the provided input to create an instruction that could have been used to generate the response "
        "with an LLM."
    )
    response = (
        sample["prompt"].replace(PREAMBLE, "").replace("\n\n### Instruction\n", "").replace("\n### Response\n", "").strip()
    )
    return "<s>" + system_message + "\n" + sample["response"] + "[/INST]" + response + "</s>"


def code_instructions(sample):
    instruction, input_text, output = sample["instruction"], sample["input"], sample["output"]
    return f"<s>[INST] {instruction} here are the inputs {input_text} [/INST] \n {output} </s>"


TASKS = [
    ("Name a colour.", "Blue."),
    ("Add the numbers.\n1 and 2", "  The sum is 3.\n"),
    ("한국의 수도는?", "서울입니다. {{ not a template }} <b>\u00a0&amp;"),
    ("", ""),
]

print(json.dumps({
    "swapped_roles": [
        {"record": record, "text": swapped_roles(record)}
        for record in (
            {"prompt": f"{PREAMBLE}\n\n### Instruction\n{task}\n\n### Response\n", "response": answer, "source": "own"}
            for task, answer in TASKS
        )
    ],
    "code_instructions": [
        {"record": record, "text": code_instructions(record)}
        for record in (
            {"instruction": task, "input": given, "output": answer}
            for (task, answer), given in zip(TASKS, ["", "x = [1]\n", None, "[/INST]"])
        )
    ],
}, indent=1))
