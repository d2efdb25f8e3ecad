"""The vocabulary that the whole family shares: byte-level BPE.

256 byte tokens, then the merges, then the special tokens. Every merge extends a
prefix that starts with a space or with a capital letter, so " reverse" is one
token while the letters inside a word, and all digits, stay single tokens.
"""

import functools

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from .words import FIRST, INSTRUCTION

# The split that GGUF readers use for tokenizer.ggml.pre = "llama-bpe".
# Digits never merge, so {1,3} and single digits give the same tokens.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPACE = "\u0120"  # how byte-level BPE writes a space
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>")
BOS, EOS, PAD = "<|endoftext|>", "<|im_end|>", "<|pad|>"
MULTIPLE = 64  # the vocabulary is filled with reserved special tokens up to this

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def byte_tokens() -> list:
    """The 256 printable characters that stand for bytes, in byte order."""
    plain = set(range(33, 127)) | set(range(161, 173)) | set(range(174, 256))
    spare = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(spare)) for b in range(256)]


def merges() -> list:
    """Pairs in order of rank. Chains: a space or capital, then letter by letter."""
    chains = [SPACE + mark for mark in "+=\"'?"]
    chains += [SPACE + word for word in INSTRUCTION] + list(FIRST)
    pairs = {}
    for chain in chains:
        for end in range(1, len(chain)):
            pairs[(chain[:end], chain[end])] = None
    return sorted(pairs, key=lambda pair: (len(pair[0]), list(pairs).index(pair)))


@functools.lru_cache(maxsize=1)
def vocabulary() -> tuple:
    """All tokens in id order, and how many of them, at the end, are special."""
    plain = byte_tokens() + [left + right for left, right in merges()]
    special = list(SPECIAL)
    while (len(plain) + len(special)) % MULTIPLE:
        special.append(f"<|reserved_{len(special) - len(SPECIAL)}|>")
    return plain + special, len(special)


@functools.lru_cache(maxsize=1)
def tokenizer() -> Tokenizer:
    tokens, n_special = vocabulary()
    bpe = models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges())
    tok = Tokenizer(bpe)
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tok.decoder = decoders.ByteLevel()
    tok.add_special_tokens([AddedToken(t, special=True) for t in tokens[-n_special:]])
    return tok


@functools.lru_cache(maxsize=200_000)
def encode(text: str) -> tuple:
    return tuple(tokenizer().encode(text, add_special_tokens=False).ids)


def token_id(token: str) -> int:
    return vocabulary()[0].index(token)
