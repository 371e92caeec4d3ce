"""Pretrain on a corpus ten times the memory the process may have: python bench/memory/run.py [--limit-mb 800].

Makes a corpus of ten times the limit (varied sentences, one document a line), limits the private memory of the
training process with RLIMIT_DATA, and trains from the stream. Prints the peak of the resident memory.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

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
    """Write documents of about 2 kB made of drawn words, until the file has its size; the number of documents."""
    rng = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = np.array(["".join(rng.choice(letters, size=rng.integers(2, 10))) for _ in range(20_000)])
    documents = 0
    with file.open("w", encoding="utf-8") as out:
        while out.tell() < megabytes * 1_000_000:
            # Frequencies as in language: the n-th word about 1 / n times as often as the first.
            drawn = words[np.minimum(rng.zipf(1.2, size=330 * 500), words.size) - 1].reshape(500, 330)
            out.writelines(" ".join(line) + "\n" for line in drawn)
            documents += 500
    return documents


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit-mb", type=int, default=800)
    parser.add_argument("--budget", default="60s")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        begin = time.time()
        documents = make_corpus(folder / "corpus.txt", 10 * asked.limit_mb)
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
        print(
            f"exit {done.returncode}, {time.time() - begin:.0f} s, limit {asked.limit_mb} MB of private memory, "
            f"peak resident {peak:.0f} MB (shared libraries included)"
        )
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
