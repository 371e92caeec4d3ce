"""A first recipe for a person's own files: looks at them and guesses columns, task, language and sizes."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from encodery.config import load_config
from encodery.data.sources import DataConfig, SourceConfig, sample_rows, total_bytes
from encodery.data.tokenizer_training import guess_language
from encodery.errors import ConfigError, DataError, nearest
from encodery.training.draft_pairs import PairsSeen, look_for_pairs, no_pairs
from encodery.training.draft_pointing import PointingSeen, look_for_pointing, no_pointing
from encodery.training.draft_tags import TagsSeen, look_for_tags, text_of
from encodery.training.draft_text import recipe_text

TaskName = Literal[
    "classify", "multilabel", "regress", "ordinal", "tag", "answer", "choose", "embed", "write", "masked"
]
LOOKED_AT_ROWS = 20_000
_FEW_LABELS = 200
_LABEL_NAMES = {
    *("label", "labels", "class", "category", "target", "topic", "intent", "sentiment", "rating", "stars"),
    *("score", "y", "tag", "tags"),
}
_ID_NAMES = {"id", "uid", "idx", "index", "guid", "uuid", "key", "url", "date", "time"}
_SEPARATORS = ("|", ";", ",")
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3041-\u30ff\u3400-\u9fff\uf900-\ufaff]")
_WORD = re.compile(r"\w+|[^\w\s]")
_COUPLES = (("1", "2"), ("a", "b"), ("premise", "hypothesis"), ("question", "answer"), ("query", "document"))


@dataclass
class Draft:
    """What was seen in the files, and the recipe's words. Sizes are in tokens of a vocabulary of its kind."""

    files: dict[str, list[str]]
    format: str
    columns: list[str]
    rows: int
    all_rows: bool
    megabytes: float
    task: TaskName
    text: str | list[str]
    pair: str | None
    label: str | None
    separator: str
    labels: Counter[str]
    language: str
    median_characters: int
    long_tokens: int
    problems: list[str] = field(default_factory=list)
    guesses: list[str] = field(default_factory=list)
    tags: TagsSeen | None = None
    pointing: PointingSeen | None = None
    pairs: PairsSeen | None = None

    @property
    def max_length(self) -> int:
        """The power of two that holds 99 % of the texts, within 32 and 512."""
        return min(512, max(32, 1 << (self.long_tokens + 1).bit_length()))


def task_named(name: str | None) -> TaskName | None:
    """The task of this name. Raises ConfigError for any other."""
    known = get_args(TaskName)
    if name is not None and name not in known:
        raise ConfigError(f"--task {name}{nearest(name, known)}", expected=", ".join(known))
    return name  # type: ignore[return-value]


def look_at_files(
    files: Sequence[str],
    *,
    task: TaskName | None = None,
    text: str | None = None,
    label: str | None = None,
    pair: str | None = None,
) -> Draft:
    """Look at the first rows and guess what was not said.

    Of several files, names with test, valid or dev in them become those splits. Raises DataError when a file cannot
    be read or a named column is missing, or when a task needs labels and none are found.
    """
    splits = _splits(files)
    first = SourceConfig(path=splits["train"][0])
    sampled = sample_rows(first, base=Path(), count=LOOKED_AT_ROWS)
    if not sampled.rows:
        shown = "\n".join(f"    {line}" for line in sampled.problems[:5])
        raise DataError(f"{first.path}: no readable rows" + (f"\n{shown}" if shown else ""), fix="look into the file")
    for name in (text, label, pair):
        if name is not None and name not in sampled.columns:
            raise DataError(
                f"{first.path} has no column {name!r}{nearest(name, sampled.columns)}",
                expected=f"one of {', '.join(sampled.columns)}",
            )
    table = {name: [row.get(name) for row in sampled.rows] for name in sampled.columns}
    guesses: list[str] = []
    told = label is not None or pair is not None
    pointing, seen = _special(table, task, text, first.path, told=told)
    if pointing is not None:
        task, text, pair, label = pointing.kind, pointing.text, pointing.pair, pointing.label
    elif seen is not None:
        task, text = "tag", seen.text
    pairs = None
    if task in ("embed", "write") or (task is None and label is None):
        pairs = look_for_pairs(table, task, text, pair)
        if pairs is None and task is not None:
            raise no_pairs(task, first.path, sampled.columns, (text, pair))
        guessed = None if task is not None else _label_column(table, {text, pair}, numbers=False)
        if pairs is not None and guessed is not None and guessed not in (pairs.text, pairs.other):
            pairs = None  # there are labels to learn
    if pairs is not None:
        task, text, pair = pairs.kind, pairs.text, pairs.other
    text = text or _text_column(table, {label, pair}, first.path)
    if pointing is None and pairs is None:
        pair = None if seen is not None else pair or _pair_column(table, text, label, guesses)
    separator = "|"
    if seen is not None:
        label = label or _intent_column(table, {seen.text, seen.tags, seen.spans}, guesses)
    elif label is None and task not in ("masked", "answer", "embed", "write"):
        label = _label_column(table, {text, pair}, numbers=task == "regress")
    values = [value for value in table.get(label or "", []) if value not in (None, "")]
    if task is None:
        task, separator = _task(values) if values else ("masked", "|")
    elif task == "multilabel":
        separator = _task(values)[1]
    if task not in ("masked", "tag", "answer", "embed", "write") and not values:
        raise DataError(
            f"{first.path} has no column that looks like a label",
            expected=f"labels for the task {task}; the columns are {', '.join(sampled.columns)}",
            fix="name it with --label, or learn from text alone with --task masked",
        )
    if task == "masked":
        label, pair = None, None
    if task == "embed" and not _all_numbers(values):
        raise DataError(f"--label {label}: not all values are numbers", expected="how close the two texts are")
    texts = [_joined(row, text, pair) for row in sampled.rows]
    sizes = sorted(map(estimated_tokens, texts))
    data = DataConfig.model_validate({"train": splits["train"], "validation_share": 0.0})
    size = total_bytes(data, "train", base=Path())
    return Draft(
        splits,
        sampled.format,
        sampled.columns,
        len(sampled.rows),
        len(sampled.rows) < LOOKED_AT_ROWS,
        size / 1e6,
        task,
        text,
        pair,
        label,
        separator,
        _counted(values, task, separator),
        guess_language(texts[:2000]),
        sorted(map(len, texts))[len(texts) // 2],
        sizes[min(len(sizes) - 1, int(0.99 * len(sizes)))],
        sampled.problems,
        guesses,
        seen,
        pointing,
        pairs,
    )


def _special(
    table: dict[str, list[Any]], task: TaskName | None, text: str | None, path: str, *, told: bool
) -> tuple[PointingSeen | None, TagsSeen | None]:
    """Columns of questions, choices or tags, where the task may be such and no other columns are `told`.

    Raises DataError when one of these tasks is asked for, and its columns are not found.
    """
    pointing = None
    if task in (None, "answer", "choose") and not told and text is None:
        pointing = look_for_pointing(table, task)
    if pointing is None and task in ("answer", "choose"):
        raise no_pointing(task, path, list(table))
    asked = task == "tag" or (task is None and not told)
    seen = look_for_tags(table, text) if asked and pointing is None else None
    if seen is None and task == "tag":
        raise DataError(
            f"{path} has no columns that look like tagged texts",
            expected="a list of words beside a list of as many tags, or a text with [[start, stop, label], ...]; the "
            f"columns are {', '.join(table)}",
            fix="see docs/01_data.md for the forms; --text names the column of the words",
        )
    return pointing, seen


def write_draft(draft: Draft, output: Path) -> Path:
    """Write the recipe to a file that does not exist yet; paths in it are relative to its own folder.

    Raises ConfigError when the file exists or cannot be written.
    """
    if output.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"--output {output}", expected="the name of a recipe, ending in .yaml")
    name = re.sub(r"[^\w.\-]+", "-", output.stem).strip("-.") or "encoder"
    files = {split: [_from(path, output.parent) for path in paths] for split, paths in draft.files.items()}
    content = recipe_text(draft, name, files)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.open("x", encoding="utf-8") as file:
            file.write(content)
    except FileExistsError:
        raise ConfigError(
            f"{output} exists already and is left as it is", fix="choose another name with --output, or remove it"
        ) from None
    except OSError as error:
        raise ConfigError(f"cannot write {output}: {error.strerror}", fix="choose another place: --output") from error
    _check(output)
    return output


def _check(output: Path) -> None:
    """The recipe must load; if it does not, the fault is ours and the person must know."""
    from encodery.training.recipe import Recipe

    load_config(Recipe, output, [], environment={})


def _from(path: str, folder: Path) -> str:
    if path.startswith("hub:") or os.path.isabs(path):
        return path
    return os.path.relpath(Path(path).expanduser(), folder)


def _splits(files: Sequence[str]) -> dict[str, list[str]]:
    if len(files) == 1:
        return {"train": list(files)}
    found: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for file in files:
        words = set(re.split(r"[^a-z]+", Path(file).name.lower()))
        held = "validation" if {"dev", "valid", "validation", "val"} & words else "train"
        found["test" if "test" in words else held].append(file)
    if not found["train"]:
        raise DataError("every file is named as a test or validation file", expected="at least one file to train on")
    return {split: paths for split, paths in found.items() if paths}


# -- which column is what --------------------------------------------------------------------------


def _strings(values: list[Any]) -> list[str]:
    return [value for value in values if isinstance(value, str) and value.strip()]


def _mean_length(values: list[Any]) -> float:
    strings = _strings(values)
    if len(strings) < 0.5 * max(1, sum(value is not None for value in values)):
        return 0.0
    return sum(map(len, strings)) / max(1, len(strings))


def _text_column(table: dict[str, list[Any]], taken: set[str | None], path: str) -> str:
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


def _pair_column(table: dict[str, list[Any]], text: str, label: str | None, guesses: list[str]) -> str | None:
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


def _label_column(table: dict[str, list[Any]], taken: set[str | None], *, numbers: bool) -> str | None:
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
        numeric = _all_numbers(present)
        if not (repeats or lists or (numeric and (named or numbers)) or (named and distinct < 0.5 * len(present))):
            continue
        ranked.append((0 if named else 1, distinct, name))
    return min(ranked)[2] if ranked else None


def _intent_column(table: dict[str, list[Any]], taken: set[str | None], guesses: list[str]) -> str | None:
    """The class of the whole text beside tags: only under a telling name."""
    named = {name: values for name, values in table.items() if set(re.split(r"[^a-z]+", name.lower())) & _LABEL_NAMES}
    others = {name: values for name, values in named.items() if all(isinstance(value, str) for value in values)}
    label = _label_column(others, taken, numbers=False)
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


def _all_numbers(values: list[Any]) -> bool:
    return all(_number(value) is not None for value in values)


def _task(values: list[Any]) -> tuple[TaskName, str]:
    """What is to be learned from these labels, and what stands between several of them."""
    if any(isinstance(value, list) for value in values):
        return "multilabel", "|"
    if _all_numbers(values):
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


def _counted(values: list[Any], task: TaskName, separator: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    if task in ("classify", "ordinal", "tag"):
        counts.update(str(value) for value in values)
    elif task == "multilabel":
        for value in values:
            parts = value if isinstance(value, list) else str(value).split(separator)
            counts.update(str(part).strip() for part in parts if str(part).strip())
    return counts


# -- lengths ---------------------------------------------------------------------------------------


def _joined(row: dict[str, Any], text: str | list[str], pair: str | None) -> str:
    names = [text] if isinstance(text, str) else list(text)
    names += [pair] if pair else []
    return " ".join(text_of(row.get(name)) for name in names)


def estimated_tokens(text: str) -> int:
    """Tokens of a text, without a tokenizer: a third more than words and signs; one a character without spaces."""
    unspaced = len(_UNSPACED.findall(text))
    words = len(_WORD.findall(_UNSPACED.sub(" ", text))) if unspaced < len(text) else 0
    return unspaced + round(1.33 * words)
