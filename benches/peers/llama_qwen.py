"""Qwen, first family, in llama.cpp, through the package llama-cpp-python.

The checkpoint is written as GGUF in F32 with llama.cpp's own writer (the package gguf), without a vocabulary: tokens come as
numbers. Keys and values are kept in F32. Prints one JSON object: seconds of all calls of llama_decode, with the logits of
every token, tokens fed, mean negative log likelihood (computed from the logits afterwards, not counted).

    python3 llama_qwen.py CHECKPOINT TOKENS.jsonl GGUF [--flash]
"""

import ctypes
import json
import os
import sys
import time
from pathlib import Path

import gguf
import llama_cpp as llama
import numpy as np
from safetensors import safe_open

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


def convert(folder, out):
    config = json.loads((folder / "config.json").read_text())
    writer = gguf.GGUFWriter(out, "qwen")
    writer.add_context_length(config["seq_length"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_embedding_length(config["hidden_size"])
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
                if short.startswith("h."):
                    _, layer, rest = short.split(".", 2)
                    target = f"blk.{layer}.{NAMES[rest]}"
                else:
                    target = TOP[short]
                writer.add_tensor(target, tensors.get_tensor(name).float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    folder, tokens, path = (Path(argument) for argument in sys.argv[1:4])
    if not path.exists():
        convert(folder, path)
    documents = [json.loads(line) for line in tokens.read_text().splitlines()]
    silent = llama.llama_log_callback(lambda *_: None)
    llama.llama_log_set(silent, ctypes.c_void_p(0))
    llama.llama_backend_init()
    model = llama.llama_model_load_from_file(str(path).encode(), llama.llama_model_default_params())
    vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
    parameters = llama.llama_context_default_params()
    parameters.n_ctx = max(len(ids) for ids in documents)
    parameters.n_batch = parameters.n_ubatch = BATCH
    parameters.n_threads = parameters.n_threads_batch = len(os.sched_getaffinity(0))
    parameters.type_k = parameters.type_v = llama.GGML_TYPE_F32
    parameters.flash_attn_type = int("--flash" in sys.argv)
    context = llama.llama_init_from_model(model, parameters)
    batch = llama.llama_batch_init(BATCH, 0, 1)
    seconds, losses = 0.0, []
    for ids in documents:
        llama.llama_memory_clear(llama.llama_get_memory(context), True)
        for start in range(0, len(ids), BATCH):
            part = ids[start : start + BATCH]
            batch.n_tokens = len(part)
            for i, token in enumerate(part):
                batch.token[i] = token
                batch.pos[i] = start + i
                batch.n_seq_id[i] = 1
                batch.seq_id[i][0] = 0
                batch.logits[i] = 1
            began = time.perf_counter()
            if llama.llama_decode(context, batch) != 0:
                sys.exit("llama_decode failed")
            pointer = llama.llama_get_logits(context)
            seconds += time.perf_counter() - began
            logits = np.ctypeslib.as_array(pointer, shape=(len(part), vocabulary))
            targets = ids[start + 1 : start + 1 + len(part)]
            rows = logits[: len(targets)]
            most = rows.max(axis=1, keepdims=True)
            total = most[:, 0] + np.log(np.exp(rows - most).sum(axis=1, dtype=np.float64))
            losses.append(total - rows[np.arange(len(targets)), targets])
    fed = sum(len(ids) for ids in documents)
    print(json.dumps({"seconds": seconds, "tokens": fed, "nll": float(np.concatenate(losses).mean())}))


main()
