"""Longspan beside its peers: the same checkpoint, tokens and method, in one run, alternating.

    python3 benches/peers/run.py [--rounds 5] [--models tiny 200m] [--lengths 512 2048 8192 32768]

from the root of the repository, after `cargo build --release`. Writes a Markdown table to standard output and all
measurements to target/peers/measured.jsonl. A peer that cannot be run is reported and left out.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
WORK = Path("target/peers")
LONGSPAN = Path("target/release/longspan")
# Tokens fed by one process: several sequences where they are short, so that starting up does not count.
FED = {"tiny": 65536, "200m": 4096}
# Tokens that every layer sees in the row that shows what windows save.
WINDOW = 1024
WINDOWED = f"longspan, window {WINDOW:,}"
# 12 layers, 1,024 wide, 16 heads of 64, vocabulary 32,000: about 200 million parameters.
SHAPE_200M = {
    "model_type": "qwen",
    "vocab_size": 32000,
    "hidden_size": 1024,
    "num_hidden_layers": 12,
    "num_attention_heads": 16,
    "kv_channels": 64,
    "intermediate_size": 5504,
    "seq_length": 2048,
    "rotary_emb_base": 10000.0,
    "layer_norm_epsilon": 1e-6,
}


def run(command):
    """Standard output and error, and the largest resident set in bytes."""
    out, error = WORK / "out", WORK / "error"
    with open(out, "w") as stdout, open(error, "w") as stderr:
        process = subprocess.Popen([str(part) for part in command], stdout=stdout, stderr=stderr)
        _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise RuntimeError(f"{command[0]}: {error.read_text()[-400:]}")
    return out.read_text(), error.read_text(), usage.ru_maxrss * 1024


def longspan(model, tokens, window=None):
    methods, nll = WORK / "methods.toml", WORK / "nll.jsonl"
    window = f"window = {{ layers = [[{layers_of(model)}, {window}]] }}\n" if window else ""
    methods.write_text(f'[[method]]\nname = "it"\n{window}')
    command = [LONGSPAN, "score", "--model", model, "--methods", methods, "--tokens", tokens, "--dtype", "f32"]
    _, error, peak = run([*command, "--out", nll])
    # "... N tokens in S s (T tokens/s): FILE"
    words = error.split(" tokens in ")
    seconds = float(words[-1].split(" s ")[0])
    losses = [x for line in nll.read_text().splitlines() for x in json.loads(line)["nll"]]
    fed = int(words[-2].split()[-1])
    return {"seconds": seconds, "tokens": fed, "nll": statistics.fmean(losses), "peak": peak}


def longspan_window(model, tokens):
    return longspan(model, tokens, WINDOW)


def torch(model, tokens):
    out, _, peak = run([sys.executable, HERE / "torch_qwen.py", model, tokens])
    return {**json.loads(out), "peak": peak}


def llama(model, tokens, *flash):
    gguf = WORK / f"{model.name}-f32.gguf"
    script = [sys.executable, HERE / "llama_qwen.py"]
    if not gguf.exists():
        run([*script, "convert", model, gguf, "F32"])
    out, _, peak = run([*script, "score", gguf, tokens, *flash])
    return {**json.loads(out), "peak": peak}


def llama_flash(model, tokens):
    return llama(model, tokens, "--flash")


PROGRAMS = {
    "longspan": longspan,
    WINDOWED: longspan_window,
    "PyTorch": torch,
    "llama.cpp": llama,
    "llama.cpp, flash": llama_flash,
}


def layers_of(model):
    return json.loads((model / "config.json").read_text())["num_hidden_layers"]


def checkpoint(name):
    if name == "tiny":
        return Path("model/tiny")
    folder = WORK / name
    if not (folder / "config.json").exists():
        shape = WORK / f"{name}.json"
        shape.write_text(json.dumps(SHAPE_200M))
        run([LONGSPAN, "random-checkpoint", folder, "--config", shape, "--dtype", "f32"])
    return folder


def tokens_of(model, length, fed):
    """As many sequences of random tokens as make up `fed`, at least one."""
    vocabulary = json.loads((model / "config.json").read_text())["vocab_size"]
    source = random.Random(length)
    path = WORK / f"{model.name}-{length}.jsonl"
    lines = [
        json.dumps([source.randrange(vocabulary) for _ in range(length)]) for _ in range(max(1, fed // length))
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", nargs="+", default=["tiny", "200m"])
    parser.add_argument("--lengths", nargs="+", type=int, default=[512, 2048, 8192, 32768])
    parser.add_argument("--programs", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    arguments = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    programs = list(dict.fromkeys(["longspan", *arguments.programs]))
    print("| model | tokens | program | tokens/s | peak MiB | ratio to longspan (smallest to largest) |")
    print("|---|---|---|---|---|---|")
    for name in arguments.models:
        model = checkpoint(name)
        for length in arguments.lengths:
            tokens = tokens_of(model, length, FED[name])
            found = {program: [] for program in programs}
            for _ in range(arguments.rounds):
                for program in list(programs):
                    try:
                        measured = PROGRAMS[program](model, tokens)
                    except (RuntimeError, OSError) as problem:
                        print(f"{program} cannot be run: {problem}", file=sys.stderr)
                        programs.remove(program)
                        del found[program]
                        continue
                    measured["rate"] = measured["tokens"] / measured["seconds"]
                    found[program].append(measured)
                    line = {"model": name, "length": length, "program": program, **measured}
                    with open(WORK / "measured.jsonl", "a") as log:
                        log.write(json.dumps({**line, "at": time.time()}) + "\n")
            report(name, length, found)


def report(name, length, found):
    """One row a program; ratios are taken round by round, since the machine's speed drifts."""
    ours = found["longspan"]
    for program, measured in found.items():
        difference = abs(measured[0]["nll"] - ours[0]["nll"])
        if program != WINDOWED and difference > 1e-4:
            print(f"{program}: its mean loss differs by {difference} from longspan's", file=sys.stderr)
        ratios = [a["rate"] / b["rate"] for a, b in zip(ours, measured)]
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        rate = statistics.median(m["rate"] for m in measured)
        peak = max(m["peak"] for m in measured) / 2**20
        shown = "" if program == "longspan" else ratio
        print(f"| {name} | {length:,} | {program} | {rate:,.0f} | {peak:,.0f} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
