"""One place -> raw rows as dictionaries, streamed; an unreadable row is given out as a bad one."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from encodery.data import hub, ledger
from encodery.data.answers import squad_rows
from encodery.data.lines import MARK, Lines, Reading, open_lines
from encodery.data.places import Place
from encodery.errors import DataError, MissingExtra, nearest

LONGEST_FIELD: Final = 1 << 24
"""Characters in one csv field; a quote that is never closed would otherwise swallow the rest of the file."""

COLUMNS_LOOKED_AT: Final = 100
"""Rows of a JSON file that are read to learn its columns."""

FIXED_COLUMNS: Final = frozenset({"csv", "tsv", "parquet", "hub", "text", "folder"})
"""Formats whose columns are known before the first row."""


@dataclass(frozen=True, slots=True)
class Raw:
    """One row as it stands in the file, or (`bad` set) why it cannot be read. `size` is in bytes."""

    value: dict[str, Any]
    where: str
    size: int
    bad: str = ""
    detail: str = ""


def read(place: Place, how: Reading) -> Iterator[Raw]:
    """All rows of one place, in order.

    Raises:
        DataError: the file is damaged, or is not of the format it claims to be.
        MissingExtra: parquet or the Hub without the package they need.
    """
    if place.format == "hub":
        return _hub(place, how)
    if place.format == "parquet":
        return _parquet(place, how)
    if place.format == "json":
        return _json_array(place, how)
    if place.format == "jsonl":
        return _jsonl(place, how)
    if place.format == "folder" or (place.format == "text" and how.documents == "file"):
        return _whole(place, how)
    if place.format == "text":
        return _blocks(place, how) if how.documents == "blank" else _text_lines(place, how)
    if place.format == "tsv" and how.quotes != "yes":
        return _plain_table(place, how)
    return _table(place, how)


def column_names(place: Place, how: Reading) -> list[str]:
    """The columns of a place; for JSON those of its first 100 readable rows, in the order they were met."""
    if place.format == "text":
        return ["text"]
    if place.format == "folder":
        return ["text", "label"]
    if place.format == "hub":
        return hub.names(hub.open_stream(place.path, how.split), place.path)
    if place.format == "parquet":
        with _parquet_file(place) as file:
            return list(file.schema_arrow.names)
    if place.format in ("csv", "tsv"):
        with open_lines(place, how, newline="") as lines:
            return _header(place, how, lines)
    seen: dict[str, None] = {}
    count = 0
    for raw in read(place, how):
        seen.update(dict.fromkeys(raw.value))
        count += not raw.bad
        if count >= COLUMNS_LOOKED_AT:
            break
    return list(seen)


# ---- plain text ----


def _text_lines(place: Place, how: Reading) -> Iterator[Raw]:
    with open_lines(place, how) as lines:
        for line in lines:
            bad, detail = lines.fault(line)
            where = f"{place.name}:{lines.number}"
            text = line.rstrip("\r\n")
            if not bad and (not text or text.isspace()):
                lines.taken()
                yield Raw({}, where, 0, ledger.BLANK_LINE)
            else:
                yield Raw({"text": text}, where, lines.taken(), bad, detail)
        if lines.number == 0:
            yield Raw({}, place.name, 0, ledger.EMPTY_FILE)


def _blocks(place: Place, how: Reading) -> Iterator[Raw]:
    """Documents separated by one or more blank lines."""
    block: list[str] = []
    start, bad, detail = 0, "", ""
    with open_lines(place, how) as lines:
        for line in lines:
            if line.isspace():
                if block:
                    text = "\n".join(block)
                    yield Raw({"text": text}, f"{place.name}:{start}", lines.taken(), bad, detail)
                    block, bad, detail = [], "", ""
                continue
            if not block:
                start = lines.number
            fault, what = lines.fault(line)
            if fault and not bad:
                bad, detail, start = fault, what, lines.number
            block.append(line.rstrip("\r\n"))
        if block:
            yield Raw({"text": "\n".join(block)}, f"{place.name}:{start}", lines.taken(), bad, detail)
        if lines.number == 0:
            yield Raw({}, place.name, 0, ledger.EMPTY_FILE)


def _whole(place: Place, how: Reading) -> Iterator[Raw]:
    """The whole file as one document; of the format `folder` the sub-folder is its label."""
    parts: list[str] = []
    bad, detail, where = "", "", f"{place.name}:1"
    with open_lines(place, how) as lines:
        for line in lines:
            fault, what = lines.fault(line)
            if fault and not bad:
                bad, detail, where = fault, what, f"{place.name}:{lines.number}"
            parts.append(line)
        size = lines.taken()
    text = "".join(parts).replace("\r\n", "\n").rstrip("\n")
    if not parts:
        yield Raw({}, place.name, 0, ledger.EMPTY_FILE)
    elif place.format == "folder":
        yield Raw({"text": text, "label": place.label}, where, size, bad, detail)
    else:
        yield Raw({"text": text}, where, size, bad, detail)


# ---- tables ----


def _delimiter(place: Place, how: Reading) -> str:
    return how.delimiter or ("\t" if place.format == "tsv" else ",")


def _reader(place: Place, how: Reading, lines: Iterator[str]) -> Any:
    csv.field_size_limit(LONGEST_FIELD)
    quoting = csv.QUOTE_NONE if how.quotes == "no" else csv.QUOTE_MINIMAL
    # strict: a field that goes on after its closing quote is an error, not a guess.
    return csv.reader(lines, delimiter=_delimiter(place, how), quoting=quoting, strict=True)


def _unquoted(field: str) -> str:
    """A tsv field that was quoted by a csv writer, without its quotes; any other field as it is."""
    if len(field) >= 2 and field[0] == '"' == field[-1]:
        inside = field[1:-1]
        if '"' not in inside.replace('""', ""):
            return inside.replace('""', '"')
    return field


def _header(place: Place, how: Reading, lines: Lines) -> list[str]:
    """The names in the first line that is not blank.

    Raises:
        DataError: a name twice, an unreadable line, or one column that holds another separator.
    """
    delimiter = _delimiter(place, how)
    for line in lines:
        bad, detail = lines.fault(line)
        where = f"{place.name}:{lines.number}"
        if bad:
            raise DataError(f"{where}: {bad} in the header ({detail})", fix=ledger.FIXES[bad])
        if line.isspace():
            continue
        if place.format == "tsv" and how.quotes != "yes":
            names = [_unquoted(field) for field in line.rstrip("\r\n").split(delimiter)]
        else:
            # A header over several lines (a name with a line break) is not worth carrying on with.
            try:
                names = next(_reader(place, how, iter([line])))
            except csv.Error as error:
                raise DataError(
                    f"{where}: the header cannot be read ({error})", fix=ledger.FIXES[ledger.BROKEN_QUOTES]
                ) from error
        names = [name.strip() for name in names]
        other = next((sign for sign in (";", "\t", "|", ",") if sign != delimiter and sign in line), None)
        if len(names) == 1 and other:
            raise DataError(
                f"{where}: the header {line.strip()!r} is one column that holds {other!r}",
                expected=f"columns separated by {delimiter!r}",
                fix=f"say `delimiter: {json.dumps(other)}` beside the path, or save it with {delimiter!r}",
            )
        twice = next((name for name in names if names.count(name) > 1 and name), None)
        if twice is not None:
            raise DataError(
                f"{where}: the column '{twice}' is there twice",
                expected="one column of a name",
                fix="rename one",
            )
        return names
    raise DataError(f"{place.name}: has no header line", expected="a first line that names the columns", fix="add it")


def _table(place: Place, how: Reading) -> Iterator[Raw]:
    """csv with quotes: a row may take several lines; it is known by the first of them."""
    with open_lines(place, how, newline="") as lines:
        names = _header(place, how, lines)
        fault: list[tuple[str, str]] = []

        def watched() -> Iterator[str]:
            for line in lines:
                found = lines.fault(line)
                if found[0]:
                    fault.append(found)
                yield line

        rows = _reader(place, how, watched())
        before = lines.number
        while True:
            bad, detail = "", ""
            fields: list[str] | None = None
            try:
                fields = next(rows, None)
            except csv.Error as error:
                bad, detail = ledger.BROKEN_QUOTES, str(error)
            if fields is None and not bad:
                return
            where = f"{place.name}:{before + 1}"
            if bad and lines.number > before + 1:
                detail += f"; lines {before + 1} to {lines.number} are lost"
            before = lines.number
            if fault:
                bad, detail = fault[0]
                fault.clear()
            yield from _as_raw(names, fields or [], where, lines.taken(), bad, detail)


def _plain_table(place: Place, how: Reading) -> Iterator[Raw]:
    """tsv: one line is one row; a lone quote is a character like any other."""
    delimiter = _delimiter(place, how)
    with open_lines(place, how) as lines:
        names = _header(place, how, lines)
        for line in lines:
            bad, detail = lines.fault(line)
            fields = line.rstrip("\r\n").split(delimiter) if line.strip("\r\n") else []
            if how.quotes == "auto" and '"' in line:
                fields = [_unquoted(field) for field in fields]
            yield from _as_raw(names, fields, f"{place.name}:{lines.number}", lines.taken(), bad, detail)


def _as_raw(names: list[str], fields: list[str], where: str, size: int, bad: str, detail: str) -> Iterator[Raw]:
    if not bad and not fields:
        yield Raw({}, where, size, ledger.BLANK_LINE)
        return
    if not bad and len(fields) != len(names):
        bad, detail = ledger.WRONG_FIELDS, f"{len(fields)} fields, the header has {len(names)}"
    yield Raw({} if bad else dict(zip(names, fields)), where, size, bad, detail)


# ---- JSON ----


def _jsonl(place: Place, how: Reading) -> Iterator[Raw]:
    with open_lines(place, how) as lines:
        for line in lines:
            where = f"{place.name}:{lines.number}"
            if line.isspace():
                yield Raw({}, where, lines.taken(), ledger.BLANK_LINE)
                continue
            bad, detail = lines.fault(line)
            value: Any = {}
            if not bad:
                try:
                    value = json.loads(line)
                except (ValueError, RecursionError) as error:
                    bad, detail = ledger.BROKEN_JSON, _json_error(error)
                else:
                    if not isinstance(value, dict):
                        bad, detail, value = ledger.NOT_AN_OBJECT, f"a {type(value).__name__}", {}
            yield Raw(value, where, lines.taken(), bad, detail)
        if lines.number == 0:
            yield Raw({}, place.name, 0, ledger.EMPTY_FILE)


def _json_error(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at column {error.colno}"
    return "too deeply nested" if isinstance(error, RecursionError) else str(error)


def _json_array(place: Place, how: Reading) -> Iterator[Raw]:
    """A `.json` file that is one array of objects, or questions as SQuAD nests them; read as a whole: large data
    belongs into JSON Lines."""
    with open_lines(place, how) as lines:
        text = "".join(lines)
    if not text:
        yield Raw({}, place.name, 0, ledger.EMPTY_FILE)
        return
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        line = error.lineno if isinstance(error, json.JSONDecodeError) else 1
        raise DataError(
            f"{place.name}:{line}: {ledger.BROKEN_JSON} ({_json_error(error)})",
            expected="one JSON array of objects",
            fix="mend the file, or write one object per line and name it .jsonl",
        ) from error
    nested = squad_rows(values)
    values = values if nested is None else list(nested)
    if not isinstance(values, list):
        raise DataError(
            f"{place.name}: holds one JSON {'object' if isinstance(values, dict) else 'value'}",
            expected="one JSON array of objects",
            fix='write [{"text": "..."}, ...], or one object per line and name it .jsonl',
        )
    size = len(text) // max(1, len(values))
    for number, value in enumerate(values, start=1):
        where = f"{place.name}:item {number}"
        if not isinstance(value, dict):
            yield Raw({}, where, size, ledger.NOT_AN_OBJECT, f"a {type(value).__name__}")
        elif any(isinstance(part, str) and MARK in part for part in value.values()):
            yield Raw({}, where, size, ledger.WRONG_ENCODING)
        else:
            yield Raw(value, where, size)


# ---- parquet and the Hub ----


@contextmanager
def _parquet_file(place: Place) -> Iterator[Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra("pyarrow", "parquet", f"reading {place.name}") from error
    try:
        with pyarrow.parquet.ParquetFile(place.path) as file:
            yield file
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(
            f"{place.name}: not a sound parquet file ({reason})",
            expected="a parquet file",
            fix="write or fetch it again",
        ) from error


def _parquet(place: Place, how: Reading) -> Iterator[Raw]:
    """Row groups one after the other, in batches; only the wanted columns are read."""
    with _parquet_file(place) as file:
        names = file.schema_arrow.names
        columns = [name for name in names if how.wanted is None or name in how.wanted]
        number = 0
        for batch in file.iter_batches(batch_size=1024, columns=columns):
            size = batch.nbytes // max(1, batch.num_rows)
            for value in batch.to_pylist():
                number += 1
                yield Raw(value, f"{place.name}:row {number}", size)


def _hub(place: Place, how: Reading) -> Iterator[Raw]:
    stream = hub.open_stream(place.path, how.split)
    for value, number in hub.rows(stream, place.path):
        size = sum(len(part) for part in value.values() if isinstance(part, str))
        yield Raw(value, f"{place.name}:row {number}", size)


def no_column(name: str, key: str, names: list[str], where: str) -> DataError:
    """The error for a column that is not there: `key` is the recipe's word for it (text, pair, label)."""
    return DataError(
        f"{where}: there is no column '{name}'{nearest(name, names)}",
        expected=f"`{key}:` to name one of the columns: {', '.join(repr(n) for n in names) or 'none'}",
        fix=f"say `{key}:` with one of these (a csv file needs a first line that names its columns)",
    )
