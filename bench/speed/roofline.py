"""What the machine can do at best: matrix products of the model's own shapes, TFLOP/s. Prints one JSON line."""

from __future__ import annotations

import argparse
import json
import time


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=2.0)
    asked = parser.parse_args()
    import torch

    torch.set_num_threads(asked.threads)
    best: dict[str, float] = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        for rows, inner, columns in ((2048, 2048, 2048), (4096, 256, 1024), (4096, 1024, 256)):
            a, b = torch.randn(rows, inner).to(dtype), torch.randn(inner, columns).to(dtype)
            a @ b
            begin, rounds = time.perf_counter(), 0
            while time.perf_counter() - begin < asked.seconds:
                a @ b
                rounds += 1
            found = 2e-12 * rounds * rows * inner * columns / (time.perf_counter() - begin)
            best[name] = max(best.get(name, 0.0), found)
    print(json.dumps(best))


if __name__ == "__main__":
    main()
