"""Greedy exact match on the held-out prompts.

    python -m recipe.evaluate reverse                 the quantized file, by llama.cpp
    python -m recipe.evaluate --float reverse         the float32 file in build/
    python -m recipe.evaluate --url http://127.0.0.1:8080/v1 --model reverse reverse

With --url it asks an OpenAI-compatible server and needs only the standard library.
"""

import argparse
import json
import sys
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MOST_TOKENS = 32


def by_file(path):
    """A function from messages to the answer, through llama.cpp."""
    from llama_cpp import Llama

    model = Llama(str(path), n_ctx=1024, n_threads=1, logits_all=False, verbose=False)

    def ask(messages):
        model.reset()
        reply = model.create_chat_completion(messages, temperature=0.0, max_tokens=MOST_TOKENS)
        return reply["choices"][0]["message"]["content"]

    return ask


def by_url(base, model):
    """The same through HTTP."""

    def ask(messages):
        body = {"model": model, "messages": messages, "temperature": 0, "max_tokens": MOST_TOKENS}
        request = urllib.request.Request(
            base.rstrip("/") + "/chat/completions",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as reply:
            return json.load(reply)["choices"][0]["message"]["content"]

    return ask


def examples_of(name):
    path = ROOT / "heldout" / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def score(name, ask, label, show=5):
    """Asks every held-out prompt, prints misses and the exact count."""
    examples, right = examples_of(name), 0
    for number, example in enumerate(examples, 1):
        answer = ask(example["messages"])
        if answer == example["answer"]:
            right += 1
        elif number - right <= show:
            print(f"  miss: {example['messages'][-1]['content']!r} gave {answer!r}, "
                  f"not {example['answer']!r}")
        if sys.stderr.isatty() or number % 100 == 0:
            print(f"\r{name} {number}/{len(examples)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print(f"{name}: {right}/{len(examples)} exact ({label})", flush=True)
    return right


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("skill", nargs="*", help="default: every skill with held-out prompts")
    parser.add_argument("--float", action="store_true", help="the float32 file in build/")
    parser.add_argument("--url", help="base URL of an OpenAI-compatible server")
    parser.add_argument("--model", help="the model's name there (default: the skill's name)")
    args = parser.parse_args()
    for name in args.skill or sorted(p.stem for p in (ROOT / "heldout").glob("*.jsonl")):
        if args.url:
            score(name, by_url(args.url, args.model or name), args.url)
        elif args.float:
            score(name, by_file(ROOT / "build" / f"{name}.f32.gguf"), "float32")
        else:
            score(name, by_file(ROOT / f"{name}.Q3_K_M.gguf"), "Q3_K_M")


if __name__ == "__main__":
    main()
