"""Qwen, first family, in llama.cpp, through the package llama-cpp-python.

    python3 llama_qwen.py convert CHECKPOINT GGUF F32|BF16|Q4_0
    python3 llama_qwen.py score GGUF TOKENS.jsonl [--flash]
    python3 llama_qwen.py decode GGUF TOKENS [--flash]

`convert` writes GGUF with llama.cpp's own writer (the package gguf), without a vocabulary: tokens come as numbers. In Q4_0
the embedding and the head stay in F16, as they do in Qwen's GPTQ checkpoints. Keys and values are kept in F32.
`score` and `decode` print one JSON object: seconds of all calls of llama_decode, and tokens fed. `score` asks for the
logits of every token, and adds the mean negative log likelihood, computed from them afterwards and not counted; `decode`
feeds one token after the other and asks for the logits of each.
"""

import ctypes
import json
import os
import sys
import time
from pathlib import Path

import numpy as np

# Tokens of one call; llama.cpp's own programs take as many by default.
BATCH = 512
NAMES = {
    "ln_1.weight": "attn_norm.weight",
    "attn.c_attn.weight": "attn_qkv.weight",
    "attn.c_attn.bias": "attn_qkv.bias",
    "attn.c_proj.weight": "attn_output.weight",
    "ln_2.weight": "ffn_norm.weight",
    "mlp.w1.weight": "ffn_up.weight",
    "mlp.w2.weight": "ffn_gate.weight",
    "mlp.c_proj.weight": "ffn_down.weight",
}
TOP = {"wte.weight": "token_embd.weight", "ln_f.weight": "output_norm.weight", "lm_head.weight": "output.weight"}


def convert(folder, out, kind):
    import gguf
    from safetensors import safe_open

    config = json.loads((folder / "config.json").read_text())
    writer = gguf.GGUFWriter(out, "qwen")
    writer.add_context_length(config["seq_length"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_embedding_length(config["hidden_size"])
    # Files of the first family hold twice the width of the gate.
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_rope_freq_base(config["rotary_emb_base"])
    writer.add_rope_dimension_count(config["kv_channels"])
    writer.add_layer_norm_rms_eps(config["layer_norm_epsilon"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    for shard in sorted(folder.glob("*.safetensors")):
        with safe_open(shard, "pt") as tensors:
            for name in tensors.keys():
                short = name.removeprefix("transformer.")
                held = kind
                if short.startswith("h."):
                    _, layer, rest = short.split(".", 2)
                    target = f"blk.{layer}.{NAMES[rest]}"
                else:
                    target = TOP[short]
                    held = "F16" if kind == "Q4_0" else kind
                tensor = tensors.get_tensor(name).float().numpy()
                if tensor.ndim == 1 or held == "F32":
                    writer.add_tensor(target, tensor)
                else:
                    held = gguf.GGMLQuantizationType[held]
                    writer.add_tensor(target, gguf.quants.quantize(tensor, held), raw_dtype=held)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Context:
    def __init__(self, path, tokens):
        import llama_cpp as llama

        self.llama = llama
        self.silent = llama.llama_log_callback(lambda *_: None)
        llama.llama_log_set(self.silent, ctypes.c_void_p(0))
        llama.llama_backend_init()
        model = llama.llama_model_load_from_file(str(path).encode(), llama.llama_model_default_params())
        self.vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
        parameters = llama.llama_context_default_params()
        parameters.n_ctx = tokens
        parameters.n_batch = parameters.n_ubatch = BATCH
        parameters.n_threads = parameters.n_threads_batch = len(os.sched_getaffinity(0))
        parameters.type_k = parameters.type_v = 0  # GGML_TYPE_F32
        parameters.flash_attn_type = int("--flash" in sys.argv)
        self.context = llama.llama_init_from_model(model, parameters)
        self.batch = llama.llama_batch_init(BATCH, 0, 1)
        self.seconds = 0.0

    def clear(self):
        self.llama.llama_memory_clear(self.llama.llama_get_memory(self.context), True)

    def decode(self, ids, start):
        """Logits after each of some tokens, the first of which has position `start`."""
        batch = self.batch
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i] = token, start + i
            batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = 1, 0, 1
        began = time.perf_counter()
        if self.llama.llama_decode(self.context, batch) != 0:
            sys.exit("llama_decode failed")
        pointer = self.llama.llama_get_logits(self.context)
        self.seconds += time.perf_counter() - began
        return np.ctypeslib.as_array(pointer, shape=(len(ids), self.vocabulary))


def score(path, tokens):
    documents = [json.loads(line) for line in tokens.read_text().splitlines()]
    context = Context(path, max(len(ids) for ids in documents))
    losses = []
    for ids in documents:
        context.clear()
        for start in range(0, len(ids), BATCH):
            logits = context.decode(ids[start : start + BATCH], start)
            targets = ids[start + 1 : start + 1 + BATCH]
            rows = logits[: len(targets)]
            most = rows.max(axis=1, keepdims=True)
            total = most[:, 0] + np.log(np.exp(rows - most).sum(axis=1, dtype=np.float64))
            losses.append(total - rows[np.arange(len(targets)), targets])
    fed = sum(len(ids) for ids in documents)
    return {"seconds": context.seconds, "tokens": fed, "nll": float(np.concatenate(losses).mean())}


def decode(path, tokens):
    context = Context(path, max(tokens, 256))
    context.decode([0], 0)  # weights are read from the file when they are first used
    context.clear()
    context.seconds = 0.0
    for i in range(tokens):
        context.decode([i * 7919 % 251], i)
    return {"seconds": context.seconds, "tokens": tokens}


def main():
    what, first, second = sys.argv[1:4]
    if what == "convert":
        convert(Path(first), Path(second), sys.argv[4])
    elif what == "score":
        print(json.dumps(score(Path(first), Path(second))))
    else:
        print(json.dumps(decode(Path(first), int(second))))


main()
