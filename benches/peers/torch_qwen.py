"""Qwen, first family, in plain PyTorch: what a careful user writes by hand.

scaled_dot_product_attention, f32, logits in blocks of rows. Prints one JSON object: seconds of all passes, tokens
fed, mean negative log likelihood.

    python3 torch_qwen.py CHECKPOINT TOKENS.jsonl
    python3 torch_qwen.py CHECKPOINT TOKENS.jsonl --cells CELLS.json     # a sweep: one pass of each cell over all tokens
"""

import json
import math
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

LOSS_ROWS = 1024


class Qwen:
    def __init__(self, folder):
        config = json.loads((folder / "config.json").read_text())
        self.layers = config["num_hidden_layers"]
        self.heads = config["num_attention_heads"]
        self.d = config["kv_channels"]
        self.base = config["rotary_emb_base"]
        self.trained = config["seq_length"]
        self.epsilon = config["layer_norm_epsilon"]
        self.weights = {}
        for shard in sorted(folder.glob("*.safetensors")):
            for name, tensor in load_file(shard).items():
                self.weights[name.removeprefix("transformer.")] = tensor.float()

    def norm(self, x, name):
        return F.rms_norm(x, x.shape[-1:], self.weights[name], self.epsilon)

    def nll(self, ids, window=None, ntk=False, logn=False):
        w, n = self.weights, len(ids)
        base = self.base
        if ntk:  # modeling_qwen.py, get_ntk_alpha
            alpha = max(1, 2 ** math.ceil(math.log2(n / self.trained) + 1) - 1)
            base *= alpha ** (self.d / (self.d - 2))
        positions = torch.arange(n, dtype=torch.float64)
        angles = torch.outer(positions, base ** (-torch.arange(0, self.d, 2, dtype=torch.float64) / self.d))
        cos, sin = (torch.cat([f(angles)] * 2, -1).float() for f in (torch.cos, torch.sin))
        mask = None
        if window is not None:
            i = torch.arange(n)
            mask = (i[None] <= i[:, None]) & (i[None] > i[:, None] - window)
        scale = 1.0
        if logn:
            scale = ((positions + 1).log() / math.log(self.trained)).clamp_min(1).float()[:, None]

        def rotate(x):
            a, b = x.chunk(2, -1)
            return x * cos + torch.cat([-b, a], -1) * sin

        hidden = w["wte.weight"][ids]
        for layer in range(self.layers):
            at = f"h.{layer}."
            x = self.norm(hidden, at + "ln_1.weight")
            qkv = F.linear(x, w[at + "attn.c_attn.weight"], w[at + "attn.c_attn.bias"])
            q, k, v = qkv.view(n, 3, self.heads, self.d).permute(1, 2, 0, 3).unsqueeze(1)
            y = F.scaled_dot_product_attention(
                rotate(q) * scale, rotate(k), v, attn_mask=mask, is_causal=mask is None
            )
            y = y[0].transpose(0, 1).reshape(n, -1)
            hidden = hidden + F.linear(y, w[at + "attn.c_proj.weight"])
            x = self.norm(hidden, at + "ln_2.weight")
            up, gate = (F.linear(x, w[at + f"mlp.w{i}.weight"]) for i in (1, 2))
            hidden = hidden + F.linear(up * F.silu(gate), w[at + "mlp.c_proj.weight"])
        hidden = self.norm(hidden, "ln_f.weight")[:-1]
        losses = [
            F.cross_entropy(F.linear(rows, w["lm_head.weight"]), targets, reduction="none")
            for rows, targets in zip(hidden.split(LOSS_ROWS), ids[1:].split(LOSS_ROWS))
        ]
        return torch.cat(losses)


def sweep(model, documents, cells):
    """Each cell: its length, and what `nll` takes. Documents are cut into windows of the length."""
    start, losses = time.perf_counter(), []
    for cell in cells:
        length = cell.pop("length")
        windows = [ids for document in documents for ids in document.split(length) if len(ids) == length]
        losses.append(torch.cat([model.nll(ids, **cell) for ids in windows]).double().mean().item())
    print(json.dumps({"seconds": time.perf_counter() - start, "nll": losses}))


def main():
    folder, tokens = Path(sys.argv[1]), Path(sys.argv[2])
    model = Qwen(folder)
    documents = [torch.tensor(json.loads(line)) for line in tokens.read_text().splitlines()]
    if sys.argv[3:4] == ["--cells"]:
        with torch.inference_mode():
            return sweep(model, documents, json.loads(Path(sys.argv[4]).read_text()))
    with torch.inference_mode():
        start = time.perf_counter()
        nll = torch.cat([model.nll(ids) for ids in documents])
        seconds = time.perf_counter() - start
    fed = sum(len(ids) for ids in documents)
    print(json.dumps({"seconds": seconds, "tokens": fed, "nll": nll.double().mean().item()}))


main()
