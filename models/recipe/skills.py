"""The table of skills: what each model is asked, what it answers, and the split.

A skill is one entry in SKILLS: a generator of inputs, the right answer for an
input, the phrasings a user may choose, and the key that decides on which side
of the train / held-out split an input falls. A new skill is a new entry.
"""

import hashlib
from dataclasses import dataclass
from random import Random
from typing import Callable, Optional

from .words import any_word

SPLIT_SEED = "pensieve-1"


@dataclass(frozen=True)
class Skill:
    name: str
    about: str  # one sentence, copied into the model file
    sample: Callable[[Random], dict]  # random input, as the fields of a phrasing
    answer: Callable[[dict], str]
    key: Callable[[dict], Optional[str]]  # None: always on the training side
    held: float  # share of the keys that is held out
    bare: tuple  # phrasings without an instruction
    forms: tuple  # phrasings with one, lower case; "?" at the end: a question


def is_held_out(skill: Skill, fields: dict) -> bool:
    """Whether this input is on the held-out side. Depends on the input alone."""
    key = skill.key(fields)
    if key is None:
        return False
    digest = hashlib.sha256(f"{SPLIT_SEED}/{skill.name}/{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < skill.held


def draw(skill: Skill, rng: Random, held_out: bool) -> dict:
    """A random input from one side of the split."""
    while True:
        fields = skill.sample(rng)
        if is_held_out(skill, fields) == held_out:
            return fields


def phrase(skill: Skill, rng: Random, fields: dict) -> str:
    """One of the ways in which a user may ask for this input."""
    if rng.random() < 0.3:
        return rng.choice(skill.bare).format(**fields)
    form = rng.choice(skill.forms)
    question = form.endswith("?")
    if rng.random() < 0.3:
        form = form.replace(" roman", " Roman")
    if question and rng.random() < 0.3:
        form = form[:-1]
    if not form.startswith("{"):
        if not question and rng.random() < 0.15:
            form = "please " + form
        if rng.random() < 0.5:
            form = form[0].upper() + form[1:]
        if not question and rng.random() < 0.3:
            form += "."
    return form.format(**fields)


# --- reverse -----------------------------------------------------------------


def reverse_sample(rng: Random) -> dict:
    return {"x": any_word(rng, 2, 12)}


def reverse_key(fields: dict) -> Optional[str]:
    """Only words of 3 to 10 letters are held out; the rest widens the training."""
    word = fields["x"]
    return word.lower() if 3 <= len(word) <= 10 else None


# --- add ---------------------------------------------------------------------


def number(rng: Random) -> int:
    """0..9999, every count of digits about equally often, four a bit more."""
    return rng.randrange(10 ** rng.choice((1, 2, 3, 3, 4, 4)))


def add_sample(rng: Random) -> dict:
    return {"a": number(rng), "b": number(rng)}


def add_key(fields: dict) -> Optional[str]:
    """a + b and b + a share a side; sums of two single digits are all trained."""
    low, high = sorted((fields["a"], fields["b"]))
    return f"{low}+{high}" if high > 9 else None


# --- roman -------------------------------------------------------------------

ROMAN = (
    (1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"),
    (50, "L"), (40, "XL"), (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I"),
)


def roman_sample(rng: Random) -> dict:
    return {"n": rng.randint(1, rng.choice((99, 999, 3999, 3999, 3999)))}


def to_roman(number: int) -> str:
    out = ""
    for value, letters in ROMAN:
        out += letters * (number // value)
        number %= value
    return out


# --- the table ---------------------------------------------------------------

SKILLS = {
    skill.name: skill
    for skill in (
        Skill(
            name="reverse",
            about="Reverses a word.",
            sample=reverse_sample,
            answer=lambda f: f["x"][::-1],
            key=reverse_key,
            held=0.05,
            bare=("{x}",),
            forms=(
                "reverse {x}", "reverse: {x}", 'reverse "{x}"', "reverse the word {x}",
                'reverse the word "{x}"', "reverse the word '{x}'", "reverse this word: {x}",
                "reverse the letters of {x}", 'reverse the letters in "{x}"',
                "{x} reversed", "{x} backwards", "{x} in reverse", "spell {x} backwards",
                'spell "{x}" backwards', "write {x} backwards", 'write "{x}" in reverse',
                "say {x} backwards", "what is {x} reversed?", "what is {x} backwards?",
                'what is "{x}" backwards?', "what is the reverse of {x}?",
                "can you reverse {x}?", 'can you reverse the word "{x}"?',
                "how do you spell {x} backwards?",
            ),
        ),
        Skill(
            name="add",
            about="Adds two non-negative integers of up to four digits.",
            sample=add_sample,
            answer=lambda f: str(f["a"] + f["b"]),
            key=add_key,
            held=0.05,
            bare=("{a} + {b}", "{a} + {b}", "{a}+{b}", "{a} + {b} =", "{a}+{b}=", "{a} + {b} = ?"),
            forms=(
                "{a} plus {b}", "add {a} and {b}", "add {a} to {b}", "add {a} + {b}",
                "add the numbers {a} and {b}", "add: {a} + {b}", "sum of {a} and {b}",
                "the sum of {a} and {b}", "sum {a} and {b}", "compute {a} + {b}",
                "compute {a} plus {b}", "calculate {a} + {b}", "calculate {a} plus {b}",
                "what is {a} plus {b}?", "what is {a} + {b}?", "what's {a} + {b}?",
                "what is the sum of {a} and {b}?", "how much is {a} plus {b}?",
                "how much is {a} + {b}?", "can you add {a} and {b}?",
            ),
        ),
        Skill(
            name="roman",
            about="Writes an integer from 1 to 3999 as a Roman numeral.",
            sample=roman_sample,
            answer=lambda f: to_roman(f["n"]),
            key=lambda f: str(f["n"]),
            held=0.125,
            bare=("{n}",),
            forms=(
                "{n} in roman numerals", "{n} in roman", "{n} as a roman numeral",
                "{n} to roman", "roman {n}", "roman: {n}", "roman numeral for {n}",
                "the roman numeral for {n}", "write {n} as a roman numeral",
                "write {n} in roman numerals", "write the number {n} in roman numerals",
                "convert {n} to roman numerals", "convert {n} to a roman numeral",
                "convert {n} to roman", "turn {n} into a roman numeral",
                "change {n} to roman numerals", "what is {n} in roman numerals?",
                "what is {n} as a roman numeral?", "what is the roman numeral for {n}?",
                "how do you write {n} in roman numerals?", "how is {n} written in roman numerals?",
                "can you write {n} in roman numerals?",
            ),
        ),
    )
}
