"""Fake quantization: rounds weights as llama.cpp's Q3_K_M mix will round them.

Each function takes blocks of 256 weights and returns what a reader of the file
would see. The gradient passes straight through. The searches for scales are
shorter than llama.cpp's; the formats (block sizes, 6-bit and 8-bit scales,
half-precision super-scales) are the real ones.
"""

import torch

TINY = 1e-12


def kind(name: str) -> str:
    """The type llama.cpp gives a tensor in a Q3_K_M file of this model."""
    if name == "output.weight":
        return "q6"
    if "attn_v" in name:
        return "q5" if int(name.split(".")[1]) < 2 else "q4"
    if "attn_output" in name or "ffn_down" in name:
        return "q4"
    return "q3"


def away_from_zero(x):
    """x, with values too small to divide by replaced."""
    return torch.where(x.abs() < TINY, torch.full_like(x, TINY), x)


def largest(x, dim):
    """The entry of largest magnitude along dim, with its sign, dim kept."""
    return x.gather(dim, x.abs().argmax(dim, keepdim=True))


def half(x):
    return x.half().float()


def symmetric(x, low, high, scale_low, scale_high, refine):
    """Blocks of 16 with one signed scale each; scales are integers times a half."""
    x = x.view(-1, 16, 16)
    scale = away_from_zero(largest(x, 2) / low)
    for _ in range(refine):
        level = (x / scale).round().clamp(low, high)
        weight = x * x
        best = (weight * x * level).sum(2, keepdim=True) / away_from_zero(
            (weight * level * level).sum(2, keepdim=True))
        scale = away_from_zero(best)
    unit = away_from_zero(half(largest(scale, 1) / scale_low))
    scale = unit * (scale / unit).round().clamp(scale_low, scale_high)
    level = (x / away_from_zero(scale)).round().clamp(low, high)
    return (scale * level).view(-1, 256)


def fit(x, weight, level):
    """Weighted least squares for x = scale * level - minimum, minimum >= 0."""
    w, l = weight.sum(2, keepdim=True), (weight * level).sum(2, keepdim=True)
    ll = (weight * level * level).sum(2, keepdim=True)
    sx, lx = (weight * x).sum(2, keepdim=True), (weight * level * x).sum(2, keepdim=True)
    det = away_from_zero(w * ll - l * l)
    scale, low = (w * lx - sx * l) / det, (ll * sx - l * lx) / det
    positive = low > 0
    scale = torch.where(positive, lx / away_from_zero(ll), scale)
    return scale, torch.where(positive, torch.zeros_like(low), low)


def affine(x, levels, tries):
    """Blocks of 32 with a scale and a minimum each, both 6-bit times a half."""
    x = x.view(-1, 8, 32)
    weight = x.square().mean(2, keepdim=True).sqrt() + x.abs()
    low = x.amin(2, keepdim=True).clamp(max=0)
    span = away_from_zero(x.amax(2, keepdim=True) - low)
    best_scale, best_low, best_error = span / levels, low, None
    for shift in tries:
        level = ((x - low) * ((levels + shift) / span)).round().clamp(0, levels)
        scale, start = fit(x, weight, level)
        error = (weight * (scale * level + start - x).square()).sum(2, keepdim=True)
        better = torch.ones_like(error, dtype=torch.bool) if best_error is None else error < best_error
        best_scale = torch.where(better, scale, best_scale)
        best_low = torch.where(better, start, best_low)
        best_error = error if best_error is None else torch.minimum(error, best_error)
    unit = away_from_zero(half(best_scale.amax(1, keepdim=True) / 63))
    low_unit = away_from_zero(half((-best_low).amax(1, keepdim=True) / 63))
    scale = away_from_zero(unit * (best_scale / unit).round().clamp(0, 63))
    minimum = low_unit * (-best_low / low_unit).round().clamp(0, 63)
    level = ((x + minimum) / scale).round().clamp(0, levels)
    return (scale * level - minimum).view(-1, 256)


ROUND = {
    "q3": lambda x: symmetric(x, -4, 3, -32, 31, refine=3),
    "q4": lambda x: affine(x, 15, (-0.8, -0.3, 0.2, 0.7)),
    "q5": lambda x: affine(x, 31, (-0.4, 0.0, 0.5)),
    "q6": lambda x: symmetric(x, -32, 31, -128, 127, refine=1),
}


def fake_quantize(weights: dict) -> dict:
    """All matrices rounded, each by its type; vectors stay as they are."""
    groups = {}
    for name, tensor in weights.items():
        if tensor.dim() == 2:
            groups.setdefault(kind(name), []).append(name)
    out = dict(weights)
    for group, names in groups.items():
        with torch.no_grad():
            flat = torch.cat([weights[n].reshape(-1, 256) for n in names])
            parts = ROUND[group](flat).split([weights[n].numel() // 256 for n in names])
        for name, part in zip(names, parts):
            master = weights[name]
            out[name] = master + (part.view_as(master) - master).detach()
    return out
