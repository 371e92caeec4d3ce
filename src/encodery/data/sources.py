"""The data part of a recipe -> good rows in a fixed order, split, weighted and mixed."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from encodery.data import ledger as kinds
from encodery.data.fields import Field
from encodery.data.ledger import Ledger, Watch
from encodery.data.lines import Reading
from encodery.data.places import Place, binary_among, find
from encodery.data.readers import Raw, column_names, read
from encodery.data.rows import Labels, Row
from encodery.data.source_config import DataConfig, SourceConfig, Split, has_split, sources_of
from encodery.data.streams import Stream, mixed, one_after_another, reading
from encodery.errors import DataError

__all__ = [
    "DataConfig",
    "Labels",
    "Ledger",
    "Row",
    "Sampled",
    "SourceConfig",
    "Split",
    "columns",
    "fingerprint",
    "has_split",
    "read_rows",
    "sample_rows",
    "total_bytes",
]

_READER_VERSION: Final = 1
"""Part of the fingerprint: count up when the same files would give other rows."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """The first rows of a source as they stand in the file, for looking at before anything is configured."""

    format: str
    columns: list[str]
    rows: list[dict[str, Any]]
    problems: list[str]
    """Bad rows among those looked at: `file:line: kind (detail)`."""


def read_rows(
    data: DataConfig,
    split: Split,
    *,
    base: Path,
    seed: int,
    labels: Labels,
    ledger: Ledger,
    skip: int = 0,
    fields: tuple[Field, ...] = (),
) -> Iterator[Row]:
    """The good rows of a split, streamed, in an order that depends on the data and the seed alone.

    Training sources are mixed in proportion to their sizes, and the files of one source are put in a random
    order, but rows of one file stay in order: shuffle them afterwards. Validation and test rows come as they
    stand.

    Args:
        base: folder that the paths of the recipe are relative to.
        seed: of the run. Use one seed for all splits and epochs: it decides which rows are kept for
        validation. labels: what label to make of the label column. `class`: str, where 1, 1.0 and "1.0" are
            all "1"; `classes`: list of str; `number`: finite float.
        ledger: gets the counts. Both sides of a split made here read, and so count, the whole training data.
        skip: leave out the first so many good rows (to resume). They are read, because only reading tells
            which rows are good, and they are counted, so that the ledger is that of the uninterrupted run.
        fields: what rows carry beside text and label.

    Raises:
        DataError: a source or column is missing, or too many rows are bad (see DataConfig.bad_rows).
        MissingExtra: a format needs a package that is not installed.
    """
    yield from islice(_all_rows(data, split, base, seed, labels, ledger, fields), skip, None)


def _all_rows(
    data: DataConfig,
    split: Split,
    base: Path,
    seed: int,
    labels: Labels,
    ledger: Ledger,
    fields: tuple[Field, ...],
) -> Generator[Row, None, None]:
    sources, side = sources_of(data, split)
    watch = Watch(ledger, data.bad_rows, data.bad_rows_share)
    streams = [Stream(source, data, split, side, base, seed, labels, watch, fields) for source in sources]
    given = 0
    for row in mixed(streams, seed) if split == "train" else one_after_another(streams):
        given += 1
        yield row
    what = ", ".join(source.path for source in sources)
    watch.finish(what)
    if given == 0:
        raise DataError(
            f"{what}: none of the {watch.good:,} rows fell to the {split} data",
            expected="at least one row; they are chosen by a hash of their text "
            f"(`validation_share: {data.validation_share:g}`) or by weight",
            fix=f"name data of its own (`data.{split}:`), or give more rows",
        )


def total_bytes(data: DataConfig, split: Split, *, base: Path) -> int:
    """Bytes of text behind a split (all of the training data for a split made from it), weights left aside.

    The size of packed files is estimated; a Hub name, whose size is not known, counts 0.
    """
    sources, _ = sources_of(data, split)
    return sum(p.size for s in sources for p in find(s.path, s.format, base, s.encoding).places)


def fingerprint(data: DataConfig, split: Split, *, base: Path) -> str:
    """32 hex digits that change when the rows of a split may have changed: for the names of caches.

    Taken from the config and the names, sizes and times of the files; of their contents at most the first 8
    KiB of files whose name does not tell their format are looked at. The seed and the kind of labels are the
    caller's to add.
    """
    sources, side = sources_of(data, split)
    shared = data.model_dump_json(exclude={"train", "validation", "test", "validation_share", "long", "tokens"})
    parts = [f"rows {_READER_VERSION}", split, shared]
    if side is not None:
        parts.append(f"share {data.validation_share!r}")
    for source in sources:
        parts.append(source.model_dump_json())
        for place in find(source.path, source.format, base, source.encoding).places:
            state = Path(place.path).stat() if place.format != "hub" else None
            parts.append(f"{place.name}\t{place.format}\t{(state.st_size, state.st_mtime_ns) if state else ''}")
    return hashlib.blake2b("\n".join(parts).encode("utf-8", "replace"), digest_size=16).hexdigest()


def columns(source: SourceConfig, base: Path) -> list[str]:
    """The columns of a source (of its first file); of plain text `text`, of a `folder` `text` and `label`.

    Raises:
        DataError: as `read_rows`.
    """
    place = find(source.path, source.format, base, source.encoding).places[0]
    return column_names(place, reading(source, None, "train"))


def sample_rows(source: SourceConfig, *, base: Path, count: int = 100) -> Sampled:
    """The first `count` readable rows of a source with all their columns, as they stand.

    Raises:
        DataError: as `read_rows`; bad rows are only listed.
    """
    places = find(source.path, source.format, base, source.encoding).places
    how = reading(source, None, "train")
    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    for raw in _raws(places, how):
        if not raw.bad:
            rows.append(raw.value)
        elif raw.bad != kinds.BLANK_LINE:
            problems.append(f"{raw.where}: {raw.bad}{f' ({raw.detail})' if raw.detail else ''}")
        if len(rows) >= count or len(problems) > max(100, count):
            break
    names = dict.fromkeys(column_names(places[0], how))
    for row in rows:
        names.update(dict.fromkeys(row))
    return Sampled(places[0].format, list(names), rows, problems)


def _raws(places: tuple[Place, ...], how: Reading) -> Iterator[Raw]:
    for place in places:
        if (meaning := binary_among(places, place, how.encoding)) is not None:
            yield Raw({}, place.name, 0, meaning)
            continue
        yield from read(place, how)
