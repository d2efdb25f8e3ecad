"""Turns build/<skill>.npz into build/<skill>.f32.gguf: weights, vocabulary, template.

    python -m recipe.export reverse
"""

import sys

import gguf
import numpy as np

from . import model_shape as shape
from .data import ROOT
from .skills import SKILLS
from .tokenizer import BOS, CHAT_TEMPLATE, EOS, PAD, merges, token_id, vocabulary


def add_model(writer, skill):
    writer.add_name(f"pensieve {skill.name}")
    writer.add_description(f"{skill.about} A tiny demo model of pensieve, made from scratch.")
    writer.add_author("the pensieve authors")
    writer.add_license("MIT OR Apache-2.0")
    writer.add_languages(["en"])
    writer.add_context_length(shape.CONTEXT)
    writer.add_embedding_length(shape.HIDDEN)
    writer.add_block_count(shape.LAYERS)
    writer.add_feed_forward_length(shape.FFN)
    writer.add_head_count(shape.HEADS)
    writer.add_head_count_kv(shape.KV_HEADS)
    writer.add_key_length(shape.HEAD)
    writer.add_value_length(shape.HEAD)
    writer.add_rope_dimension_count(shape.HEAD)
    writer.add_rope_freq_base(shape.ROPE_BASE)
    writer.add_layer_norm_rms_eps(shape.NORM_EPS)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)


def add_tokenizer(writer):
    tokens, special = vocabulary()
    plain = len(tokens) - special
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * plain + [gguf.TokenType.CONTROL] * special)
    writer.add_token_merges([f"{left} {right}" for left, right in merges()])
    writer.add_bos_token_id(token_id(BOS))
    writer.add_eos_token_id(token_id(EOS))
    writer.add_pad_token_id(token_id(PAD))
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def export(name: str) -> None:
    source, target = ROOT / "build" / f"{name}.npz", ROOT / "build" / f"{name}.f32.gguf"
    weights = np.load(source)
    writer = gguf.GGUFWriter(str(target), "llama")
    add_model(writer, SKILLS[name])
    add_tokenizer(writer)
    for tensor in weights.files:
        writer.add_tensor(tensor, weights[tensor].astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    count = sum(weights[t].size for t in weights.files)
    print(f"{target.name}: {count} parameters, {target.stat().st_size} bytes")


if __name__ == "__main__":
    for skill_name in sys.argv[1:] or SKILLS:
        export(skill_name)
