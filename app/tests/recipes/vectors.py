"""Applies the formatting functions of the four tutorials to records of our own (Python 3, no packages).

    python app/tests/recipes/vectors.py > app/tests/recipes/vectors.json
"""

import json

PREAMBLE = "Below is an instruction that describes a task. Write a response that appropriately completes the request."


def chat(sample):
    """A: SFTTrainer(dataset_text_field="chat_sample")."""
    return sample["chat_sample"]


def create_prompt(sample):
    """B: SFTTrainer(formatting_func=create_prompt). The roles are swapped: the answer is given, the question is learned."""
    bos_token = "<s>"
    original_system_message = PREAMBLE
    system_message = (
        "[INST]Use the provided input to create an instruction that could have been used to generate the response "
        "with an LLM."
    )
    response = (
        sample["prompt"]
        .replace(original_system_message, "")
        .replace("\n\n### Instruction\n", "")
        .replace("\n### Response\n", "")
        .strip()
    )
    given = sample["response"]
    eos_token = "</s>"
    return bos_token + system_message + "\n" + given + "[/INST]" + response + eos_token


def create_text_row(instruction, output, input):
    """C: the format that the tutorial prints."""
    return f"<s>[INST] {instruction} here are the inputs {input} [/INST] \n {output} </s>"


def create_text_row_of_the_notebook(instruction, output, input):
    """C: the notebook's cell. It escapes the backslash, so the text has a backslash and an n instead of a line break."""
    return f"<s>[INST] {instruction} here are the inputs {input} [/INST] \\n {output} </s>"


def code(sample):
    return create_text_row(sample["instruction"], sample["output"], sample["input"])


def code_as_called(sample):
    """C: the notebook's call, whose second argument is the input although the second parameter is `output`."""
    return create_text_row_of_the_notebook(sample["instruction"], sample["input"], sample["output"])


def korean(sample):
    """D: SFTTrainer(dataset_text_field="text")."""
    return sample["text"]


TASKS = [
    ("Name a color.", "", "Blue."),
    ("Add the numbers.\n1 and 2", "x = [1]\n", "  The sum is 3.\n"),
    ("한국의 수도는?", "지도", "서울입니다. {{ not a template }} <b>\u00a0&amp;"),
    ("Say </s> and <s> as text.", "[/INST]", "I say </s> {% if %}."),
    ("", "", ""),
]
DIALOGS = [
    "The conversation between a person and a helper. [INST] Name a color.\n[/INST] Blue.",
    "One. [INST] a\n[/INST] b\n[INST]c\n[/INST]d",
    "한국의 수도는? [/INST] 서울",
    " spaces at both ends \n",
]
TEXTS = [
    "<usr> 한국의 수도는?\n<bot> 서울입니다.",
    "<usr> a\n<bot> b\n<usr> c\n<bot> d",
    "<usr>\tone {{ two }}\n\n<bot> \u00a0three",
]


def cases(function, records):
    return [{"record": record, "text": function(record)} for record in records]


def prompts():
    for task, _, answer in TASKS:
        yield {"prompt": f"{PREAMBLE}\n\n### Instruction\n{task}\n\n### Response\n", "response": answer, "source": "own"}
    # Without the preamble, and with it twice: `replace` takes every occurrence.
    yield {"prompt": "What is this?", "response": "A question.", "source": "own"}
    yield {"prompt": f"{PREAMBLE}{PREAMBLE}\n### Response\n x ", "response": "y", "source": "own"}


alpaca = [{"instruction": task, "input": given, "output": answer} for task, given, answer in TASKS]
alpaca.append({"output": "None is a word.", "instruction": "Say nothing.", "input": None})
print(json.dumps({
    "a-mistral-chat": cases(chat, [{"chat_sample": text, "dataset_origin": "own"} for text in DIALOGS]),
    "b-mixtral-instructions": cases(create_prompt, prompts()),
    "c-mistral-code": cases(code, alpaca),
    "c-mistral-code as the notebook calls it": cases(code_as_called, alpaca),
    "d-llama-korean": cases(korean, [{"source": "own", "text": text} for text in TEXTS]),
}, indent=1))
