"""Trains one model and writes build/<skill>.npz (float32) and build/<skill>.json.

    python -m recipe.train --skill reverse --steps 12000 --seed 1

The last part of the training sees rounded weights (see fakequant.py), while the
float32 master weights keep learning.
"""

import argparse
import json
import math
import time
from pathlib import Path
from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from .data import ROOT, prompt_ids, read_held_out, row
from .fakequant import fake_quantize
from .model import chat_mask, greedy, hidden_states, logits, new_weights, rope_table
from .skills import SKILLS
from .tokenizer import EOS, token_id, tokenizer, vocabulary


class Rows(IterableDataset):
    """Endless batches of training rows; each worker has its own seed."""

    def __init__(self, skill, args):
        self.skill, self.args = skill, args

    def __iter__(self):
        worker = get_worker_info()
        rng = Random(f"{self.args.seed}/{self.skill.name}/{worker.id if worker else 0}")
        while True:
            batch = [row(rng, self.skill, self.args.length + 1) for _ in range(self.args.batch)]
            yield torch.tensor(batch, dtype=torch.int16).transpose(0, 1).contiguous()


def loss_of(weights, batch, table, quantized):
    """Mean cross-entropy over the tokens of the answers."""
    ids, wanted, doc = batch.long()
    if quantized:
        weights = fake_quantize(weights)
    with torch.autocast(ids.device.type, torch.bfloat16):
        hidden = hidden_states(weights, ids[:, :-1], chat_mask(doc[:, :-1]), table)
        scores = logits(weights, hidden)
    each = F.cross_entropy(scores.float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    wanted = wanted[:, 1:].flatten().float()
    return (each * wanted).sum() / wanted.sum()


def learning_rate(step, args):
    """Linear warm-up, then a cosine down to a fiftieth."""
    if step < args.warmup:
        return args.lr * (step + 1) / args.warmup
    done = (step - args.warmup) / max(1, args.steps - args.warmup)
    return args.lr * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))


def answers(weights, examples):
    """Greedy answers as text, in slices that fit into memory."""
    stop, out = token_id(EOS), []
    for start in range(0, len(examples), 250):
        prompts = [prompt_ids(e["messages"]) for e in examples[start : start + 250]]
        out += greedy(weights, prompts, stop)
    return [tokenizer().decode(ids, skip_special_tokens=False) for ids in out]


def right(weights, examples):
    given = answers(weights, examples)
    return sum(g == e["answer"] for g, e in zip(given, examples)), given


def optimizer_for(weights, args):
    matrices = [w for w in weights.values() if w.dim() == 2]
    vectors = [w for w in weights.values() if w.dim() == 1]
    groups = [{"params": matrices, "weight_decay": args.decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.98), fused=args.device == "cuda")


def train(weights, args, examples):
    """The training loop. Returns the number of steps done."""
    optimizer, table = optimizer_for(weights, args), rope_table(args.length, args.device)
    step_loss = torch.compile(loss_of) if args.compile else loss_of
    loader = iter(DataLoader(Rows(SKILLS[args.skill], args), batch_size=None,
                             num_workers=args.workers, prefetch_factor=8 if args.workers else None))
    began, quant_from = time.time(), int(args.quant_from * args.steps)
    for step in range(args.steps):
        quantized = step >= quant_from
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, args)
        loss = step_loss(weights, next(loader).to(args.device), table, quantized)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights.values(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % args.report == 0 or step == args.steps - 1:
            seen = fake_quantize(weights) if quantized else weights
            score, _ = right(seen, examples[:200])
            print(f"{args.skill} step {step} of {args.steps} loss {loss.item():.5f} "
                  f"held-out {score}/{len(examples[:200])} {'rounded' if quantized else 'float'} "
                  f"{time.time() - began:.0f} s", flush=True)
        if args.seconds and time.time() - began > args.seconds:
            break
    return step + 1


def save(weights, args, steps, seconds, examples):
    """Checkpoint, and what the model answered on the held-out prompts."""
    args.out.mkdir(parents=True, exist_ok=True)
    np.savez(args.out / f"{args.skill}.npz", **{n: w.detach().cpu().numpy() for n, w in weights.items()})
    exact, given = right(weights, examples)
    rounded, _ = right(fake_quantize(weights), examples)
    note = {"skill": args.skill, "seed": args.seed, "steps": steps, "seconds": round(seconds),
            "examples": len(examples), "float": exact, "rounded": rounded, "answers": given}
    (args.out / f"{args.skill}.json").write_text(json.dumps(note) + "\n", encoding="utf-8")
    print(f"{args.skill}: done, {steps} steps, {seconds:.0f} s, held-out float {exact}, rounded {rounded}, "
          f"of {len(examples)}", flush=True)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--skill", required=True, choices=SKILLS)
    parser.add_argument("--steps", type=int, default=12000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--batch", type=int, default=32, help="rows in a step")
    parser.add_argument("--length", type=int, default=1024, help="tokens in a row")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--warmup", type=int, default=300)
    parser.add_argument("--decay", type=float, default=0.05)
    parser.add_argument("--quant-from", type=float, default=0.5, help="share of the steps without rounding")
    parser.add_argument("--workers", type=int, default=5)
    parser.add_argument("--report", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=0, help="stop after this long (0: never)")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=ROOT / "build")
    return parser.parse_args()


def main():
    args = arguments()
    torch.set_float32_matmul_precision("high")
    start = new_weights(len(vocabulary()[0]), args.seed)
    weights = {n: w.to(args.device).requires_grad_() for n, w in start.items()}
    examples = read_held_out(args.skill)
    began = time.time()
    steps = train(weights, args, examples)
    save(weights, args, steps, time.time() - began, examples)


if __name__ == "__main__":
    main()
