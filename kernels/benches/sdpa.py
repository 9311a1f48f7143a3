"""PyTorch's attention on the shapes of docs/gpu.md: causal, batch 1, 32 heads of 128, bf16.

python3 kernels/benches/sdpa.py        needs torch with CUDA
"""
import statistics

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention


def milliseconds(work):
    work()
    times = []
    for _ in range(5):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


print(torch.cuda.get_device_name(), "torch", torch.__version__)
print("| problem | ms | TFLOP/s |\n|---|---:|---:|")
with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
    for n, m in [(2048, 2048), (8192, 8192), (32768, 32768), (1, 32768)]:
        q = torch.randn(1, 32, n, 128, device="cuda", dtype=torch.bfloat16)
        k, v = (torch.randn(1, 32, m, 128, device="cuda", dtype=torch.bfloat16) for _ in range(2))
        causal = n > 1
        ms = milliseconds(lambda: scaled_dot_product_attention(q, k, v, is_causal=causal))
        pairs = 32 * (n * (n + 1) // 2 if causal else m)
        print(f"| attention n {n} m {m} | {ms:.3f} | {4 * pairs * 128 / ms / 1e9:.1f} |")
