"""Remakes everything, in order: held-out files, training, export, quantizing, measuring.

    python -m recipe.make                 all skills, one after the other
    python -m recipe.make reverse         only these
    python -m recipe.make --device cpu    without a GPU (very slow)

All trainings use the defaults of train.py.
"""

import argparse
import subprocess
import sys

from .data import ROOT
from .skills import SKILLS


def run(*words):
    print("+ python -m", *words, flush=True)
    subprocess.run([sys.executable, "-m", *words], cwd=ROOT, check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("skill", nargs="*", help="default: all")
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()
    skills = args.skill or list(SKILLS)
    run("recipe.data", *skills)
    for name in skills:
        run("recipe.train", "--skill", name, "--device", args.device, "--compile")
    run("recipe.export", *skills)
    run("recipe.quantize", *skills)
    run("recipe.evaluate", "--float", *skills)
    run("recipe.evaluate", *skills)


if __name__ == "__main__":
    main()
