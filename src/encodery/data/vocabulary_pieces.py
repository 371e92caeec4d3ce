"""What the tokens of a vocabulary stand for, and which of them begin a word where the library cannot tell: in scripts
without spaces."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator

import numpy as np

from encodery.data.tokenizer_training import HfTokenizer

_UNSPACED_RANGES = (
    (0x3005, 0x3007),
    (0x3041, 0x3096),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x323AF),
    (0x0E01, 0x0EFF),
    (0x1000, 0x109F),
    (0x1780, 0x17FF),
)


def is_unspaced(char: str) -> bool:
    """A character of a script without spaces, able to begin a word."""
    code = ord(char)
    return any(low <= code <= high for low, high in _UNSPACED_RANGES) and unicodedata.category(char)[0] != "M"


def vocabulary_tables(inner: HfTokenizer) -> tuple[np.ndarray, np.ndarray]:
    """Per id: is it white space only; does it begin with a character of a script without spaces."""
    size = max(inner.get_vocab(with_added_tokens=True).values(), default=-1) + 1
    blank, unspaced = np.zeros(size, dtype=bool), np.zeros(size, dtype=bool)
    for number, piece in pieces(inner):
        if isinstance(piece, bytes):
            blank[number] = bool(piece) and not piece.strip()
            # Half a character still tells its script: E4 to E9 begin ideographs.
            text = piece.decode("utf-8", "ignore")
            unspaced[number] = 0xE4 <= piece[0] <= 0xE9 if piece[:1] >= b"\xc0" else False
            unspaced[number] |= bool(text) and piece.startswith(text[0].encode()) and is_unspaced(text[0])
        else:
            blank[number] = bool(piece) and piece.isspace()
            unspaced[number] = bool(piece) and is_unspaced(piece[0])
    return blank, unspaced


def pieces(inner: HfTokenizer) -> Iterator[tuple[int, str | bytes]]:
    """What each token of the vocabulary stands for, without markers: bytes in byte-level vocabularies, which cut
    characters in parts. Added tokens are left out."""
    added = inner.get_added_tokens_decoder()
    described = json.loads(inner.to_str())
    byte_level = '"ByteLevel"' in json.dumps([described["pre_tokenizer"], described["decoder"]])
    prefix = described["model"].get("continuing_subword_prefix") or ""
    for token, number in inner.get_vocab(with_added_tokens=True).items():
        if number in added:
            continue
        if byte_level:
            yield number, bytes(_BYTES[char] for char in token if char in _BYTES)
        else:
            yield number, token.removeprefix(prefix).replace("▁", " ")


def _byte_alphabet() -> dict[str, int]:
    """The printable stand-in of every byte in byte-level vocabularies: itself, or one from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(others)}


_BYTES = _byte_alphabet()
