"""Word vectors from text files of word2vec, GloVe and fastText, matched to the tokens of a vocabulary."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from encodery.data import ledger
from encodery.data.ledger import Ledger, Watch
from encodery.data.lines import Lines, Reading, open_lines
from encodery.data.places import Place, find, head, what_binary
from encodery.errors import DataError
from encodery.frontends.options import VectorsConfig

TWICE = "word came before (the first one counts)"
SPACED = "word with a space inside (no token is one)"
WAYS = ("exact", "lower-cased", "as the tokenizer changes words")
_TOLD_EVERY = 20_000  # lines
_MOST_FREQUENT = 8  # tokens without a vector that are named


class Shape(NamedTuple):
    """What the head of a file tells: `words` it promises (None without a first line that does), `numbers` of each."""

    words: int | None
    numbers: int


@dataclass(frozen=True)
class StaticVectors:
    """Vectors of a file for the tokens of a vocabulary.

    `matrix` (V, E) has zeros where `way` (V,) is 0; else `way` says how the token was found: 1 + its place in WAYS.
    """

    name: str
    shape: Shape
    matrix: np.ndarray
    way: np.ndarray
    lines: int
    ledger: Ledger
    seconds: float
    remarks: list[str] = field(default_factory=list)

    @property
    def found(self) -> np.ndarray:
        """(V,) bool: the token has a vector."""
        return self.way > 0

    @property
    def rows(self) -> int:
        return int(self.found.sum())

    def coverage(self, counts: np.ndarray, special: Sequence[int]) -> tuple[float, float]:
        """Share of the vocabulary, and share of the training tokens (`counts`, (V,)), that have a vector; tokens that
        are no text are left out."""
        text = np.ones(self.way.size, bool)
        text[list(special)] = False
        occurred = max(1, int(counts[text].sum()))
        return float(self.found[text].mean()), float(counts[self.found & text].sum()) / occurred

    def report(self, counts: np.ndarray, special: Sequence[int], token: Callable[[int], str]) -> list[str]:
        """Lines for people: what was read, how much of the vocabulary and of the training text it covers."""
        types, tokens = self.coverage(counts, special)
        ways = [f"{int((self.way == place).sum()):,} {name}" for place, name in enumerate(WAYS, start=1)]
        missing = np.where(self.found, 0, counts)
        missing[list(special)] = 0
        often = [token(int(number)) for number in np.argsort(-missing, kind="stable")[:_MOST_FREQUENT]]
        often = often[: int((missing > 0).sum())]
        lines = [
            f"{self.name}: {self.lines:,} words of {self.shape.numbers} numbers, read in {self.seconds:.1f} s",
            f"  {types:.1%} of the vocabulary has a vector ({'; '.join(ways)}), {tokens:.1%} of the training tokens",
        ]
        if often:
            lines.append(f"  most frequent without one: {' '.join(often)}")
        lines += [f"  {problem.line()}" for problem in (*self.ledger.problems(), *self.ledger.notes())]
        return [*lines, *(f"  {remark}" for remark in self.remarks)]


def shape_of(path: str, base: Path) -> Shape:
    """Look at the head of a file.

    Raises DataError when there is no such file, it is no text, or its first lines are no words with numbers.
    """
    place = _place(path, base)
    with open_lines(place, Reading()) as lines:
        return _shape(place, lines)[0]


def read_vectors(
    config: VectorsConfig,
    base: Path,
    words: Sequence[str | None],
    normalise: Callable[[str], str] = str,
    on_progress: Callable[[int], None] = lambda lines: None,
) -> StaticVectors:
    """Read the vectors of `words` (V), the word that each token is or None, in one pass: one line is held at a time.

    A token takes the vector of its own word, else that of its word in small letters, else the first one whose word
    `normalise` turns into its own. Damaged lines are counted and passed over.

    Raises DataError as `shape_of`; when more lines are damaged than `bad_rows_share` allows; when no token has a
    vector.
    """
    began = time.perf_counter()
    place = _place(config.path, base)
    wanted = _wanted(words)
    book = Ledger()
    watch = Watch(book, "skip", config.bad_rows_share)
    with open_lines(place, Reading()) as lines:
        shape, held = _shape(place, lines)
        matrix = np.zeros((len(words), shape.numbers), np.float32)
        way = np.zeros(len(words), np.int8)
        seen: set[str] = set()
        for line in _following(held, lines):
            where = f"{place.name}:{lines.number}"
            word, numbers = _parted(line, lines, where, shape.numbers, watch)
            candidates = _candidates(word, wanted, normalise, way) if word else []
            # Numbers are looked at where they are wanted, or where a letter says that something is wrong with them.
            row = _numbers(numbers) if candidates or "n" in numbers or "N" in numbers else ""
            if isinstance(row, str) and row:
                watch.add_bad(row, where)
            elif word:
                watch.add_good()
                if word in wanted and word in seen:
                    book.note(TWICE, where)
                    continue
                seen.update((word,) if word in wanted else ())
                for token, better in candidates:
                    matrix[token], way[token] = row, better
            if watch.good % _TOLD_EVERY == 0:
                on_progress(watch.good)
            if config.first is not None and config.first <= watch.good:
                break
        watch.finish(place.name)
        read = watch.good
    remarks = []
    if shape.words is not None and config.first is None and read + watch.bad < shape.words:
        remarks.append(
            f"its first line promises {shape.words:,} words: the file seems to be cut off; fetch it again if that is "
            "not what was meant"
        )
    found = StaticVectors(place.name, shape, matrix, way, read, book, time.perf_counter() - began, remarks)
    if not found.rows:
        raise DataError(
            f"{place.name}: none of its {read:,} words is in the vocabulary",
            expected="vectors of the language of the training text, and a tokenizer that has words",
            fix="name another file, or use another tokenizer (tokenizer.kind: wordpiece, more vocab_size)",
        )
    return found


# -- the file -----------------------------------------------------------------------------------------


def _place(path: str, base: Path) -> Place:
    target = base / Path(path).expanduser()
    if target.is_file() and (meaning := what_binary(head(target), "utf-8")) is not None:
        raise DataError(
            f"{path}: not word vectors as text: {meaning}",
            expected="a word and its numbers a line, as word2vec, GloVe or fastText write text; also as .gz or .zst",
            fix="unpack an archive; write binary vectors as text: in gensim save_word2vec_format(..., binary=False)",
        )
    places = find(path, "text", base).places
    if len(places) != 1:
        raise DataError(f"{path}: {len(places)} files", expected="one file of word vectors", fix="name one of them")
    return places[0]


def _shape(place: Place, lines: Lines) -> tuple[Shape, list[str]]:
    """What the first lines say, and those of them that hold vectors already."""
    first = next(iter(lines), "")
    fields = first.split()
    if len(fields) == 2 and all(part.isascii() and part.isdigit() for part in fields):
        promised, numbers = int(fields[0]), int(fields[1])
        second = next(iter(lines), "")
        found = _columns(second) - 1
        if numbers < 1 or found != numbers:
            raise DataError(
                f"{place.name}:1: its first line says {numbers:,} numbers a word, line 2 has {max(0, found):,}",
                expected="a first line 'words numbers' that is true, or none",
                fix="correct or remove the first line, or fetch the file again",
            )
        _require_numbers(place, lines, second)
        return Shape(promised, numbers), [second]
    numbers = _columns(first) - 1
    if numbers < 1 or lines.fault(first)[0]:
        raise DataError(
            f"{place.name}:1: {first.strip()[:60]!r} is not a word with numbers behind it",
            expected="a word and its numbers with spaces between them, as word2vec, GloVe and fastText write text",
            fix="name the file of the vectors, or write them in this form",
        )
    _require_numbers(place, lines, first)
    return Shape(None, numbers), [first]


def _require_numbers(place: Place, lines: Lines, line: str) -> None:
    """The first vector must be one: then a wrong file is known by its head."""
    word, _, numbers = _tidy(line).partition(" ")
    if isinstance(fault := _numbers(numbers), str):
        raise DataError(
            f"{place.name}:{lines.number}: {fault} behind {word[:40]!r}: {numbers[:60]!r}",
            expected="a word and its numbers, with a decimal point, with spaces between them",
            fix="name the file of the vectors, or write them in this form",
        )


def _following(held: list[str], lines: Lines) -> Any:
    yield from held
    yield from lines


def _tidy(line: str) -> str:
    """Without the end of the line and what fastText leaves before it; tabs are spaces."""
    line = line.rstrip(" \t\r\n")
    return line.replace("\t", " ") if "\t" in line else line


def _columns(line: str) -> int:
    line = _tidy(line)
    return line.count(" ") + 1 if line else 0


def _parted(line: str, lines: Lines, where: str, numbers: int, watch: Watch) -> tuple[str, str]:
    """The word and the text of its numbers; empty for a line without, which is then entered in the book."""
    if lines.fault(line)[0]:
        watch.add_bad(ledger.LINE_TOO_LONG if lines.too_long else ledger.NOT_UTF8, where)
        return "", ""
    text = _tidy(line)
    columns = text.count(" ")
    if columns == numbers:
        word, _, rest = text.partition(" ")
        if word:
            return word, rest
        watch.add_bad(ledger.NO_WORD, where)
    elif not text:
        watch.add_bad(ledger.BLANK_LINE, where)
    elif columns < numbers or not _is_spaced(text, numbers):
        watch.add_bad(ledger.WRONG_NUMBERS, where, f"{columns:,} instead of {numbers:,}")
    else:
        # GloVe's largest file has some words like '. . .'; they are sound, but no token is one.
        watch.add_good()
        watch.note(SPACED, where)
    return "", ""


def _is_spaced(text: str, numbers: int) -> bool:
    """Whether what stands before the last `numbers` fields is a word of several parts, not numbers too many."""
    word = text.rsplit(" ", numbers)[0]
    return any(isinstance(_numbers(part), str) for part in word.split(" ")[1:])


def _numbers(text: str) -> np.ndarray | str:
    """The numbers of a line, or what is wrong with them."""
    try:
        row = np.array(text.split(), dtype=np.float32)
    except ValueError:
        return ledger.BROKEN_NUMBERS
    return row if np.isfinite(row).all() else ledger.NOT_FINITE


# -- the vocabulary -----------------------------------------------------------------------------------


def _wanted(words: Sequence[str | None]) -> dict[str, list[tuple[int, int]]]:
    """For each word that a token would take a vector of: the tokens, and in which way it is theirs."""
    wanted: dict[str, list[tuple[int, int]]] = {}
    for token, word in enumerate(words):
        if word is not None:
            wanted.setdefault(word, []).append((token, 1))
            if (small := word.lower()) != word:
                wanted.setdefault(small, []).append((token, 2))
    return wanted


def _candidates(
    word: str, wanted: dict[str, list[tuple[int, int]]], normalise: Callable[[str], str], way: np.ndarray
) -> list[tuple[int, int]]:
    """The tokens that this word is better for than what they have, with the way in which it is theirs."""
    found = list(wanted.get(word, ()))
    if (changed := normalise(word)) != word:
        found += [(token, 3) for token, own in wanted.get(changed, ()) if own == 1]
    return [(token, new) for token, new in found if not way[token] or new < way[token]]
