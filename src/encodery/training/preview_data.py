"""What the data of a recipe is like, before anything is trained on it: counts, lengths, copies, overlaps, bad rows."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from encodery.config import Resolved
from encodery.data.composing import composer, of_one_row
from encodery.data.corpus import Reading
from encodery.data.languages import guess_language, script_shares
from encodery.data.ledger import Ledger
from encodery.data.rows import Row, folded
from encodery.data.source_config import DataConfig
from encodery.data.sources import Split, columns, has_split, total_bytes
from encodery.data.tokenizers import Tokenizer, train_tokenizer
from encodery.trained import Trained
from encodery.training.preflight import reading_of
from encodery.training.recipe import Recipe

TOKENISED_BYTES = 16_000_000
"""About as much text is tokenised for the histogram; of more, every n-th row."""
TOKENIZER_BYTES = 2_000_000
"""Text a tokenizer is trained on when the recipe has none yet: enough for lengths, ready in seconds."""
VERY_LONG = 100_000
"""Characters from which on a text is worth a remark: often a whole file that was meant to be many rows."""
_SAMPLED_TEXTS = 1000
_EXAMPLES = 3
_EASIER = 0.25
"""So much larger may the share of validation rows be than that of test rows that have a text in common with train."""
# Examples are looked up by reading again, so only among the first rows.
_EXAMPLE_ROWS = 200_000


@dataclass(frozen=True)
class Repeated:
    """A text that stands more than once, or in two splits."""

    text: str
    count: int
    where: str


@dataclass
class SplitView:
    """One split. `characters` and `tokens` count texts by length; `tokens` covers every `token_step`-th row. `in_train`
    are rows that are training rows as well; of pairs, `parts_in_train` are those whose text, or whose second text, is
    that of a training row, by the name of the column."""

    name: Split
    rows: int = 0
    made: bool = False
    labels: Counter[str] = field(default_factory=Counter)
    numbers: dict[str, float] | None = None
    characters: Counter[int] = field(default_factory=Counter)
    tokens: Counter[int] = field(default_factory=Counter)
    token_step: int = 1
    too_long: int = 0
    windows: int = 0
    very_long: int = 0
    longest: tuple[int, str] = (0, "")
    copies: int = 0
    contradictions: int = 0
    in_train: int = 0
    parts_in_train: dict[str, int] = field(default_factory=dict)
    repeated: list[Repeated] = field(default_factory=list)
    shared: list[Repeated] = field(default_factory=list)
    language: str = "unknown"
    scripts: dict[str, float] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=Ledger)

    @property
    def majority(self) -> tuple[str, float] | None:
        """The commonest label and its share of the labels."""
        if not self.labels:
            return None
        label, count = self.labels.most_common(1)[0]
        return label, count / max(1, self.rows)


@dataclass
class DataView:
    """All splits, the columns of each training source, and in `remarks` what a person should know first."""

    splits: list[SplitView]
    columns: dict[str, list[str]]
    tokenizer: str
    max_length: int
    long: str
    labels: str
    remarks: list[str] = field(default_factory=list)

    def split(self, name: Split) -> SplitView | None:
        return next((view for view in self.splits if view.name == name), None)


def sample_tokenizer(resolved: Resolved[Recipe]) -> tuple[Tokenizer, str]:
    """The tokenizer that the recipe names, or one trained on a sample; and words that say which.

    Raises DataError when the named one cannot be opened or there is no text.
    """
    recipe, base = resolved.config, resolved.base
    if recipe.start_from is not None:
        return Trained.load(base / recipe.start_from).tokenizer, f"that of {recipe.start_from}"
    config = recipe.tokenizer
    if config.path is not None:
        return Tokenizer.load(base / config.path), config.path
    config = config.model_copy(update={"max_bytes": min(config.max_bytes, TOKENIZER_BYTES)})
    texts = _first_bytes(reading_of(resolved).texts(), 10 * TOKENIZER_BYTES)
    tokenizer = train_tokenizer(texts, config, seed=recipe.seed)
    # A run with more text for its tokenizer has a little larger vocabulary and slightly fewer tokens.
    size = tokenizer.facts()["bytes"] / 1e6
    return tokenizer, f"{config.kind}, {tokenizer.vocab_size:,} tokens, made here from {size:.1f} MB of the text"


def _first_bytes(texts: Iterator[str], most: int) -> Iterator[str]:
    seen = 0
    for text in texts:
        yield text
        seen += len(text.encode("utf-8", "replace"))
        if most <= seen:
            return


def look_at_data(resolved: Resolved[Recipe]) -> DataView:
    """Read every split once, row by row: memory holds 16 bytes a row, never the texts.

    Raises DataError as reading for training does: a missing file or column, too many bad rows.
    """
    recipe, reading = resolved.config, reading_of(resolved)
    found = {source.path: columns(source, resolved.base) for source in recipe.data.train}
    tokenizer, described = sample_tokenizer(resolved)
    limit, long = recipe.encoder.max_length, recipe.data.long
    if composer(recipe.objective.compose).together is of_one_row:
        long = "cut"  # texts that must come in one batch have no windows
    if recipe.start_from is not None:
        limit = min(limit, Trained.load(resolved.base / recipe.start_from).model.config.encoder.max_length)
    view = DataView([], found, described, limit, long, recipe.labels)
    train_keys, train_parts = np.zeros(0, np.uint64), list[np.ndarray]()
    names: tuple[Split, ...] = ("train", "validation", "test")
    for name in names:
        if not has_split(recipe.data, name):
            continue
        look = _Look(name, reading, tokenizer, limit, long)
        keys = look.carry_out()
        look.view.made = name == "validation" and recipe.data.validation is None
        if name == "train":
            train_keys, train_parts = np.unique(keys), [np.unique(part) for part in look.parts()]
        else:
            shared = np.isin(keys, train_keys)
            look.view.in_train = int(shared.sum())
            look.view.shared = look.examples(np.flatnonzero(shared)[:_EXAMPLES], keys)
            for column, part, known in zip(_parts_of(recipe.data), look.parts(), train_parts):
                look.view.parts_in_train[column] = int(np.isin(part, known).sum())
        view.splits.append(look.view)
    view.remarks = remarks(view)
    return view


def _parts_of(data: DataConfig) -> tuple[str, ...]:
    """The columns of a pair, in the words of the recipe; none where rows are single texts."""
    text = data.text if isinstance(data.text, str) else " ".join(data.text)
    return (text, data.pair) if data.pair is not None else ()


class _Look:
    """One pass over a split."""

    def __init__(self, name: Split, reading: Reading, tokenizer: Tokenizer, limit: int, long: str) -> None:
        self.view = SplitView(name)
        self.reading = reading
        self.tokenizer = tokenizer
        self.limit = limit
        self.long = long
        size = total_bytes(reading.data, name, base=reading.base)
        self.view.token_step = max(1, -(-size // TOKENISED_BYTES))
        self.keys = array("Q")
        self.pairs = array("Q"), array("Q")
        self.labelled = array("Q")
        self.sample: list[str] = []
        self.numbers = array("d")

    def carry_out(self) -> np.ndarray:
        """Fill the view; give the digest of every text, (rows,) uint64."""
        view, stream = self.view, self.reading.rows(self.view.name, self.view.ledger)
        while block := list(islice(stream, 2000)):
            for row in block:
                self._count(row)
            self._tokenise([row for n, row in enumerate(block) if (view.rows + n) % view.token_step == 0])
            view.rows += len(block)
        keys = np.frombuffer(self.keys, dtype=np.uint64)
        kinds, first, counts = np.unique(keys, return_index=True, return_counts=True)
        view.copies = int(keys.size - kinds.size)
        labelled = np.frombuffer(self.labelled, dtype=np.uint64)
        if self.reading.labels != "none":
            pairs = np.unique(np.stack([keys, labelled]), axis=1)[0]
            view.contradictions = int((np.unique(pairs, return_counts=True)[1] > 1).sum())
        often = np.argsort(-counts, kind="stable")[:_EXAMPLES]
        view.repeated = self.examples(first[often[counts[often] > 1]], keys)
        if self.numbers:
            values = np.frombuffer(self.numbers)
            measures = {"smallest": values.min(), "mean": values.mean(), "largest": values.max()}
            view.numbers = {name: float(value) for name, value in measures.items()}
            view.numbers["standard deviation"] = float(values.std())
        view.language, view.scripts = guess_language(self.sample), script_shares(self.sample)
        return keys

    def parts(self) -> tuple[np.ndarray, np.ndarray]:
        """The digests of first and second texts, (rows,) uint64 twice; both empty where rows are single texts."""
        first, second = (np.frombuffer(keys, dtype=np.uint64) for keys in self.pairs)
        return first, second

    def _count(self, row: Row) -> None:
        view, text = self.view, row.text
        self.keys.append(_digest(f"{folded(text)}\n{folded(row.pair or '')}"))
        if row.pair is not None:
            for keys, part in zip(self.pairs, (text, row.pair)):
                keys.append(_digest(folded(part)))
        if isinstance(row.label, str):
            view.labels[row.label] += 1
        elif isinstance(row.label, list):
            view.labels.update(row.label)
        elif row.label is not None:
            self.numbers.append(row.label)
        if self.reading.labels != "none":
            self.labelled.append(_digest(repr(row.label)))
        size = len(text) + len(row.pair or "")
        view.characters[size] += 1
        view.very_long += size >= VERY_LONG
        view.longest = max(view.longest, (size, row.where))
        if len(self.sample) < _SAMPLED_TEXTS:
            self.sample.append(text[:1000])

    def _tokenise(self, rows: list[Row]) -> None:
        """Lengths as the model sees them: with [CLS] and [SEP]."""
        view, texts = self.view, []
        for row in rows:
            texts += [row.text] if row.pair is None else [row.text, row.pair]
        lengths = self.tokenizer.encode_flat(texts).lengths
        paired = bool(rows) and rows[0].pair is not None
        whole = lengths[0::2] + lengths[1::2] + 3 if paired else lengths + 2
        view.tokens.update(whole.tolist())
        view.too_long += int((whole > self.limit).sum())
        if not paired and self.long == "split":
            view.windows += int(np.maximum(1, -(-lengths // (self.limit - 2))).sum())

    def examples(self, places: np.ndarray, keys: np.ndarray) -> list[Repeated]:
        """The rows at some places, read again as far as the last of them."""
        wanted = sorted(int(place) for place in places if place < _EXAMPLE_ROWS)
        found, stream, at = [], self.reading.rows(self.view.name), 0
        for place in wanted:
            row = next(islice(stream, place - at, None), None)
            at = place + 1
            if row is None:
                break
            shown = row.text if row.pair is None else f"{row.text}  |  {row.pair}"
            found.append(Repeated(" ".join(shown.split())[:200], int((keys == keys[place]).sum()), row.where))
        return sorted(found, key=lambda one: -one.count)


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "big")


def histogram(lengths: Counter[int], bins: int = 12) -> list[tuple[int, int, int]]:
    """(from, to, texts) in at most `bins` even steps of a round width; the last step holds the longest 0.5 %."""
    total = sum(lengths.values())
    if not total:
        return []
    top = quantile(lengths, 0.995)
    width = _round_up(max(1, -(-(top + 1) // bins)))
    last = max(0, top // width)
    counts = Counter(dict.fromkeys(range(last + 1), 0))
    for length, count in lengths.items():
        counts[min(length // width, last)] += count
    longest = max(lengths)
    return [
        (place * width, longest if place == last else (place + 1) * width - 1, counts[place])
        for place in range(last + 1)
    ]


def _round_up(width: int) -> int:
    """The next of 1, 2, 5, 10, 20, 50, ..."""
    size = 1
    while True:
        for step in (1, 2, 5):
            if width <= step * size:
                return step * size
        size *= 10


def quantile(lengths: Counter[int], share: float) -> int:
    """The length that this share of the texts does not pass."""
    goal, seen = share * sum(lengths.values()), 0
    for length in sorted(lengths):
        seen += lengths[length]
        if seen >= goal:
            return length
    return 0


def remarks(view: DataView) -> list[str]:
    """What is wrong or risky, the gravest first, each with what to do."""
    found: list[str] = []
    train = view.split("train")
    assert train is not None
    if view.labels == "class" and len(train.labels) < 2:
        only = ", ".join(train.labels) or "none"
        found.append(f"The training rows have one class only ({only}): check data.label and the files.")
    for other in view.splits[1:]:
        if other.in_train:
            found.append(
                f"{other.in_train:,} of {other.rows:,} {other.name} texts ({other.in_train / other.rows:.1%}) stand "
                "in train as well: scores will flatter. Remove them from one of the two."
            )
        if other.name == "validation":
            found += _easier_than_the_test(other, view.split("test"))
        unseen = sorted(set(other.labels) - set(train.labels))
        if unseen:
            shown = ", ".join(unseen[:5]) + (", ..." if len(unseen) > 5 else "")
            found.append(f"{other.name} has labels that train has not: {shown}. Training would stop there.")
    if train.contradictions:
        found.append(
            f"{train.contradictions:,} texts of train come with more than one label: no model can get both right."
        )
    if train.copies > 0.01 * train.rows:
        found.append(f"{train.copies:,} training rows ({train.copies / train.rows:.1%}) are copies of earlier ones.")
    top = train.majority
    if view.labels == "class" and top is not None and top[1] > 0.8 and len(train.labels) > 1:
        found.append(
            f"{top[1]:.1%} of the training rows are {top[0]!r}: look at macro F1 rather than accuracy, and try "
            "objective.class_weights=balanced."
        )
    rare = [label for label, count in train.labels.items() if count < 10]
    if rare and view.labels != "number":
        shown = ", ".join(rare[:5]) + (", ..." if len(rare) > 5 else "")
        found.append(f"Fewer than 10 training rows for {len(rare)} labels ({shown}): hardly learnable.")
    measured = sum(train.tokens.values())
    if measured and train.too_long > 0.2 * measured:
        fate = "split into windows" if train.windows else "cut"
        found.append(
            f"{train.too_long / measured:.0%} of the training texts are longer than {view.max_length} tokens and will "
            f"be {fate}: a larger encoder.max_length may help."
        )
    if train.very_long:
        found.append(
            f"{train.very_long:,} texts have {VERY_LONG:,} characters or more (the longest {train.longest[0]:,}, "
            f"{train.longest[1]}): are they meant as one document each? See data.train.documents."
        )
    return found


def _easier_than_the_test(validation: SplitView, test: SplitView | None) -> list[str]:
    """The texts of pairs that validation has in common with train, and the test has not."""
    if test is None or not test.rows or not validation.rows:
        return []
    shares = {
        column: (known / validation.rows, test.parts_in_train.get(column, 0) / test.rows)
        for column, known in validation.parts_in_train.items()
    }
    easier = {column: share for column, share in shares.items() if share[0] > share[1] + _EASIER}
    if not easier:
        return []
    column, (share, of_test) = max(easier.items(), key=lambda one: one[1][0] - one[1][1])
    return [
        f"{share:.0%} of the validation rows have a {column} that is in train, and {of_test:.0%} of the test rows: "
        "what is chosen by validation is chosen for texts that are known, and its figures flatter. Leave "
        f"data.validation out and set data.group={column}, so that validation has values of its own there."
    ]
