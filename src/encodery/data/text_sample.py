"""A sample of documents in bounded memory, drawn evenly from a stream of any length."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable, Iterator

Progress = Callable[[str, float], None]

_PART = 65_536  # bytes: a longer document is sampled in parts, so that one giant file is no special case


def clean_surrogates(text: str) -> str:
    """Replace lone surrogates (not valid Unicode text) by U+FFFD; lengths and offsets stay as they were."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in text)
    return text


def sample_documents(texts: Iterable[str], max_bytes: int, seed: int, on_progress: Progress | None = None) -> list[str]:
    """Hold at most `max_bytes` (UTF-8) of documents, drawn evenly from the whole stream, in stream order.

    Every part of a document draws a key; when the budget is full the largest keys leave. This is a reservoir
    whose size is counted in bytes: one pass, the same answer for the same stream and seed.
    """
    draw = random.Random(seed).random
    kept: list[tuple[float, int, bytes]] = []  # a heap whose first entry has the largest key
    size, bar, number, seen = 0, 2.0, 0, 0
    for text in texts:
        encoded = clean_surrogates(text).encode("utf-8")
        seen += len(encoded)
        for part in _parts(encoded, min(_PART, max_bytes)):
            key, number = draw(), number + 1
            if key >= bar:
                continue
            heapq.heappush(kept, (-key, number, part))
            size += len(part)
            while size > max_bytes:
                worst = heapq.heappop(kept)
                bar = -worst[0]
                size -= len(worst[2])
        if on_progress is not None and number % 1024 == 0:
            on_progress("sample", min(1.0, seen / max_bytes))
    if on_progress is not None:
        on_progress("sample", 1.0)
    kept.sort(key=lambda item: item[1])
    return [part.decode("utf-8") for _, _, part in kept]


def _parts(encoded: bytes, limit: int) -> Iterator[bytes]:
    """Cut at white space where there is some, and never inside a character."""
    start = 0
    while len(encoded) - start > limit:
        stop = start + limit
        space = max(encoded.rfind(b" ", start + 1, stop), encoded.rfind(b"\n", start + 1, stop))
        if space > start + limit // 2:
            stop = space
        while encoded[stop] & 0xC0 == 0x80:
            stop -= 1
        yield encoded[start:stop]
        start = stop
    if start < len(encoded):
        yield encoded[start:]
