"""A file -> numbered, decoded lines; a wrong byte or an endless line costs one line and not the file."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from encodery.data import ledger
from encodery.data.places import Place, open_bytes, unpack_errors
from encodery.errors import DataError

LONGEST_LINE: Final = 1 << 25
"""Characters; a longer line is a bad row, so that a file without line breaks cannot fill the memory."""

# Bytes that cannot be decoded become this lone surrogate, which no valid text holds: a wrong byte then costs
# one row and not the file, in every encoding, and line numbers stay right.
MARK = "\udc80"


def _mark(error: UnicodeError) -> tuple[str, int]:
    if isinstance(error, UnicodeDecodeError):
        return MARK, error.end
    raise error


codecs.register_error("encodery.mark", _mark)


@dataclass(frozen=True, slots=True)
class Reading:
    """How a place is read: the fields of a SourceConfig that matter here, and the columns that are wanted."""

    documents: Literal["line", "blank", "file"] = "line"
    encoding: str = "utf-8"
    delimiter: str | None = None
    quotes: Literal["auto", "yes", "no"] = "auto"
    wanted: tuple[str, ...] | None = None
    split: str = "train"


class Lines:
    """Numbered lines with the count of their bytes, never more than one in memory."""

    def __init__(self, stream: io.TextIOWrapper) -> None:
        self._stream = stream
        self.number = 0
        self.size = 0
        self.too_long = False

    def __iter__(self) -> Iterator[str]:
        readline = self._stream.readline
        while line := readline(LONGEST_LINE):
            if self.number == 0:
                line = line.removeprefix("\ufeff")
            self.number += 1
            self.size += len(line) if line.isascii() else len(line.encode("utf-8", "surrogatepass"))
            self.too_long = len(line) == LONGEST_LINE and line[-1] not in "\r\n"
            if self.too_long:
                while (rest := readline(LONGEST_LINE)) and rest[-1] not in "\r\n":
                    self.size += len(rest)
            yield line

    def taken(self) -> int:
        """Bytes since the last call."""
        size, self.size = self.size, 0
        return size

    def fault(self, line: str) -> tuple[str, str]:
        """The kind of bad row and the detail, both empty for a sound line."""
        if self.too_long:
            return ledger.LINE_TOO_LONG, f"more than {LONGEST_LINE:,} characters"
        if MARK in line and not line.isascii():
            return ledger.WRONG_ENCODING, f"after '{_readable(line[: line.index(MARK)][-20:])}'"
        return "", ""


def _readable(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)


@contextmanager
def open_lines(place: Place, how: Reading, newline: str = "\n") -> Iterator[Lines]:
    """Decoded lines of a file. Only a line feed ends a line (csv: also a carriage return), as editors
    count."""
    lines = None
    try:
        with (
            open_bytes(Path(place.path)) as packed,
            io.TextIOWrapper(packed, encoding=how.encoding, errors="encodery.mark", newline=newline) as stream,
        ):
            lines = Lines(stream)
            yield lines
    except unpack_errors() as error:
        at = f" after line {lines.number}" if lines else ""
        raise DataError(
            f"{place.name}: reading broke off{at}: {error}",
            expected="a sound file",
            fix="fetch or pack it again",
        ) from error
