"""Chats: training rows as token ids, and the held-out files.

    python -m recipe.data [skill ...]   writes heldout/<skill>.jsonl
"""

import json
import sys
from pathlib import Path
from random import Random

from .skills import SKILLS, Skill, draw, is_held_out, phrase
from .tokenizer import encode
from .words import INSTRUCTION, pronounceable

ROOT = Path(__file__).resolve().parent.parent
HELD_OUT_SEED = 20240
HELD_OUT_SIZE = 500

SYSTEM = (
    "You are a helpful assistant.",
    "You are a careful assistant. Answer with the result only.",
    "Answer with the result only.",
    "Keep the answer short.",
    "Be short.",
    "You give only the answer.",
    "You are a helpful assistant. Keep it short, please.",
)


def system_message(rng: Random, skill: Skill) -> str:
    """A fixed sentence, what the skill does, or a sentence of random words."""
    kind = rng.random()
    if kind < 0.4:
        return rng.choice(SYSTEM)
    if kind < 0.55:
        return skill.about
    words = [
        rng.choice(INSTRUCTION) if rng.random() < 0.8 else pronounceable(rng, rng.randint(3, 9))
        for _ in range(rng.randint(2, 15))
    ]
    return (" ".join(words)).capitalize() + "."


def turns_of(rng: Random) -> int:
    """Questions in one chat: mostly one, sometimes a few, sometimes a full context."""
    kind = rng.random()
    if kind < 0.6:
        return 1
    if kind < 0.85:
        return rng.randint(2, 5)
    return rng.randint(6, 16) if kind < 0.97 else rng.randint(17, 40)


def chat(rng: Random, skill: Skill, held_out: bool, turns: int) -> list:
    """A whole chat as messages; the last one is the assistant's."""
    messages = []
    if rng.random() < 0.3:
        messages.append({"role": "system", "content": system_message(rng, skill)})
    for _ in range(turns):
        fields = draw(skill, rng, held_out)
        assert is_held_out(skill, fields) == held_out
        messages.append({"role": "user", "content": phrase(skill, rng, fields)})
        messages.append({"role": "assistant", "content": skill.answer(fields)})
    return messages


def render(messages: list) -> tuple:
    """Token ids of a chat, and for each id whether the model must predict it."""
    ids, wanted = [], []

    def put(text: str, want: bool) -> None:
        part = encode(text)
        ids.extend(part)
        wanted.extend([want] * len(part))

    for message in messages:
        put("<|im_start|>" + message["role"] + "\n", False)
        put(message["content"], message["role"] == "assistant")
        put("<|im_end|>", message["role"] == "assistant")
        put("\n", False)
    return ids, wanted


def row(rng: Random, skill: Skill, length: int) -> tuple:
    """One training row: chats one after the other, cut to the length.

    Returns ids, wanted flags, and the number of the chat that each id is in.
    """
    ids, wanted, doc = [], [], []
    number = 0
    while len(ids) < length:
        more_ids, more_wanted = render(chat(rng, skill, False, turns_of(rng)))
        ids += more_ids
        wanted += more_wanted
        doc += [number] * len(more_ids)
        number += 1
    return ids[:length], wanted[:length], doc[:length]


def prompt_ids(messages: list) -> list:
    """What the model is given before it answers."""
    return render(messages)[0] + list(encode("<|im_start|>assistant\n"))


def held_out_examples(skill: Skill) -> list:
    """HELD_OUT_SIZE prompts whose every input, history included, is held out."""
    rng = Random(f"{HELD_OUT_SEED}/{skill.name}")
    examples = []
    for number in range(HELD_OUT_SIZE):
        turns = 1 if number % 4 else rng.randint(2, 6)
        messages = chat(rng, skill, True, turns)
        examples.append({"messages": messages[:-1], "answer": messages[-1]["content"]})
    return examples


def read_held_out(name: str) -> list:
    path = ROOT / "heldout" / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    (ROOT / "heldout").mkdir(exist_ok=True)
    for name in sys.argv[1:] or SKILLS:
        lines = [json.dumps(e, ensure_ascii=False) for e in held_out_examples(SKILLS[name])]
        (ROOT / "heldout" / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"heldout/{name}.jsonl: {len(lines)} examples")


if __name__ == "__main__":
    main()
