"""Rows of a data set on the Hugging Face Hub (or a folder that `datasets.load_dataset` opens), streamed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from encodery.errors import DataError, MissingExtra


def parse(rest: str) -> tuple[str, str | None, str | None]:
    """Take `owner/name[:config][@split]` apart into name, config and split."""
    name, _, split = rest.partition("@")
    name, _, config = name.partition(":")
    if not name:
        raise DataError(
            f"hub:{rest}: no data set named",
            expected="hub:owner/name[:config][@split]",
            fix="write, say, hub:owner/name@train",
        )
    return name, config or None, split or None


def open_stream(rest: str, split: str) -> Any:
    """The streaming data set; `split` holds when the name itself does not say one.

    Raises:
        MissingExtra: the package `datasets` is not installed.
        DataError: the name, its config or its split cannot be reached.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingExtra("datasets", "hub", f"reading hub:{rest}") from error
    name, config, own_split = parse(rest)
    split = own_split or split
    try:
        return datasets.load_dataset(name, config, split=split, streaming=True)
    except Exception as error:
        # The library raises a dozen classes (network, name, config, split); all are the user's to mend.
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(
            f"hub:{rest}: cannot be opened (split '{split}'): {reason[0]}",
            expected="hub:owner/name[:config][@split] that can be reached from here",
            fix="check the name, config, split and network, or download it and give the file's path",
        ) from error


def names(stream: Any, rest: str) -> list[str]:
    """The columns; the first row is read where the data set does not declare them."""
    if stream.features is not None:
        return list(stream.features)
    for value, _ in rows(stream, rest):
        return list(value)
    return []


def rows(stream: Any, rest: str) -> Iterator[tuple[dict[str, Any], int]]:
    """The rows with their numbers, from 1. Numbers of a declared class become the name of the class.

    Raises:
        DataError: the stream breaks off.
    """
    classes = {
        name: list(feature.names)
        for name, feature in (stream.features or {}).items()
        if isinstance(getattr(feature, "names", None), list)
    }
    number = 0
    try:
        for value in stream:
            number += 1
            for name, known in classes.items():
                label = value.get(name)
                if isinstance(label, int):
                    # -1 is the Hub's way to say that a test row has no label.
                    value[name] = known[label] if 0 <= label < len(known) else None
            yield value, number
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"hub:{rest}: the stream broke off after row {number}: {error}",
            expected="a data set that can be read to its end",
            fix="try again, or download it and give the file's path",
        ) from error
