"""A path in a recipe -> the files it means: file, folder, glob or Hub name, plain or packed (.gz, .zst)."""

from __future__ import annotations

import codecs
import contextlib
import glob
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Literal, cast

from encodery.errors import DataError, nearest

Format = Literal["text", "csv", "tsv", "jsonl", "json", "parquet", "folder", "hub"]

SUFFIXES: Final[dict[str, Format]] = {
    ".txt": "text",
    ".text": "text",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".pq": "parquet",
}
PACKED: Final = (".gz", ".zst")
HUB: Final = "hub:"

_HEAD = 8192
_MAGIC: Final[dict[bytes, str]] = {
    b"PAR1": "a parquet file",
    b"PK\x03\x04": "a zip archive (or an office document)",
    b"%PDF": "a PDF document",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"\x1f\x8b": "gzip data without the suffix .gz",
    b"\x28\xb5\x2f\xfd": "Zstandard data without the suffix .zst",
    b"\x7fELF": "a program",
    b"RIFF": "sound or video",
    b"OggS": "sound or video",
    b"SQLite format 3": "a database",
    b"BZh": "bzip2 data",
    b"\xfd7zXZ": "xz data",
}


@dataclass(frozen=True, slots=True)
class Place:
    """One file (or one Hub data set) that rows are read from.

    Attributes:
        path: the file; for a Hub name the part after `hub:`.
        name: how people are told about it, relative to the base folder where that is shorter.
        format: how to read it.
        label: the name of its sub-folder, for the format `folder`.
        size: bytes of text, estimated for packed files; 0 when unknown.
    """

    path: str
    name: str
    format: Format
    size: int
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What a path of a recipe led to: the places, and files of a folder that hold no rows with the reason."""

    places: tuple[Place, ...]
    passed_over: tuple[tuple[str, str], ...] = ()


def find(path: str, asked: str, base: Path, encoding: str = "utf-8") -> Found:
    """The places that `path` (relative to `base`) means, in the order of their names.

    Args:
        path: file, folder, glob, or `hub:owner/name[:config][@split]`.
        asked: the format said in the recipe, or `auto`.
        encoding: of the texts; a UTF-16 text is full of NUL bytes and must not be taken for a binary file.

    Raises:
        DataError: nothing there, an empty file, a folder without files, or a binary file.
    """
    if path.startswith(HUB):
        if asked not in ("auto", "parquet"):
            raise DataError(
                f"{path}: format '{asked}'", expected="format 'auto' for a Hub name", fix="remove `format:`"
            )
        return Found((Place(path[len(HUB) :], path, "hub", 0),))
    target = base / Path(path).expanduser()
    if target.is_file():
        if asked == "folder":
            raise DataError(
                f"{path}: is a file", expected="a folder of folders of texts", fix="remove `format: folder`"
            )
        return Found((_single(target, asked, base, encoding),))
    if target.is_dir():
        return _folder(target, asked, base, encoding)
    if glob.has_magic(path):
        files = sorted(Path(p) for p in glob.glob(str(target), recursive=True))
        files = [file for file in files if file.is_file()]
        if not files:
            raise DataError(
                f"{path}: no file matches (looked in {base})",
                expected="at least one file",
                fix="check the glob",
            )
        if len(files) == 1:
            return Found((_single(files[0], asked, base, encoding),))
        return _several(files, asked, base, encoding)
    raise _missing(path, target)


def _missing(path: str, target: Path) -> DataError:
    folder = target.parent
    if not folder.is_dir():
        return DataError(f"{path}: no such file, and no folder {folder}", fix="correct `path:` in the recipe")
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    hint = nearest(target.name, names)
    if not hint:
        stems = {Path(name).stem: name for name in names}
        close = stems.get(target.stem)
        hint = f", did you mean '{close}'?" if close else ""
    there = f"{folder} holds {_some(names)}" if names else f"the folder {folder} is empty"
    return DataError(f"{path}: no such file or folder{hint}", expected="an existing path", fix=f"correct it: {there}")


def _some(names: Iterable[str], shown: int = 8) -> str:
    listed = list(names)
    more = f" and {len(listed) - shown:,} more" if len(listed) > shown else ""
    return ", ".join(listed[:shown]) + more


def _single(file: Path, asked: str, base: Path, encoding: str) -> Place:
    name = _shown(file, base)
    if _size(file) == 0 or not head(file):
        raise DataError(f"{name}: is empty", expected="a file with rows", fix="fill the file or name another one")
    kind = suffix_format(file) if asked == "auto" else asked
    if kind is None or kind == "json":
        kind = looked_at(file, name, encoding, asked == "auto")
    elif kind != "parquet":
        refuse_binary(file, name, encoding)
    return _place(file, name, kind)


def _place(file: Path, name: str, kind: str, label: str | None = None) -> Place:
    if kind == "parquet" and file.suffix.lower() in PACKED:
        raise DataError(
            f"{name}: a packed parquet file",
            expected="parquet as it is, which is packed inside",
            fix=f"unpack {file.name}",
        )
    size = 2 * _size(file) if kind == "parquet" else _text_size(file)
    return Place(str(file), name, cast(Format, kind), size, label)


def _folder(folder: Path, asked: str, base: Path, encoding: str) -> Found:
    files = sorted(
        file
        for file in folder.rglob("*")
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )
    if not files:
        raise DataError(f"{_shown(folder, base)}: a folder without files", expected="at least one file", fix="fill it")
    if asked == "folder":
        labelled = []
        for file in files:
            parts = file.relative_to(folder).parts
            labelled.append(_place(file, _shown(file, base), "folder", parts[0] if len(parts) > 1 else None))
        return Found(tuple(labelled))
    return _several(files, asked, base, encoding, _shown(folder, base))


def _several(files: list[Path], asked: str, base: Path, encoding: str, what: str = "the glob") -> Found:
    """Choose among the files of a folder. Beside tables, texts (a README, a licence) hold no rows; and beside
    files of known suffixes, files of unknown ones hold none."""
    formats = {file: suffix_format(file) for file in files}
    kept = files
    if asked in ("csv", "tsv", "parquet"):
        kept = [file for file in files if formats[file] == asked]
    elif asked in ("json", "jsonl"):
        kept = [file for file in files if formats[file] in ("json", "jsonl")]
    elif asked == "text":
        kept = [file for file in files if formats[file] in ("text", None)]
    elif any(kind not in ("text", None) for kind in formats.values()):
        kept = [file for file in files if formats[file] not in ("text", None)]
    elif "text" in formats.values():
        kept = [file for file in files if formats[file] == "text"]
    if not kept:
        raise DataError(
            f"{what}: no file of format '{asked}' among {_some(file.name for file in files)}",
            expected=f"files that end in {', '.join(s for s, f in SUFFIXES.items() if f == asked)}",
            fix="correct `path:` or `format:`",
        )
    chosen = set(kept)
    passed_over = [(_shown(file, base), "file passed over") for file in files if file not in chosen]
    places = []
    for file in kept:
        name = _shown(file, base)
        kind = formats[file] if asked == "auto" else asked
        if kind == "json" and _size(file):
            kind = looked_at(file, name, encoding, asked == "auto")
        places.append(_place(file, name, kind or "text"))
    return Found(tuple(places), tuple(passed_over))


def _shown(file: Path, base: Path) -> str:
    try:
        return file.relative_to(base).as_posix()
    except ValueError:
        return str(file)


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError as error:
        raise DataError(
            f"{file}: cannot be read ({error.strerror})", fix="check that the file is still there"
        ) from error


def _text_size(file: Path) -> int:
    """Bytes when unpacked: what the packed file says where that is credible, else three times its size."""
    size, suffix = _size(file), file.suffix.lower()
    if suffix not in PACKED or size < 18:
        return size
    said = -1
    with file.open("rb") as stream:
        if suffix == ".gz":
            # The trailer counts the last member alone, and modulo 2^32.
            stream.seek(-4, 2)
            said = int.from_bytes(stream.read(4), "little")
        else:
            import zstandard

            with contextlib.suppress(zstandard.ZstdError):
                said = zstandard.frame_content_size(stream.read(18))
    return said if size <= said < 1000 * size else 3 * size


def suffix_format(file: Path) -> Format | None:
    """The format that the file's name tells, .gz and .zst taken off first; None for an unknown suffix."""
    suffixes = [suffix.lower() for suffix in file.suffixes]
    if suffixes and suffixes[-1] in PACKED:
        suffixes.pop()
    return SUFFIXES.get(suffixes[-1]) if suffixes else None


def open_bytes(file: Path) -> IO[bytes]:
    """Open a file for reading, unpacking .gz and .zst on the way, a block at a time."""
    suffix = file.suffix.lower()
    if suffix == ".gz":
        import gzip

        return cast("IO[bytes]", gzip.open(file, "rb"))
    if suffix == ".zst":
        return _open_zst(file)
    return file.open("rb")


def _open_zst(file: Path) -> IO[bytes]:
    import io

    import zstandard

    class Unpacked(io.RawIOBase):
        """The library's own reader ends silently on a truncated file; this one says so."""

        def __init__(self) -> None:
            self._packed = file.open("rb")
            self._blocks = self._unpack()
            self._rest = memoryview(b"")

        def _unpack(self) -> Iterator[bytes]:
            context = zstandard.ZstdDecompressor()
            frame, block = context.decompressobj(), self._packed.read(step := 64)
            started = False
            while block:
                started = True
                unpacked = frame.decompress(block)
                yield unpacked
                if frame.eof:
                    block, started = frame.unused_data, False
                    frame = context.decompressobj()
                    if block:
                        continue
                # Highly repetitive data grows ten thousandfold, so it is read in the smallest steps.
                step = 64 if len(unpacked) > 65536 else min(512, 2 * step)
                block = self._packed.read(step)
            if started:
                raise EOFError("the Zstandard data ends in the middle")

        def readable(self) -> bool:
            return True

        def readinto(self, buffer) -> int:  # type: ignore[override]
            while not self._rest:
                block = next(self._blocks, None)
                if block is None:
                    return 0
                self._rest = memoryview(block)
            count = min(len(buffer), len(self._rest))
            buffer[:count] = self._rest[:count]
            self._rest = self._rest[count:]
            return count

        def close(self) -> None:
            self._packed.close()
            super().close()

    return io.BufferedReader(Unpacked(), 65536)


def unpack_errors() -> tuple[type[Exception], ...]:
    """What reading a damaged packed file, or a file that cannot be read, raises."""
    import zlib

    import zstandard

    return (OSError, EOFError, zlib.error, zstandard.ZstdError)


def head(file: Path) -> bytes:
    """The first 8 KiB, unpacked.

    Raises:
        DataError: the file cannot be read or unpacked.
    """
    try:
        with open_bytes(file) as stream:
            return stream.read(_HEAD)
    except unpack_errors() as error:
        raise DataError(
            f"{file.name}: cannot be read ({error})",
            expected=f"a sound file at {file}",
            fix="fetch or pack it again",
        ) from error


def what_binary(start: bytes, encoding: str) -> str | None:
    """Why these first bytes are not text, or None when they may well be.

    A few NUL characters inside good text are not enough: they are dealt with row by row.
    """
    for magic, meaning in _MAGIC.items():
        if start.startswith(magic):
            return meaning
    if codecs.lookup(encoding).name.startswith(("utf-16", "utf-32")):
        return None
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "UTF-16 text: say `encoding: utf-16`"
    if b"\x00" not in start:
        return None
    control = sum(byte < 32 and byte not in b"\t\n\r\f\b\x1b" for byte in start) / len(start)
    try:
        codecs.getincrementaldecoder(encoding)().decode(start)
        broken = False
    except UnicodeDecodeError:
        broken = True
    return "a binary file (NUL bytes at its start)" if control > (0.05 if broken else 0.3) else None


def binary_among(places: Sequence[Place], place: Place, encoding: str) -> str | None:
    """Why one of several places holds no text, or None. Alone a binary file is an error (see `find`); among others it
    is a bad row like any other."""
    if len(places) < 2 or place.format in ("parquet", "hub"):
        return None
    return what_binary(head(Path(place.path)), encoding)


def refuse_binary(file: Path, name: str, encoding: str) -> bytes:
    """Return the first bytes of a text file, or raise DataError for a binary one."""
    start = head(file)
    meaning = what_binary(start, encoding)
    if meaning is not None:
        raise DataError(
            f"{name}: not plain text: {meaning}",
            expected="text, csv, tsv, jsonl, json, or any of these packed as .gz or .zst, or parquet",
            fix="name another file, or correct `format:` or `encoding:`",
        )
    return start


def looked_at(file: Path, name: str, encoding: str, guess: bool) -> Format:
    """The format that the first bytes tell; `.json` files often hold JSON Lines.

    Raises:
        DataError: a binary file.
    """
    start = head(file)
    if start.startswith(b"PAR1") and guess:
        return "parquet"
    start = refuse_binary(file, name, encoding)
    first = start.decode(encoding, errors="replace").lstrip("\ufeff").lstrip()
    if suffix_format(file) == "json" or not guess:
        return "json" if first[:1] != "{" else _object_or_lines(first)
    try:
        return "jsonl" if isinstance(json.loads(first.splitlines()[0]), dict) else "text"
    except (ValueError, IndexError, RecursionError):
        return "text"


_NESTED = re.compile(r'\{\s*("version"\s*:\s*"[^"]*"\s*,\s*)?"data"\s*:\s*\[\s*\{')


def _object_or_lines(first: str) -> Format:
    """A `.json` that starts with `{`: one object per line, or one object as a whole, as questions in SQuAD's form are
    (data/answers.py; any other is refused)."""
    whole = first.splitlines()[0].strip() == "{" or _NESTED.match(first) is not None
    return "json" if whole else "jsonl"
