"""What one annotator of subjqa gets against another: python bench/quality/people.py.

Most pairs of a question and a review were shown to two people, and stand in the data as two rows. Here each answer is
scored against that of the other person, as a model would be; beside it saying nothing at all, and answering just where
the other one did. Training and development rows only. $ENCODERY_DATA names the folder of the data sets.
"""

from __future__ import annotations

import json
import os
import sys
from itertools import permutations
from pathlib import Path

import numpy as np

from encodery.evaluation.questions import overlap_f1


def annotated_twice(folder: Path) -> list[list[list[str]]]:
    """The answers of each person ([] for none), of every pair that several have read."""
    found: dict[tuple[str, str], list[list[str]]] = {}
    for name in ("train.jsonl", "dev.jsonl"):
        for line in (folder / name).read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            answers = [answer["text"] for answer in row["answers"]]
            found.setdefault((row["context"], row["question"]), []).append(answers)
    return [people for people in found.values() if len(people) > 1]


def main() -> None:
    if "ENCODERY_DATA" not in os.environ:
        sys.exit("set ENCODERY_DATA to the folder of the data sets")
    pairs = annotated_twice(Path(os.environ["ENCODERY_DATA"]) / "subjqa")
    given, right = zip(*(two for people in pairs for two in permutations(people, 2)))
    scores = np.array([overlap_f1(one[0] if one else "", other) for one, other in zip(given, right)])
    answers, answered = (np.array([bool(one) for one in side]) for side in (given, right))
    both, chance = answers & answered, answered.mean() ** 2 + (1 - answered.mean()) ** 2
    agreed = (answers == answered).mean()
    print(f"{len(pairs):,} pairs read by several people, {len(given):,} answers beside that of another")
    print(f"they agree on whether there is an answer: {agreed:.1%} (by chance {chance:.1%})")
    print(f"F1 where both answer: {scores[both].mean():.3f}")
    print(f"F1 of a person: {scores.mean():.3f}; of no answer: {(~answered).mean():.3f}")
    print(
        f"where one answers, the other's answer is worth {scores[answers].mean():.3f}, "
        f"and silence {(~answered[answers]).mean():.3f}"
    )


if __name__ == "__main__":
    main()
