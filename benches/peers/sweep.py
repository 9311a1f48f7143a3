"""A whole sweep beside PyTorch: four methods at six lengths on the built-in model, as many tokens in each cell.

    python3 benches/peers/sweep.py [--rounds 3] [--tokens 32768]

from the root of the repository, after `cargo build --release`. Longspan is timed from its start to its end, figures and
tables included; PyTorch without its own start and without reading the weights. The text is the source code of this
repository. The mean losses of all cells are compared.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

from run import HERE, LONGSPAN, WORK, run

MODEL = Path("model/tiny")
LENGTHS = [1024, 2048, 4096, 8192, 16384, 32768]
WINDOW = 1024
METHODS = {
    "plain": {},
    "+ dynamic_ntk": {"ntk": True},
    "+ dynamic_ntk + logn": {"ntk": True, "logn": True},
    "+ dynamic_ntk + logn + window_attn": {"ntk": True, "logn": True, "window": WINDOW},
}


def config(text, tokens):
    lines = [f'[model]\npath = "builtin:tiny"\n[data]\npath = "{text}"']
    lines.append(f"[perplexity]\nlengths = {LENGTHS}\nmax_tokens = {tokens}")
    for name, method in METHODS.items():
        lines.append(f'[[method]]\nname = "{name}"')
        if "ntk" in method:
            lines.append('rope = { kind = "dynamic_ntk" }')
        if "logn" in method:
            lines.append("logn = true")
        if "window" in method:
            lines.append(f"window = {{ layers = [[6, {WINDOW}]] }}")
    path = WORK / "sweep.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=32768, help="tokens of a cell, a multiple of the longest length")
    arguments = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    text, tokens, cells = WORK / "sweep.txt", WORK / "sweep.jsonl", WORK / "cells.json"
    sources = sorted(path for folder in ["rope", "attention", "kernels", "model"] for path in Path(folder).rglob("*.rs"))
    text.write_text("".join(path.read_text() for path in sources))
    ids, _, _ = run([LONGSPAN, "tokenize", "--tokenizer", MODEL / "qwen.tiktoken", "--file", text])
    ids = json.loads(ids)[: arguments.tokens]
    assert len(ids) == arguments.tokens, f"the text has only {len(ids)} tokens"
    tokens.write_text(json.dumps(ids) + "\n")
    cells.write_text(json.dumps([{"length": n, **method} for method in METHODS.values() for n in LENGTHS]))
    sweep = config(text, arguments.tokens)
    ours, theirs = [], []
    for round in range(arguments.rounds):
        out = WORK / f"sweep-{time.time_ns()}"
        start = time.perf_counter()
        run([LONGSPAN, "run", sweep, "--out", out])
        ours.append(time.perf_counter() - start)
        measured, _, _ = run([sys.executable, HERE / "torch_qwen.py", MODEL, tokens, "--cells", cells])
        measured = json.loads(measured)
        theirs.append(measured["seconds"])
        print(f"round {round}: {ours[-1]:.1f} s, PyTorch {theirs[-1]:.1f} s", file=sys.stderr)
        records = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
        found = {(record["method"], record["length"]): record["nll"] for record in records}
        order = [(name, n) for name in METHODS for n in LENGTHS]
        apart = max(abs(found[cell] - nll) for cell, nll in zip(order, measured["nll"]))
        print(f"largest difference of a cell's mean loss: {apart:.1e}", file=sys.stderr)
    ratios = [b / a for a, b in zip(ours, theirs)]
    print("| longspan, s | PyTorch, s | ratio (smallest to largest) |\n|---:|---:|---:|")
    ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    print(f"| {statistics.median(ours):.0f} | {statistics.median(theirs):.0f} | {ratio} |")


if __name__ == "__main__":
    main()
