"""Which column of a person's file is what: the text, its pair, the label; and what kind of task the labels are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from encodery.errors import DataError
from encodery.training.draft_tags import text_of

TaskName = Literal[
    "classify", "multilabel", "regress", "ordinal", "tag", "answer", "choose", "embed", "write", "masked"
]
_FEW_LABELS = 200
OFTEN = 0.2
"""From this share of rows on whose text came before, a column is one that rows have in common."""
_LABEL_NAMES = {
    *("label", "labels", "class", "category", "target", "topic", "intent", "sentiment", "rating", "stars"),
    *("score", "y", "tag", "tags"),
}
_ID_NAMES = {"id", "uid", "idx", "index", "guid", "uuid", "key", "url", "date", "time"}
_SEPARATORS = ("|", ";", ",")
_COUPLES = (("1", "2"), ("a", "b"), ("premise", "hypothesis"), ("question", "answer"), ("query", "document"))


def _strings(values: list[Any]) -> list[str]:
    return [value for value in values if isinstance(value, str) and value.strip()]


def _mean_length(values: list[Any]) -> float:
    strings = _strings(values)
    if len(strings) < 0.5 * max(1, sum(value is not None for value in values)):
        return 0.0
    return sum(map(len, strings)) / max(1, len(strings))


def text_column(table: dict[str, list[Any]], taken: set[str | None], path: str) -> str:
    lengths = {name: _mean_length(values) for name, values in table.items() if name not in taken}
    best = max(lengths, key=lambda name: (lengths[name], name == "text"), default=None)
    if best is None or lengths[best] == 0:
        raise DataError(
            f"{path}: no column holds text", expected=f"strings in one of {', '.join(table)}", fix="name it with --text"
        )
    # The first of a couple is the text, the second the pair.
    for name in table:
        if _couple(name, best) and lengths.get(name, 0) > 0.3 * lengths[best]:
            return name
    return best


def _couple(first: str, second: str) -> bool:
    """Whether two names differ by an ending such as 1 and 2, or are premise and hypothesis."""
    one, two = first.lower(), second.lower()
    for left, right in _COUPLES:
        if one.endswith(left) and two.endswith(right) and one[: -len(left)] == two[: -len(right)]:
            return True
    return False


def pair_column(table: dict[str, list[Any]], text: str, label: str | None, guesses: list[str]) -> str | None:
    for name, values in table.items():
        if name not in (text, label) and _couple(text, name) and _mean_length(values) > 0:
            return name
    own = _mean_length(table[text])
    for name, values in table.items():
        strings = _strings(values)
        varied = len(set(strings)) > 0.5 * len(strings)
        if name in (text, label) or not varied or _mean_length(values) < 20 or _is_id(name, values):
            continue
        if _mean_length(values) > 0.5 * own:
            guesses.append(f"{name} is taken for the second text of a pair; if it is not, remove 'pair:'")
            return name
        guesses.append(f"{name} holds text as well; to use both write 'text: [{name}, {text}]'")
    return None


def _is_id(name: str, values: list[Any]) -> bool:
    return bool(_ID_NAMES & set(re.split(r"[^a-z]+", name.lower()))) or all(
        isinstance(value, str) and re.fullmatch(r"[\w:/.\-]{8,}", value) for value in values[:50]
    )


def label_column(table: dict[str, list[Any]], taken: set[str | None], *, numbers: bool) -> str | None:
    """The likeliest label: a telling name first, then few distinct values."""
    ranked: list[tuple[int, int, str]] = []
    for name, values in table.items():
        present = [value for value in values if value not in (None, "")]
        if name in taken or not present or name.lower() in _ID_NAMES:
            continue
        distinct = len({repr(value) for value in present})
        named = any(word in _LABEL_NAMES for word in re.split(r"[^a-z]+", name.lower()))
        repeats = distinct <= _FEW_LABELS and distinct <= max(2, 0.5 * len(present))
        lists = all(isinstance(value, list) for value in present)
        numeric = all_numbers(present)
        if not (repeats or lists or (numeric and (named or numbers)) or (named and distinct < 0.5 * len(present))):
            continue
        ranked.append((0 if named else 1, distinct, name))
    return min(ranked)[2] if ranked else None


def intent_column(table: dict[str, list[Any]], taken: set[str | None], guesses: list[str]) -> str | None:
    """The class of the whole text beside tags: only under a telling name."""
    named = {name: values for name, values in table.items() if set(re.split(r"[^a-z]+", name.lower())) & _LABEL_NAMES}
    others = {name: values for name, values in named.items() if all(isinstance(value, str) for value in values)}
    label = label_column(others, taken, numbers=False)
    if label is not None:
        guesses.append(f"{label} is learned beside the tags; if it should not be, remove 'label:' and 'intent:'")
    return label


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def all_numbers(values: list[Any]) -> bool:
    return all(_number(value) is not None for value in values)


def task_of(values: list[Any]) -> tuple[TaskName, str]:
    """What is to be learned from these labels, and what stands between several of them."""
    if any(isinstance(value, list) for value in values):
        return "multilabel", "|"
    if all_numbers(values):
        numbers = [float(value) for value in values]
        distinct = set(numbers)
        fractions = any(not number.is_integer() for number in distinct)
        return ("regress" if (fractions and len(distinct) > 5) or len(distinct) > 50 else "classify"), "|"
    strings = _strings(values)
    for separator in _SEPARATORS:
        several = [value for value in strings if separator in value]
        parts = {part.strip() for value in strings for part in value.split(separator)}
        # Labels that are put together from fewer parts, not one label with a comma in its name.
        if len(several) > 0.02 * len(strings) and len(parts) < len(set(strings)):
            return "multilabel", separator
    return "classify", "|"


def counted(values: list[Any], task: TaskName, separator: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    if task in ("classify", "ordinal", "tag"):
        counts.update(str(value) for value in values)
    elif task == "multilabel":
        for value in values:
            parts = value if isinstance(value, list) else str(value).split(separator)
            counts.update(str(part).strip() for part in parts if str(part).strip())
    return counts


def often_the_same(table: Mapping[str, Sequence[Any]], text: str | list[str], pair: str | None) -> str | None:
    """The column of a pair whose texts come again in many rows, such as that of a context which is asked several
    questions: a model that has seen it there knows it. None where neither does."""
    if pair is None or not isinstance(text, str):
        return None
    rows = len(table[text])
    again = {name: rows - len(set(map(text_of, table[name]))) for name in (text, pair)}
    most = max(again, key=again.__getitem__)
    return most if again[most] >= OFTEN * rows else None
