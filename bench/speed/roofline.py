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
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shapes = ((2048, 2048, 2048), (4096, 256, 1024), (4096, 1024, 256))
    if device.type == "cuda":
        shapes = ((8192, 8192, 8192), (32768, 768, 3072), (32768, 3072, 768))

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    best: dict[str, float] = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        for rows, inner, columns in shapes:
            a = torch.randn(rows, inner, device=device).to(dtype)
            b = torch.randn(inner, columns, device=device).to(dtype)
            a @ b
            wait()
            begin, rounds = time.perf_counter(), 0
            while time.perf_counter() - begin < asked.seconds:
                for _ in range(10):
                    a @ b
                wait()
                rounds += 10
            found = 2e-12 * rounds * rows * inner * columns / (time.perf_counter() - begin)
            best[name] = max(best.get(name, 0.0), found)
    print(json.dumps(best))


if __name__ == "__main__":
    main()
