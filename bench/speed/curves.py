"""How time and memory grow: python bench/speed/curves.py [documents length windows dilated ...].

documents: tokenising, packing and memory from 1,000 to 1,000,000 documents. length: a training step for each token,
from 128 to 16,384 tokens a document, with full attention and with each local pattern. width: the same from 64 to 768
numbers a vector. tokenizer: training on 1 GB of text. Every point is measured in a process of its own, which is
what its peak memory is of. Writes CURVES.md, curves.json and curves.png beside this file.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
WORK = Path("runs/speed").resolve()
SIZES: dict[str, list[int]] = {
    "documents": [1_000, 10_000, 100_000, 1_000_000],
    **{
        part: [128 << doubling for doubling in range(8)] for part in ("length", "windows", "dilated", "block", "random")
    },
    "width": [64, 128, 256, 512, 768],
    "tokenizer": [100, 1000],
}
Point = dict[str, Any]


def documents(size: int) -> Point:
    """`size` texts, real ones with numbers that vary, into a token store on the disk, then one epoch of batches."""
    from encodery.data.loader import Loader, Place, StoredWindows
    from encodery.data.samples import SampleMaker
    from encodery.data.sources import Row
    from encodery.data.store import store_on_disk
    from encodery.data.tokenizers import Tokenizer

    tokenizer = Tokenizer.load(WORK / "tokenizer.json")
    texts = [json.loads(line)["text"] for line in (WORK / "texts.jsonl").read_text(encoding="utf-8").splitlines()]

    def rows() -> Any:
        for number in range(size):
            yield Row(f"{texts[number % len(texts)]} {number}", None, None, "")

    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        begin = time.perf_counter()
        store = store_on_disk(Path(folder) / "store", rows, tokenizer)
        tokenised = time.perf_counter() - begin
        maker = SampleMaker(tokenizer.cls_id, tokenizer.sep_id, 128)
        loader = Loader(StoredWindows(store, seed=1), maker, 4096, tokenizer.pad_id, 1, True)
        begin = time.perf_counter()
        tokens = positions = 0
        first = 0.0
        for batch, _ in loader.epoch(Place()):
            first = first or time.perf_counter() - begin
            tokens, positions = tokens + batch.layout.real_tokens, positions + batch.layout.positions
        packed = time.perf_counter() - begin
    return {
        "tokens": tokens,
        "tokenised a second": tokens / tokenised,
        "packed a second": tokens / packed,
        "first batch, s": first,
        "padding": 1 - tokens / positions,
    }


def step(size: int, **encoder: Any) -> Point:
    """A training step of masked words over documents of `length` tokens: microseconds for each."""
    import torch

    from encodery.batch import Batch, layout_of
    from encodery.bricks.memory import keep_memory
    from encodery.model import Model, ModelConfig
    from encodery.objectives.masked import Masked, MaskedConfig
    from encodery.training.optim import OptimConfig, make_optimizer
    from encodery.training.precision import choose_precision

    keep_memory()
    positions, vocabulary = max(8192, size), 8192
    config = {"width": 256, "depth": 2, "heads": 4, "max_length": size, **encoder}
    frontend = {"vocab_size": vocabulary}
    model = Model(ModelConfig.model_validate({"frontend": frontend, "encoder": config})).initialise(1).train()
    layout = layout_of([[size]] * (positions // size), size)
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, vocabulary, (positions,), generator=generator)
    at = torch.randperm(positions, generator=generator)[: positions * 15 // 100].sort().values
    objective = Masked(MaskedConfig(), vocab_size=vocabulary, mask_id=4, special_ids=frozenset(range(5)))
    optimizers = make_optimizer(model, OptimConfig(), depth=2)
    cpu = torch.device("cpu")
    precision = choose_precision("auto", cpu)
    zeros = torch.zeros_like(ids)
    values = {"ids": ids, "segment": zeros, "starts_word": zeros.bool()}
    seconds = []
    while len(seconds) < 3 or (sum(seconds) < 6 and len(seconds) < 30):
        fresh = layout_of([[size]] * (positions // size), size) if seconds else layout
        batch = Batch(values, fresh, {"at": at, "target": ids[at]})
        begin = time.perf_counter()
        with precision.autocast(cpu):
            loss = objective.loss(model(batch), batch)
        loss.total.backward()
        optimizers.step(0.5, scale=1 / len(at))
        seconds.append(time.perf_counter() - begin)
    return {"us a token": 1e6 * sorted(seconds[1:])[len(seconds[1:]) // 2] / positions, "format": str(precision.dtype)}


def tokenizer(size: int) -> Point:
    """Training a vocabulary of 16,384 on `size` MB of text."""
    sys.path.insert(0, str(HERE.parent / "memory"))
    from run import make_corpus  # pyright: ignore[reportAttributeAccessIssue]

    from encodery.data.tokenizers import TokenizerConfig, train_tokenizer

    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        file = Path(folder) / "corpus.txt"
        make_corpus(file, size)
        begin = time.perf_counter()
        with file.open(encoding="utf-8") as lines:
            made = train_tokenizer(lines, TokenizerConfig(kind="wordpiece", vocab_size=16384), seed=1)
        return {"seconds": time.perf_counter() - begin, "vocabulary": made.vocab_size}


PARTS: dict[str, Callable[[int], Point]] = {
    "documents": documents,
    "length": lambda size: step(size),
    "windows": lambda size: step(size, pattern="window", window=64),
    "dilated": lambda size: step(size, pattern="dilated", window=32, dilation=4, global_tokens=1),
    "block": lambda size: step(size, pattern="block", block=128),
    "random": lambda size: step(size, pattern="random", window=64, block=64, random_blocks=2, global_tokens=1),
    "width": lambda size: step(128, width=size),
    "tokenizer": tokenizer,
}


def measured(part: str, size: int, threads: int) -> Point:
    command = [sys.executable, __file__, "--point", part, str(size), "--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["?"])[-1][:120]}
    return json.loads(done.stdout.strip().splitlines()[-1])


HEAD = "# How time and memory grow\n\nMade by `python bench/speed/curves.py`.\n\n![curves](curves.png)\n\n"
SAID = {
    "tokenizer": "Along lies the size of the text in MB, all of it read; counted is a sample of 100 MB of it, whole\n"
    "documents from its whole length (`tokenizer.max_bytes`), so that neither time nor memory grow further.",
}


def table(part: str, measured: dict[str, Any]) -> str:
    points: dict[str, Point] = measured["points"]
    names = list(dict.fromkeys(name for point in points.values() for name in point))
    said = [SAID[part], ""] if part in SAID else []
    lines = [
        f"## {part}",
        "",
        f"{measured['where']}.",
        "",
        *said,
        f"| {part} | {' | '.join(names)} |",
        "|---" * (1 + len(names)) + "|",
    ]
    for size, point in points.items():
        shown = [point.get(name, "") for name in names]
        cells = [f"{value:,.4g}" if isinstance(value, float) else str(value) for value in shown]
        lines.append(f"| {int(size):,} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


PANELS: list[tuple[str, str, str, dict[str, str | None]]] = [
    (
        "µs for each token, 2 layers of 256",
        "tokens of a document",
        "us a token",
        {
            "length": "full attention",
            "windows": "window: 64 to either side",
            "dilated": "dilated: 32 steps of 4, a global token",
            "block": "block: 128",
            "random": "random: window of 64, 2 blocks, a global token",
        },
    ),
    ("µs for each token, 2 layers", "width", "us a token", {"width": None}),
    ("peak memory of the data's road, MB", "documents", "peak MB", {"documents": None}),
]
"""Title, what lies along, the value, and the parts drawn with their names."""


def draw(results: dict[str, dict[str, Point]]) -> None:
    """Time for each token against length and width, and memory against documents."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = [panel for panel in PANELS if any(part in results for part in panel[3])]
    figure, row = plt.subplots(1, len(panels), figsize=(4.6 * len(panels), 3.8), layout="constrained", squeeze=False)
    for axes, (title, along, value, parts) in zip(row[0], panels):
        for part, label in parts.items():
            points = {int(size): point[value] for size, point in results.get(part, {}).items() if value in point}
            axes.plot(list(points), list(points.values()), "o-", label=label)
        axes.set(xscale="log", title=title, xlabel=along, ylim=(0, None))
        sizes = SIZES[next(iter(parts))]
        axes.set_xticks(sizes, [f"{size:,}" if size < 10_000 else f"{size // 1000}k" for size in sizes], rotation=45)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        if any(parts.values()):
            axes.legend()
    figure.savefig(HERE / "curves.png", dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=[], help=", ".join(PARTS))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--point", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.point:
        import torch

        torch.set_num_threads(asked.threads)
        point = PARTS[asked.point[0]](int(asked.point[1]))
        point["peak MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(point))
        return
    if unknown := [part for part in asked.parts if part not in PARTS]:
        sys.exit(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    sys.path.insert(0, str(HERE))
    from corpus import prepare
    from run import cpu_name  # pyright: ignore[reportAttributeAccessIssue]

    if "ENCODERY_DATA" not in os.environ:
        sys.exit("set ENCODERY_DATA to the folder that holds agnews/, sst2/ and wikitext2/")
    prepare(Path(os.environ["ENCODERY_DATA"]).resolve(), WORK)
    figures = HERE / "curves.json"
    results: dict[str, dict[str, Any]] = json.loads(figures.read_text()) if figures.exists() else {}
    torch_version = importlib.metadata.version("torch")
    where = f"{time.strftime('%Y-%m-%d')}, {cpu_name()}, {asked.threads} threads, torch {torch_version}"
    for part in asked.parts or PARTS:
        results[part] = {"where": where, "points": {}}
        for size in SIZES[part]:
            point = results[part]["points"][str(size)] = measured(part, size, asked.threads)
            print(part, size, point, flush=True)
        figures.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        tables = "\n".join(table(name, results[name]) for name in PARTS if name in results)
        (HERE / "CURVES.md").write_text(HEAD + tables, encoding="utf-8")
        draw({name: one["points"] for name, one in results.items()})


if __name__ == "__main__":
    main()
