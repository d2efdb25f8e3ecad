#!/usr/bin/env python3
"""Makes the two small vocabularies of the tokenizer tests and the ids that llama.cpp gives for them.

    python3 make.py vocabularies              # byte_level.gguf, sentence_piece.gguf
    python3 make.py ids PATH-TO-REFERENCE     # ids.json

What is needed, and how the reference is built, stands in README.md.
"""

import json
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import texts

HERE = Path(__file__).parent
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6

# One name for each way in which texts are cut.
FAMILIES = [
    "default", "gpt-2", "smollm", "llama-bpe", "dbrx", "qwen2", "qwen35", "ufakzeka", "seed-coder",
    "minicpm5", "tekken", "gpt-4o", "falcon", "deepseek-llm", "deepseek-coder", "deepseek-v3", "viking",
    "poro-chat",
]  # fmt: skip
# Whether a space is put before a text, and the model's name.
SENTENCE_PIECES = {"plain": (True, "plain"), "no prefix": (False, "plain"), "phi-3": (True, "Phi-3 mini")}


def write(path, name, model, tokens, kinds, more):
    from gguf import GGUFWriter

    writer = GGUFWriter(str(path), "llama")
    writer.add_name(name)
    writer.add_tokenizer_model(model)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    more(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def train_byte_level():
    """Merges that cross every border: which of them can apply then shows where a text was cut."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1500, initial_alphabet=alphabet, max_token_length=7, show_progress=False
    )
    tokenizer.train_from_iterator(texts.training(), trainer)
    state = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(state["vocab"], key=state["vocab"].get)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in state["merges"]]
    return tokens, merges


def byte_level(path, trained, pre):
    tokens, merges = trained
    special = {"<|begin|>": CONTROL, "<|im_start|>": CONTROL, "<|im_end|>": CONTROL, "<tool>": USER_DEFINED, "  \n": USER_DEFINED}
    # A word that no merges make: only families that take whole words find it.
    tokens = [*tokens, "whole", "Ġwhole", *special]
    kinds = [special.get(token, NORMAL) for token in tokens]

    def more(writer):
        writer.add_tokenizer_pre(pre)
        writer.add_token_merges(merges)
        writer.add_bos_token_id(tokens.index("<|begin|>"))
        writer.add_eos_token_id(tokens.index("<|im_end|>"))

    write(path, "plain", "gpt2", tokens, kinds, more)


def train_sentence_piece():
    import sentencepiece

    with tempfile.TemporaryDirectory() as folder:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts.training()),
            model_prefix=f"{folder}/pieces",
            model_type="bpe",
            vocab_size=800,
            byte_fallback=True,
            character_coverage=0.99,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            split_digits=True,
            num_threads=1,
            minloglevel=2,
        )
        return sentencepiece.SentencePieceProcessor(model_file=f"{folder}/pieces.model")


def sentence_piece(path, trained, prefix, name):
    ids = range(trained.vocab_size())
    special = {"<|endoftext|>": CONTROL, "<|user|>": CONTROL, "<|end|>": CONTROL, "<tool>": USER_DEFINED, "  \n": USER_DEFINED}
    tokens = [trained.id_to_piece(i) for i in ids] + list(special)
    scores = [trained.get_score(i) for i in ids] + [0.0] * len(special)

    def kind(i):
        if trained.is_unknown(i):
            return UNKNOWN
        return CONTROL if trained.is_control(i) else BYTE if trained.is_byte(i) else NORMAL

    def more(writer):
        writer.add_token_scores(scores)
        writer.add_add_space_prefix(prefix)

    write(path, name, "llama", tokens, [kind(i) for i in ids] + list(special.values()), more)


def reference_ids(program, path):
    data = b"".join(struct.pack("<I", len(t.encode())) + t.encode() for t in texts.TESTED)
    done = subprocess.run([program, str(path)], input=data, capture_output=True, check=True)
    lines = done.stdout.decode().split("\n")[:-1]
    assert len(lines) == len(texts.TESTED)
    return lines


def main():
    byte_trained, piece_trained = train_byte_level(), train_sentence_piece()
    if sys.argv[1:] == ["vocabularies"]:
        byte_level(HERE / "byte_level.gguf", byte_trained, "default")
        sentence_piece(HERE / "sentence_piece.gguf", piece_trained, *SENTENCE_PIECES["plain"])
        return
    [_, _, program] = sys.argv
    ids = {"texts": texts.TESTED, "byte_level": {}, "sentence_piece": {}}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocabulary.gguf"
        for pre in FAMILIES:
            byte_level(path, byte_trained, pre)
            ids["byte_level"][pre] = reference_ids(program, path)
        for name, (prefix, model) in SENTENCE_PIECES.items():
            sentence_piece(path, piece_trained, prefix, model)
            ids["sentence_piece"][name] = reference_ids(program, path)
    (HERE / "ids.json").write_text(json.dumps(ids, ensure_ascii=True, indent=0) + "\n")


if __name__ == "__main__":
    main()
