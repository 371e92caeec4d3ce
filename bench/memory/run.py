"""Pretrain on a corpus ten times the memory the process may have: python bench/memory/run.py [--limit-mb 1200].

Makes a corpus of ten times the limit (varied sentences, one document a line), limits the private memory of the
training process with RLIMIT_DATA, and trains from the stream. Prints the peak of the resident memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

TABLE = Path(__file__).parent / "RESULTS.md"
RECIPE = """\
name: memory
output: {folder}/run
data: {{train: {folder}/corpus.txt, tokens: streamed, validation_share: 0.0001}}
tokenizer: {{vocab_size: 4000, max_bytes: 5000000}}
encoder: {{preset: tiny, max_length: 512}}
objective: masked
training: {{budget: {budget}, batch_tokens: 2048, validations: 1}}
"""


def make_corpus(file: Path, megabytes: int) -> int:
    """Write documents of about 2 kB, each a draw of 16 out of 50,000 sentences, until the file has its size; the
    number of documents."""
    rng = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = np.array(["".join(rng.choice(letters, size=rng.integers(2, 10))) for _ in range(20_000)])
    # Frequencies as in language: the n-th word about 1 / n times as often as the first.
    drawn = words[np.minimum(rng.zipf(1.2, size=(50_000, 20)), words.size) - 1]
    sentences = [" ".join(row) + ". " for row in drawn]
    documents = 0
    with file.open("w", encoding="utf-8") as out:
        while out.tell() < megabytes * 1_000_000:
            picks = rng.integers(0, len(sentences), size=(2000, 16)).tolist()
            out.writelines("".join([sentences[pick] for pick in row]) + "\n" for row in picks)
            documents += 2000
    return documents


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit-mb", type=int, default=1200)
    parser.add_argument("--times", type=int, default=10, help="size of the corpus in limits")
    parser.add_argument("--budget", default="60s")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        begin = time.time()
        documents = make_corpus(folder / "corpus.txt", asked.times * asked.limit_mb)
        size = (folder / "corpus.txt").stat().st_size
        print(f"corpus: {size / 1e9:.1f} GB, {documents:,} documents, made in {time.time() - begin:.0f} s", flush=True)
        (folder / "recipe.yaml").write_text(RECIPE.format(folder=folder, budget=asked.budget), encoding="utf-8")
        limit = asked.limit_mb * 1_000_000

        def limited() -> None:
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))

        begin = time.time()
        command = [sys.executable, "-m", "encodery", "train", str(folder / "recipe.yaml")]
        done = subprocess.run(command, preexec_fn=limited, check=False)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        seconds = time.time() - begin
        print(f"exit {done.returncode}, {seconds:.0f} s, peak resident {peak:.0f} MB (shared libraries included)")
        if done.returncode == 0:
            record = json.loads((folder / "run" / "metrics.json").read_text(encoding="utf-8"))
            write(asked.limit_mb, size, documents, peak, seconds, record)
        sys.exit(done.returncode)


def write(limit_mb: int, size: int, documents: int, peak: float, seconds: float, record: dict) -> None:
    """The table of RESULTS.md, and where and when it was made."""
    cpu, versions = record["hardware"], record["versions"]
    TABLE.write_text(
        "# A corpus ten times the memory\n\nMade by `python bench/memory/run.py`.\n\n"
        "| corpus | documents | private memory allowed | peak resident, shared libraries included | seconds |\n"
        "|---|---|---|---|---|\n"
        f"| {size / 1e9:.1f} GB | {documents:,} | {limit_mb} MB | {peak:.0f} MB | {seconds:.0f} |\n\n"
        f"{time.strftime('%Y-%m-%d')}, {cpu['cpu']}, {cpu['threads']} threads, "
        + ", ".join(f"{package} {version}" for package, version in versions.items())
        + "\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
