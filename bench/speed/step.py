"""Where the time of a training step goes: python bench/speed/step.py [--seconds 20].

Pretraining, fine-tuning and embedding as in run.py, with a clock around every operation of PyTorch. Matrix products are
counted with their floating-point operations, so that their pace can be held against the machine's best; from that
follows how fast a step would be if all the rest cost nothing. Writes STEP.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import bmm_flop, mm_flop

HERE = Path(__file__).parent
WORK = Path("runs/speed").resolve()
# What an operation does, by the beginning of its name; the first that fits counts.
KINDS = {
    "matrix products": ("mm", "bmm", "baddbmm", "addmm", "_linear_pointwise", "qlinear_pointwise"),
    "norms": ("native_layer_norm", "layer_norm", "_fused_rms_norm"),
    "activation": ("gelu", "relu", "silu"),
    "softmax": ("softmax", "_softmax"),
    "optimizer": ("_fused_adam", "_foreach"),
    "to round numbers (int8)": ("aminmax", "round_", "__xor__"),
    "to sort, join, copy and convert": ("copy_", "_to_copy", "to", "stack", "cat", "clone", "index", "reshape"),
    "to add and to multiply": ("mul", "add", "addcmul", "sum", "ge", "sub", "div"),
}
PRODUCTS = "matrix products"


def kind_of(name: str) -> str:
    for kind, begins in KINDS.items():
        if name.rstrip("_") in {begin.rstrip("_") for begin in begins}:
            return kind
    return next((kind for kind, begins in KINDS.items() if name.startswith(begins) and kind != PRODUCTS), "the rest")


def flops_of(name: str, arguments: tuple[Any, ...]) -> float:
    """Floating-point operations of a matrix product."""
    tensors = [value for value in arguments if isinstance(value, torch.Tensor)]
    if name == "_linear_pointwise":  # the weight is (outputs, inputs), however it lies in memory
        return 2.0 * tensors[0].numel() * tensors[1].shape[0]
    if name == "qlinear_pointwise":
        return 2.0 * tensors[0].numel() * tensors[1].shape[-1]
    if name.startswith(("baddbmm", "addmm")):
        tensors = tensors[1:]
    shapes = tensors[0].shape, tensors[1].shape
    return float(mm_flop(*shapes) if len(shapes[0]) == 2 else bmm_flop(*shapes))


class Clock(TorchDispatchMode):
    """Seconds of each kind of operation, once `warm` seconds are over."""

    def __init__(self, warm: float) -> None:
        super().__init__()
        self.warm = warm
        self.first: float | None = None
        self.began = self.ended = 0.0
        self.seconds: dict[str, float] = defaultdict(float)
        self.flops = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        begin = time.perf_counter()
        found = func(*args, **(kwargs or {}))
        end = time.perf_counter()
        if self.first is None:
            self.first = begin
        if begin - self.first < self.warm:
            return found
        self.began, self.ended = self.began or begin, end
        name = func.overloadpacket.__name__
        kind = kind_of(name)
        self.seconds[kind] += end - begin
        if kind == PRODUCTS:
            self.flops += flops_of(name, args)
        return found

    def table(self, peak: float) -> str:
        """Shares of the time, and what the products leave."""
        whole = self.ended - self.began
        shares = {kind: seconds / whole for kind, seconds in self.seconds.items()}
        shares["between the operations: Python, random numbers, batches, this clock"] = 1 - sum(shares.values())
        rows = sorted(shares.items(), key=lambda row: -row[1])
        pace = self.flops / self.seconds[PRODUCTS] / 1e12
        return (
            "| | share of the time |\n|---|---|\n"
            + "".join(f"| {kind} | {100 * share:.1f} % |\n" for kind, share in rows)
            + f"\nThe products run at {pace:.2f} TFLOP/s, {pace / peak:.0%} of the machine's best in the same run "
            f"({peak:.2f}). Were all else free, a step would be at most {1 / shares[PRODUCTS]:.2f} times as fast.\n"
        )


def learning(script: str, values: dict[str, str]) -> Callable[[], None]:
    """A training by the recipe of a contender."""
    import encodery

    recipe = __import__(script).RECIPE

    def work() -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "recipe.yaml"
            file.write_text(recipe.format(work=WORK, output=folder, **values), encoding="utf-8")
            encodery.train(file)

    return work


def embedding(model: Path, precision: str, seconds: float) -> Callable[[], None]:
    """Vectors of texts by all-MiniLM-L6-v2, over and over."""
    from encodery.interop.huggingface import read_huggingface
    from encodery.use.predict import Predictor

    predictor = Predictor(read_huggingface(model), precision)  # type: ignore[arg-type]
    lines = (WORK / "texts.jsonl").read_text(encoding="utf-8").splitlines()[:1000]
    texts = [json.loads(line)["text"] for line in lines]

    def work() -> None:
        begin = time.perf_counter()
        while time.perf_counter() - begin < seconds:
            predictor.embed(texts)

    return work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--warm", type=float, default=10, help="seconds at the start that do not count")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    sys.path.insert(0, str(HERE))
    from corpus import prepare
    from run import (  # pyright: ignore[reportAttributeAccessIssue]
        ENVIRONMENTS,
        MODEL,
        cpu_name,
        measured,
    )

    torch.set_num_threads(asked.threads)
    data = Path(os.environ["ENCODERY_DATA"]).resolve()
    prepare(data, WORK)
    budget = asked.seconds + asked.warm
    sizes = {"width": "256", "depth": "6", "heads": "4", "batch_tokens": "4096"}
    steps = {"precision": "auto", "optimizer": "adamw", "seconds": str(budget)}
    rows = {"data": str(data), "name": "agnews", "text": "[title, text]", "batch_tokens": "2048", "seed": "1"}
    works = {
        "pretraining": learning("pretrain_encodery", {**sizes, **steps}),
        "fine-tuning, agnews": learning("finetune_encodery", {**rows, "budget": f"{budget}s"}),
    }
    folder = Path(ENVIRONMENTS["peers"]) / MODEL
    for precision in ("bf16", "int8"):
        if folder.exists():
            works[f"embedding, {precision}"] = embedding(folder, precision, budget)
    parts = []
    for name, work in works.items():
        peak = measured(sys.executable, "roofline.py", ["--threads", str(asked.threads)])["bf16"]
        with Clock(asked.warm) as clock:
            work()
        parts.append(f"## {name}\n\n{clock.table(peak)}")
        print(parts[-1], flush=True)
    head = (
        "# Where the time goes\n\nMade by `python bench/speed/step.py`: the steps of [RESULTS.md](RESULTS.md), with a "
        f"clock around every operation. {time.strftime('%Y-%m-%d')}, {cpu_name()}, {asked.threads} threads, torch "
        f"{torch.__version__}.\n\n"
    )
    (HERE / "STEP.md").write_text(head + "\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
