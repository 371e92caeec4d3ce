"""A drafted recipe for two texts a row without a label: one is written from the other, or they belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from encodery.errors import DataError, nearest
from encodery.training.draft_tags import text_of

_TARGETS = {
    "target",
    "tgt",
    "translation",
    "summary",
    "tldr",
    "highlights",
    "output",
    "response",
    "reply",
    "completion",
}
_SOURCES = {"source", "src", "input", "article", "document", "abstract", "text", "prompt", "instruction", "message"}
_TOGETHER = (
    ("query", {"document", "passage", "positive", "answer"}),
    ("question", {"answer", "passage", "document", "positive", "context"}),
    ("anchor", {"positive"}),
)
"""Names of texts that belong together: the one that is asked with, and what is found by it."""
LEAST_LETTERS = 8
"""Shorter values, on the average, are labels and not texts."""


@dataclass(frozen=True)
class PairsSeen:
    """The columns of two texts: `other` is to be written from `text`, or to be found by it."""

    kind: Literal["embed", "write"]
    text: str
    other: str


def look_for_pairs(
    table: Mapping[str, Sequence[Any]], kind: str | None, text: str | None, other: str | None
) -> PairsSeen | None:
    """The two columns, where their names tell them, or where `kind` asks for them."""
    texts = [name for name, values in table.items() if _holds_texts(values)]
    if kind in (None, "write") and (found := _written(texts, text, other)):
        return PairsSeen("write", *found)
    if kind in (None, "embed") and (found := _together(texts, text, other)):
        return PairsSeen("embed", *found)
    if kind is None:
        return None
    # Asked for: what was named, and else the first two columns that hold texts.
    first = text or next((name for name in texts if name != other), None)
    second = other or next((name for name in texts if name != first), None)
    return PairsSeen("write" if kind == "write" else "embed", first, second) if first and second else None


def _holds_texts(values: Sequence[Any]) -> bool:
    """Whether a column has a text, or the sentences of one, in nearly every row, and different ones."""
    texts = [text for text in map(text_of, values) if text.strip()]
    if len(texts) < 0.9 * len(values) or not texts:
        return False
    return len(set(texts)) > 0.5 * len(texts) and sum(map(len, texts)) >= LEAST_LETTERS * len(texts)


def _written(texts: Sequence[str], text: str | None, other: str | None) -> tuple[str, str] | None:
    """A source and its target by their names, or two languages in the order of the columns."""
    languages = [name for name in texts if len(name) == 2 and name.isalpha()]
    targets = [other] if other else [name for name in texts if name.lower() in _TARGETS]
    sources = [text] if text else [name for name in texts if name.lower() in _SOURCES]
    if len(languages) >= 2 and text in (None, *languages) and other in (None, *languages):
        first = text or next(name for name in languages if name != other)
        return first, other or next(name for name in languages if name != first)
    if targets and sources and targets[0].lower() in _TARGETS and sources[0] != targets[0]:
        return sources[0], targets[0]
    return None


def _together(texts: Sequence[str], text: str | None, other: str | None) -> tuple[str, str] | None:
    by_name = {name.lower(): name for name in texts}
    for asked, found in _TOGETHER:
        for name in found:
            if asked in by_name and name in by_name:
                pair = by_name[asked], by_name[name]
                if text in (None, pair[0]) and other in (None, pair[1]):
                    return pair
    return None


def no_pairs(kind: str, path: str, columns: Sequence[str], named: Sequence[str | None]) -> DataError:
    """The error for a task whose columns were not found."""
    near = "".join(nearest(name, columns) for name in named if name and name not in columns)
    wanted = "the text that is read and the text that is written" if kind == "write" else "two texts that go together"
    return DataError(
        f"{path} has no two columns of texts for the task {kind}; they are {', '.join(columns)}{near}",
        expected=f"two columns that hold {wanted}, different ones in most rows",
        fix="name them with --text and --pair",
    )


def column_line(kind: Literal["embed", "write"]) -> tuple[str, str]:
    """The key of the second text, and its comment."""
    if kind == "write":
        return "target", "column of the text that is written from it"
    return "pair", "column of the text that belongs to it"


def pairs_lines(kind: Literal["embed", "write"], minutes: str, epochs: int, *, numbers: bool) -> list[tuple[str, str]]:
    """The objective, the training and the evaluation of such a recipe: lines with their comments. `numbers`: a label
    says how close the two are."""
    if kind == "write":
        return [
            ("objective:", ""),
            ("  kind: write", "a decoder over the encoder: translation, summaries, answers in own words"),
            ("  # decoder: {pointer: true}", "copies words of the source: for summaries, names and numbers"),
            ("  generation: {beam: 4}", "also length_penalty, no_repeat_ngram, max_tokens, sample"),
            ("", ""),
            ("training:", ""),
            (f"  budget: {minutes}", "writing takes longer to learn than labels; also in epochs or steps"),
            ("  batch_tokens: 4096", "positions of a batch"),
            ("  optim: {kind: muon, schedule: linear, weight_decay: 0.1}", "muon learns faster than adamw here"),
            ("  average_last: 5", "the mean of the last five validated weights writes better"),
        ]
    loss = "cosent" if numbers else "infonce"
    said = "the order of the numbers; or cosine, pearson" if numbers else "the other texts of a batch are wrong answers"
    return [
        ("pretrain:", "first learn the language, without labels; or remove it"),
        ("  training:", ""),
        (f"    budget: {minutes}", "longer is better up to hours; also in steps, tokens or epochs"),
        ("", ""),
        ("objective:", ""),
        ("  kind: embed", "a vector for each text; those of a pair are to be close"),
        (f"  loss: {loss}", said),
        ("  pooling: mean", "how a text becomes one vector: mean, first, max, attention"),
        ("", ""),
        ("training:", ""),
        (f"  budget: {epochs} epochs", "or 5m, 2000 steps, 5M tokens; the schedule is stretched over it"),
        ("  batch_tokens: 4096", "positions of a batch; more of them mean more wrong answers to tell apart"),
        ("  optim: {lr: 5e-4}", "lower it when the loss jumps"),
    ]
