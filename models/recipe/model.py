"""The model: a small llama, written as functions over a dict of tensors.

The dict's keys are the tensor names of a GGUF file, so that export is a plain
copy. RoPE turns neighbouring pairs (2i, 2i+1), as GGUF's llama does.
"""

import torch
import torch.nn.functional as F

from .model_shape import FFN, HEAD, HEADS, HIDDEN, KV_HEADS, LAYERS, NORM_EPS, ROPE_BASE


def tensor_shapes(vocabulary: int) -> dict:
    shapes = {"token_embd.weight": (vocabulary, HIDDEN)}
    for i in range(LAYERS):
        block = {
            "attn_norm": (HIDDEN,), "ffn_norm": (HIDDEN,),
            "attn_q": (HEADS * HEAD, HIDDEN), "attn_k": (KV_HEADS * HEAD, HIDDEN),
            "attn_v": (KV_HEADS * HEAD, HIDDEN), "attn_output": (HIDDEN, HEADS * HEAD),
            "ffn_gate": (FFN, HIDDEN), "ffn_up": (FFN, HIDDEN), "ffn_down": (HIDDEN, FFN),
        }
        shapes |= {f"blk.{i}.{name}.weight": shape for name, shape in block.items()}
    return shapes | {"output_norm.weight": (HIDDEN,), "output.weight": (vocabulary, HIDDEN)}


def new_weights(vocabulary: int, seed: int) -> dict:
    """Float32 start: ones for norms, normal noise elsewhere, residual writers smaller."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in tensor_shapes(vocabulary).items():
        if len(shape) == 1:
            weights[name] = torch.ones(shape)
            continue
        std = 0.5 * shape[1] ** -0.5
        if "attn_output" in name or "ffn_down" in name:
            std /= (2 * LAYERS) ** 0.5
        weights[name] = torch.randn(shape, generator=generator) * std
    return weights


def rope_table(length: int, device) -> tuple:
    rate = ROPE_BASE ** (-torch.arange(0, HEAD, 2, device=device).float() / HEAD)
    angle = torch.outer(torch.arange(length, device=device).float(), rate)
    return angle.cos(), angle.sin()


def rope(x, table):
    """x: batch, heads, positions, HEAD."""
    cos, sin = table
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1)
    return turned.flatten(-2).to(x.dtype)


def norm(x, gain):
    return F.rms_norm(x.float(), (HIDDEN,), gain, NORM_EPS)


def attention(w, prefix, x, mask, table):
    batch, length, _ = x.shape

    def heads(name, count):
        y = F.linear(x, w[f"{prefix}.{name}.weight"])
        return y.view(batch, length, count, HEAD).transpose(1, 2)

    q, k = rope(heads("attn_q", HEADS), table), rope(heads("attn_k", KV_HEADS), table)
    v = heads("attn_v", KV_HEADS)
    k, v = (t.repeat_interleave(HEADS // KV_HEADS, dim=1) for t in (k, v))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return F.linear(out.transpose(1, 2).flatten(2), w[f"{prefix}.attn_output.weight"])


def ffn(w, prefix, x):
    gate = F.silu(F.linear(x, w[f"{prefix}.ffn_gate.weight"]))
    return F.linear(gate * F.linear(x, w[f"{prefix}.ffn_up.weight"]), w[f"{prefix}.ffn_down.weight"])


def hidden_states(w, ids, mask, table):
    x = F.embedding(ids, w["token_embd.weight"])
    for i in range(LAYERS):
        prefix = f"blk.{i}"
        x = x + attention(w, prefix, norm(x, w[f"{prefix}.attn_norm.weight"]), mask, table)
        x = x + ffn(w, prefix, norm(x, w[f"{prefix}.ffn_norm.weight"]))
    return norm(x, w["output_norm.weight"])


def logits(w, hidden):
    return F.linear(hidden, w["output.weight"])


def chat_mask(doc):
    """True where a position may look: backwards, and within its own chat."""
    length = doc.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=doc.device).tril()
    return (causal & (doc[:, :, None] == doc[:, None, :]))[:, None]


@torch.no_grad()
def greedy(w, prompts, stop, most=24):
    """Greedy answers (lists of ids, without the stop id) for a list of prompts."""
    device = w["output.weight"].device
    ends = torch.tensor([len(p) for p in prompts], device=device)
    ids = torch.zeros(len(prompts), int(ends.max()) + most, dtype=torch.long, device=device)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = torch.tensor(prompt, device=device)
    mask = chat_mask(torch.zeros_like(ids[:1]))
    table, rows = rope_table(ids.shape[1], device), torch.arange(len(prompts), device=device)
    for step in range(most):
        last = hidden_states(w, ids, mask, table)[rows, ends + step - 1]
        ids[rows, ends + step] = logits(w, last).argmax(-1)
    answers = []
    for row, end in zip(ids.tolist(), ends.tolist()):
        answer = row[end : end + most]
        answers.append(answer[: answer.index(stop)] if stop in answer else answer)
    return answers
