"""Generating one token after the other beside llama.cpp: random weights in the shape of Qwen-1.8B, alternating.

    python3 benches/peers/decode.py [--rounds 5] [--tokens 32]

from the root of the repository, after `cargo build --release`. BF16 beside BF16, Int4 (groups of 128) beside Q4_0, keys and
values in F32. Writes 9 GB to target/peers once.
"""

import argparse
import json
import statistics
import sys

from run import HERE, LONGSPAN, WORK, run

KINDS = {"BF16": ["bf16"], "Int4": ["f16", "--quant", "int4"]}
GGUF = {"BF16": "BF16", "Int4": "Q4_0"}


def checkpoint(kind):
    folder = WORK / f"qwen-1.8b-{kind}"
    if not (folder / "config.json").exists():
        run([LONGSPAN, "random-checkpoint", folder, "--shape", "qwen-1.8b", "--dtype", *KINDS[kind]])
    return folder


def longspan(kind, tokens):
    out, _, _ = run([LONGSPAN, "profile", "--model", checkpoint(kind), "--tokens", tokens, "--prefill", 1])
    # The last row of the last of its own tables: "| tokens | tokens/s | peak memory |".
    rows = [line.split("|") for line in out.splitlines() if line.startswith(f"| {tokens} |")]
    return float(rows[-1][2])


def llama(kind, tokens, *flash):
    script, gguf = [sys.executable, HERE / "llama_qwen.py"], WORK / f"qwen-1.8b-{GGUF[kind]}.gguf"
    if not gguf.exists():
        run([*script, "convert", checkpoint("BF16"), gguf, GGUF[kind]])
    out, _, _ = run([*script, "decode", gguf, tokens, *flash])
    measured = json.loads(out)
    return measured["tokens"] / measured["seconds"]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=32)
    arguments = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    rates = {}
    for _ in range(arguments.rounds):
        for kind in KINDS:
            rates.setdefault((kind, "longspan"), []).append(longspan(kind, arguments.tokens))
            rates.setdefault((kind, "llama.cpp"), []).append(llama(kind, arguments.tokens))
            print({f"{kind} {program}": f"{rate[-1]:.2f}" for (kind, program), rate in rates.items()}, file=sys.stderr)
    print("| weights | longspan, tokens/s | llama.cpp, tokens/s | ratio (smallest to largest) |")
    print("|---|---:|---:|---:|")
    for kind in KINDS:
        ours, theirs = rates[kind, "longspan"], rates[kind, "llama.cpp"]
        row(f"{kind}, llama.cpp's {GGUF[kind]}", ours, theirs)
    row("Int4 beside our own BF16", rates["Int4", "longspan"], rates["BF16", "longspan"])


def row(what, ours, theirs):
    ratios = [a / b for a, b in zip(ours, theirs)]
    ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    print(f"| {what} | {statistics.median(ours):.2f} | {statistics.median(theirs):.2f} | {ratio} |")


if __name__ == "__main__":
    main()
