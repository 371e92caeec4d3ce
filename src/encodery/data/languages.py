"""Which language a text is in, as far as its script tells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

_SCRIPTS: tuple[tuple[str, int, int], ...] = (
    ("latin", 0x41, 0x24F),
    ("latin", 0x1E00, 0x1EFF),
    ("greek", 0x370, 0x3FF),
    ("cyrillic", 0x400, 0x52F),
    ("hebrew", 0x590, 0x5FF),
    ("arabic", 0x600, 0x77F),
    ("indic", 0x900, 0xDFF),
    ("th", 0xE00, 0xE7F),
    ("lo", 0xE80, 0xEFF),
    ("my", 0x1000, 0x109F),
    ("km", 0x1780, 0x17FF),
    ("kana", 0x3041, 0x30FF),
    ("han", 0x3400, 0x9FFF),
    ("han", 0x20000, 0x323AF),
    ("ko", 0xAC00, 0xD7A3),
)


def script_shares(documents: Sequence[str]) -> dict[str, float]:
    """Share of each script among the letters of the documents (about 1 MB of them, spread evenly)."""
    step = max(1, sum(map(len, documents[:1000])) * max(1, len(documents) // 1000) // 1_000_000)
    found = codes("".join(document[:10_000] for document in documents[::step]))
    lower = found | 0x20
    letters = found[((lower >= 0x61) & (lower <= 0x7A)) | (found >= 0xC0)]
    counts: Counter[str] = Counter()
    for script, first, last in _SCRIPTS:
        counts[script] += int(((letters >= first) & (letters <= last)).sum())
    counts["accented"] = int(((letters >= 0xC0) & (letters <= 0x24F)).sum())
    counts["accented"] += int(((letters >= 0x1E00) & (letters <= 0x1EFF)).sum())
    total = sum(counts.values()) - counts["accented"]
    return {script: count / total for script, count in counts.items()} if total else {}


def guess_language(documents: Sequence[str]) -> str:
    """A language code where the script decides (zh, ja, ko, th, lo, my, km), `en` for Latin letters almost
    without accents, else the name of the leading script (latin, cyrillic, ...), or `unknown`."""
    shares = script_shares(documents)
    if not shares:
        return "unknown"
    ideographic = shares["han"] + shares["kana"]
    if ideographic > 0.3:
        return "ja" if shares["kana"] > 0.1 * ideographic else "zh"
    leading = max((script for script in shares if script != "accented"), key=lambda script: shares[script])
    if leading == "latin":
        return "en" if shares["accented"] < 0.003 * shares["latin"] else "latin"
    return {"kana": "ja", "han": "zh"}.get(leading, leading)


def codes(text: str) -> np.ndarray:
    """The code points of a text."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


def unspaced_language(language: str) -> bool:
    """Whether the language of this code is written without spaces between words."""
    return language.split("-")[0] in ("zh", "ja", "th", "lo", "my", "km")
