"""Contender: sentence vectors of a Hugging Face folder by `Predictor.embed`. Prints one JSON line."""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=["fp32", "bf16", "int8"], default="bf16")
    parser.add_argument("--vectors", type=Path, help="where the vectors are written (.npy)")
    asked = parser.parse_args()
    import torch

    torch.set_num_threads(asked.threads)
    from encodery.interop.huggingface import read_huggingface
    from encodery.model import cost_table
    from encodery.use.predict import Predictor

    trained = read_huggingface(asked.model)
    predictor = Predictor(trained, asked.precision)
    lines = (asked.work / "texts.jsonl").read_text(encoding="utf-8").splitlines()[: asked.texts]
    texts = [json.loads(line)["text"] for line in lines]
    tokens = int(trained.tokenizer.encode_flat(texts).lengths.sum()) + 2 * len(texts)
    predictor.embed(texts[:200])
    begin = time.perf_counter()
    vectors = predictor.embed(texts)
    seconds = time.perf_counter() - begin
    one = " ".join(["word"] * 30)
    latencies = []
    for _ in range(60):
        begin = time.perf_counter()
        predictor.embed([one])
        latencies.append(time.perf_counter() - begin)
    if asked.vectors:
        np.save(asked.vectors, vectors)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    p50 = 1000 * float(np.median(latencies[20:]))
    flops = sum(part.flops for part in cost_table(trained.model, length=tokens // len(texts)))
    answer = {"tokens": tokens, "seconds": seconds, "p50_ms": p50, "peak_mb": peak, "flops_per_token": flops}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
