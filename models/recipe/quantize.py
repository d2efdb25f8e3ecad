"""Quantizes build/<skill>.f32.gguf to <skill>.Q3_K_M.gguf with llama.cpp's quantizer.

    python -m recipe.quantize reverse

Prints which type each tensor got.
"""

import ctypes
import sys
from collections import Counter

import gguf
import llama_cpp

from .data import ROOT
from .skills import SKILLS


def quantize(name: str) -> None:
    source, target = ROOT / "build" / f"{name}.f32.gguf", ROOT / f"{name}.Q3_K_M.gguf"
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q3_K_M
    params.nthread = 1
    code = llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params))
    if code != 0:
        raise SystemExit(f"llama_model_quantize failed on {source} with code {code}")
    print(f"{target.name}: {target.stat().st_size} bytes")
    for line in tensor_types(target):
        print(f"  {line}")


def tensor_types(path) -> list:
    """One line per tensor name (layers folded together) with its types."""
    reader = gguf.GGUFReader(str(path))
    folded, total = {}, Counter()
    for tensor in reader.tensors:
        kind = tensor.tensor_type.name
        parts = tensor.name.split(".")
        short = ".".join(p for p in parts if p != "blk" and not p.isdigit())
        folded.setdefault(short, []).append(kind)
        total[kind] += 1
    lines = [f"{short}: {' '.join(kinds)}" for short, kinds in folded.items()]
    return lines + ["tensors: " + ", ".join(f"{n} {k}" for k, n in sorted(total.items()))]


if __name__ == "__main__":
    for skill_name in sys.argv[1:] or SKILLS:
        quantize(skill_name)
