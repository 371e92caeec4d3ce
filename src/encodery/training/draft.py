"""A first recipe for a person's own files: looks at them and guesses columns, task, language and sizes."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from encodery.config import load_config
from encodery.data.languages import guess_language
from encodery.data.named_splits import holds_labels, splits_of
from encodery.data.sources import DataConfig, Sampled, SourceConfig, sample_rows, total_bytes
from encodery.errors import ConfigError, DataError, nearest
from encodery.training.draft_columns import (
    TaskName,
    all_numbers,
    counted,
    intent_column,
    label_column,
    often_the_same,
    pair_column,
    task_of,
    text_column,
)
from encodery.training.draft_pairs import PairsSeen, look_for_pairs, no_pairs
from encodery.training.draft_pointing import PointingSeen, look_for_pointing, no_pointing
from encodery.training.draft_tags import TagsSeen, look_for_tags, text_of
from encodery.training.draft_text import recipe_text

LOOKED_AT_ROWS = 20_000
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3041-\u30ff\u3400-\u9fff\uf900-\ufaff]")
_WORD = re.compile(r"\w+|[^\w\s]")


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
    group: str | None = None

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

    Files named after a split become it (data/named_splits.py). Raises DataError when a file cannot be read or a named
    column is missing, or when a task needs labels and none are found.
    """
    splits = splits_of(files)
    labelled = task in (None, "classify") and all(map(holds_labels, splits.files["train"]))
    first = SourceConfig(path=splits.files["train"][0], format="folder" if labelled else "auto")
    sampled = _sampled(first, (text, label, pair))
    table = {name: [row.get(name) for row in sampled.rows] for name in sampled.columns}
    guesses: list[str] = []
    told = label is not None or pair is not None
    pointing, seen = _special(table, task, text, first.path, told=told)
    if pointing is not None:
        task, text, pair, label = pointing.kind, pointing.text, pointing.pair, pointing.label
    elif seen is not None:
        task, text = "tag", seen.text
    if task == "write" and label is not None:
        raise DataError(f"--label {label}: what is written has no label", fix="name the column to write with --pair")
    pairs = _pairs(table, task, text, pair, first.path) if label is None or task == "embed" else None
    if pairs is not None:
        task, text, pair = pairs.kind, pairs.text, pairs.other
    text = text or text_column(table, {label, pair}, first.path)
    if pointing is None and pairs is None:
        pair = None if seen is not None else pair or pair_column(table, text, label, guesses)
    separator = "|"
    if seen is not None:
        label = label or intent_column(table, {seen.text, seen.tags, seen.spans}, guesses)
    elif label is None and task not in ("masked", "answer", "embed", "write"):
        label = label_column(table, {text, pair}, numbers=task == "regress")
    values = [value for value in table.get(label or "", []) if value not in (None, "")]
    if task is None:
        task, separator = task_of(values) if values else ("masked", "|")
    elif task == "multilabel":
        separator = task_of(values)[1]
    if task not in ("masked", "tag", "answer", "embed", "write") and not values:
        raise DataError(
            f"{first.path} has no column that looks like a label",
            expected=f"labels for the task {task}; the columns are {', '.join(sampled.columns)}",
            fix="name it with --label, or learn from text alone with --task masked",
        )
    if task == "masked":
        label, pair = None, None
    if task == "embed" and not all_numbers(values):
        raise DataError(f"--label {label}: not all values are numbers", expected="how close the two texts are")
    texts = [_joined(row, text, pair) for row in sampled.rows]
    sizes = sorted(map(estimated_tokens, texts))
    splits.keep_usable(_used(text, pair, label, seen, pointing))
    return Draft(
        splits.files,
        sampled.format,
        sampled.columns,
        len(sampled.rows),
        len(sampled.rows) < LOOKED_AT_ROWS,
        _megabytes(splits.files["train"], first.format),
        task,
        text,
        pair,
        label,
        separator,
        counted(values, task, separator),
        guess_language(texts[:2000]),
        sorted(map(len, texts))[len(texts) // 2],
        sizes[min(len(sizes) - 1, int(0.99 * len(sizes)))],
        sampled.problems,
        [*guesses, *splits.notes],
        seen,
        pointing,
        pairs,
        None if "validation" in splits.files else often_the_same(table, text, pair),
    )


def _sampled(source: SourceConfig, named: Sequence[str | None]) -> Sampled:
    """The first rows. Raises DataError when there are none, or when a column that was named is missing."""
    sampled = sample_rows(source, base=Path(), count=LOOKED_AT_ROWS)
    if not sampled.rows:
        shown = "\n".join(f"    {line}" for line in sampled.problems[:5])
        raise DataError(f"{source.path}: no readable rows" + (f"\n{shown}" if shown else ""), fix="look into the file")
    for name in named:
        if name is not None and name not in sampled.columns:
            raise DataError(
                f"{source.path} has no column {name!r}{nearest(name, sampled.columns)}",
                expected=f"one of {', '.join(sampled.columns)}",
            )
    return sampled


def _megabytes(paths: Sequence[str], format: str) -> float:
    train = [{"path": path, "format": format} for path in paths]
    return total_bytes(DataConfig.model_validate({"train": train, "validation_share": 0.0}), "train", base=Path()) / 1e6


def _used(
    text: str | list[str], pair: str | None, label: str | None, seen: TagsSeen | None, pointing: PointingSeen | None
) -> list[str]:
    """The columns that the recipe names."""
    names = [*([text] if isinstance(text, str) else text), pair, label, pointing and pointing.column]
    names += [] if seen is None else [seen.tags, seen.spans]
    return [name for name in names if name is not None]


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


def _pairs(
    table: dict[str, list[Any]], task: TaskName | None, text: str | None, pair: str | None, path: str
) -> PairsSeen | None:
    """Two columns of texts, where the task may be such and there are no labels to learn. Raises DataError when one of
    these tasks is asked for, and its columns are not found."""
    if task not in (None, "embed", "write"):
        return None
    found = look_for_pairs(table, task, text, pair)
    if found is None and task is not None:
        raise no_pairs(task, path, list(table), (text, pair))
    label = label_column(table, {text, pair}, numbers=False) if found is not None and task is None else None
    return None if found is None or label not in (None, found.text, found.other) else found


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
