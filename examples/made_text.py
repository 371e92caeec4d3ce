"""Made-up messages to the help desk of a shop, each with the topic it is about: data for the examples."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

TOPICS = {
    "delivery": (
        ["parcel", "box", "driver", "order", "letter", "van"],
        ["has not arrived", "came two days late", "was left in the rain", "is lost", "went to a wrong street"],
        ["where is it now", "please send it again", "when will it come", "track it for me"],
    ),
    "payment": (
        ["card", "invoice", "price", "refund", "bank", "receipt"],
        ["was charged twice", "is still missing", "shows a wrong sum", "was refused", "does not match"],
        ["please pay it back", "send me a new bill", "check the amount", "cancel the payment"],
    ),
    "account": (
        ["password", "login", "profile", "address", "email", "name"],
        ["does not work", "was changed by someone", "cannot be saved", "is locked", "was forgotten"],
        ["reset it for me", "open it again", "delete my data", "tell me the new code"],
    ),
    "product": (
        ["lamp", "chair", "kettle", "radio", "jacket", "shelf"],
        ["broke on the first day", "is too small", "smells of plastic", "has a scratch", "makes a noise"],
        ["i want another one", "how do i repair it", "is there a spare part", "take it back please"],
    ),
}
OPENINGS = ["hello", "good morning", "dear team", "hi there", "to whom it may concern"]


def messages(count: int, *, seed: int = 1) -> list[tuple[str, str]]:
    """`count` pairs of (text, topic)."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        topic = str(rng.choice(list(TOPICS)))
        things, troubles, wishes = TOPICS[topic]
        parts = [
            str(rng.choice(OPENINGS)),
            f"my {rng.choice(things)} {rng.choice(troubles)}",
            *[f"and the {rng.choice(things)} {rng.choice(troubles)} too" for _ in range(int(rng.integers(0, 3)))],
            str(rng.choice(wishes)),
        ]
        made.append((", ".join(parts), topic))
    return made


def write_csv(path: Path, count: int, *, seed: int = 1) -> Path:
    """The same as a csv file with the columns text and topic."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "topic"])
        writer.writerows(messages(count, seed=seed))
    return path
