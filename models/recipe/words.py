"""Words: the instruction words behind the vocabulary, and random words to spell.

Random words are made by rule, so no word list is downloaded.
"""

from random import Random

# Words of instructions, for these skills and for ones that may come later.
# The vocabulary holds each with a space in front, and the ones in FIRST also
# with a capital.
INSTRUCTION = """
a add all alphabet an and answer are as assistant at backwards be binary by calculate
can careful change character code compute consonants convert count decimal difference
digit digits divided do does double each even expression first following for from give
greater half helpful hexadecimal how in into is it keep largest last length letter
letters list lower lowercase many minus much multiply next no number numbers numeral
numerals odd of one only or order out plus please prime product question remainder
remove repeat replace result reverse reversed roman say sentence sequence short
shortest smallest sort spell square string subtract sum system tell text than that the
then these this times to turn twice two up uppercase user vowels what which with
without word words write written yes you your
""".split()

FIRST = """
Add Answer Be Calculate Can Change Compute Convert Count Divide Double Find Give How Is
List Make Multiply Please Remove Repeat Replace Reply Return Reverse Roman Say Sort
Spell Subtract Sum Tell The Turn What Which Write You
""".split()

COMMON = """
apple bread chair dream eagle flame grape house island jungle kitten lemon mirror night
ocean paper queen river stone table umbrella violet water yellow zebra anchor bottle
candle dragon engine forest garden hammer insect jacket kernel ladder magnet needle
orange pencil quartz rabbit silver tunnel valley window copper basket bridge castle
cat dog sun moon tree bird fish lamp door wall rain snow wind fire leaf root seed sand
memory server model token spirit pensieve library thunder whisper blanket journey
mountain notebook elephant hospital language computer keyboard sandwich triangle
hello world happy green purple winter summer spring autumn morning evening banana
cherry tomato potato carrot pepper butter cheese coffee sugar honey level radar noon
""".split()

VOWELS = "aeiou"
CONSONANTS = "bcdfghjklmnpqrstvwxyz"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
ONSETS = tuple(CONSONANTS) + ("br", "ch", "cl", "dr", "fl", "gr", "pl", "pr", "sh", "st", "th", "tr")
CODAS = ("", "", "", "n", "r", "s", "t", "l", "m", "ck", "nd", "st", "ng")


def pronounceable(rng: Random, length: int) -> str:
    """Random syllables, cut to the length."""
    word = ""
    while len(word) < length:
        word += rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(CODAS)
    return word[:length]


def letters(rng: Random, length: int) -> str:
    return "".join(rng.choice(LETTERS) for _ in range(length))


def word_like_instruction(rng: Random, length: int) -> str:
    """Starts like an instruction word, so that every vocabulary entry gets spelled."""
    start = rng.choice(INSTRUCTION)[:length]
    start = start[: rng.randint(1, len(start))]
    return start + letters(rng, length - len(start))


def any_word(rng: Random, shortest: int, longest: int) -> str:
    """A random word of some kind; now and then capitalised or in capitals."""
    length = rng.randint(shortest, longest)
    kind = rng.random()
    if kind < 0.45:
        word = pronounceable(rng, length)
    elif kind < 0.80:
        word = letters(rng, length)
    elif kind < 0.93:
        word = word_like_instruction(rng, length)
    else:
        word = rng.choice(COMMON)
    case = rng.random()
    if case < 0.06:
        return word.capitalize()
    return word.upper() if case < 0.08 else word
