"""The sizes of the model, shared by training and export."""

HIDDEN = 256
FFN = 768
LAYERS = 4
HEADS = 4
KV_HEADS = 2
HEAD = 64
CONTEXT = 1024
ROPE_BASE = 10000.0
NORM_EPS = 1e-5
