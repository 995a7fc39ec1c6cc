"""Records what the published chat templates give; the tests compare our own texts of them with rendered.json.

    pip install jinja2==3.1.6
    python app/tests/data/chat-templates/record.py FOLDER > app/tests/data/chat-templates/rendered.json

FOLDER holds the published Jinja texts, which are not part of this repository, as NAME.jinja:

    chatml             teknium/OpenHermes-2.5-Mistral-7B            (llama.cpp, tests/test-chat-template.cpp)
    llama-2            meta-llama/Llama-2-13b-chat-hf               (its tokenizer_config.json)
    llama-3            Meta-Llama-3-8B-Instruct                     (axolotl, chat_templates/templates/llama3.jinja)
    mistral-v1         mistralai, "v1" with a system prompt         (llama.cpp, tests/test-chat-template.cpp)
    mistral-v3         mistralai/Mistral-Large-Instruct-2407        (llama.cpp, tests/test-chat-template.cpp)
    mistral-v3-tekken  mistralai/Mistral-Nemo-Instruct-2407         (llama.cpp, tests/test-chat-template.cpp)
    mistral-v7         mistralai/Mistral-Large-Instruct-2411        (llama.cpp, tests/test-chat-template.cpp)
    alpaca             axolotl                                      (chat_templates/templates/alpaca.jinja)
    vicuna             unsloth, with its default system message     (unsloth/chat_templates.py)
    zephyr             HuggingFaceH4/zephyr-7b-beta                 (its tokenizer_config.json)
"""

import hashlib
import json
import sys
from pathlib import Path

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

NAMES = [
    "chatml", "llama-2", "llama-3", "mistral-v1", "mistral-v3", "mistral-v3-tekken", "mistral-v7", "alpaca", "vicuna",
    "zephyr",
]


def conversation(text):
    """"s: Be brief. | u: Hi" as messages."""
    roles = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}
    parts = [part.split(": ", 1) for part in text.split(" | ")]
    return [{"role": roles[role], "content": content} for role, content in parts]


CONVERSATIONS = [
    ("u: Hello", True),
    ("u: Hello | a: Hi there", False),
    ("s: Be brief. | u: Hello", True),
    ("s: Be brief. | u: Hello | a: Hi there", False),
    ("u: Hello | a: Hi there | u: Who are you?", True),
    ("u:  Hello\n  | a:    I am an assistant   | u: \n한국의 수도는?\n\n| a: 서울 {{ x }} {% y %}\n", False),
    ("s:  Be brief. \n | u: One | a: 1 | u: Two | a: 2", False),
    ("s: Be brief. | u: One | a: 1 | u: Two", True),
    ("u: One | u: Two", True),
    ("a: One | u: Two", False),
    ("u: One | t: 1", False),
]


def refuse(message):
    raise jinja2.exceptions.TemplateError(message)


def render(source, messages, add_generation_prompt):
    # As transformers sets its environment up.
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = refuse
    names = {"messages": messages, "add_generation_prompt": add_generation_prompt}
    return environment.from_string(source).render(**names, bos_token="<s>", eos_token="</s>")


def main(folder):
    templates = []
    for name in NAMES:
        source = (Path(folder) / f"{name}.jinja").read_text(encoding="utf-8")
        cases = []
        for text, prompt in CONVERSATIONS:
            case = {"messages": conversation(text), "add_generation_prompt": prompt}
            try:
                case["text"] = render(source, case["messages"], prompt)
            except jinja2.exceptions.TemplateError:
                case["text"] = None
            cases.append(case)
        digest = hashlib.sha256(source.encode()).hexdigest()
        templates.append({"name": name, "published_sha256": digest, "cases": cases})
    out = {"jinja2": jinja2.__version__, "bos_token": "<s>", "eos_token": "</s>", "templates": templates}
    json.dump(out, sys.stdout, ensure_ascii=False, indent=1)
    print()


main(sys.argv[1])
