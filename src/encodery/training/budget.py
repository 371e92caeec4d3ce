"""How long a run lasts: minutes, steps, tokens or epochs, and how far along it is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

BudgetKind = Literal["seconds", "steps", "tokens", "epochs"]
_UNITS: dict[str, tuple[BudgetKind, float]] = {
    "s": ("seconds", 1), "sec": ("seconds", 1), "second": ("seconds", 1),
    "m": ("seconds", 60), "min": ("seconds", 60), "minute": ("seconds", 60),
    "h": ("seconds", 3600), "hour": ("seconds", 3600),
    "step": ("steps", 1), "token": ("tokens", 1), "epoch": ("epochs", 1),
}  # fmt: skip
_MAGNITUDES = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "B": 1e9}
_EXAMPLES = "'10m', '90s', '1h30m', '2000 steps', '5M tokens' or '3 epochs'"


@dataclass(frozen=True)
class Budget:
    """An amount of one kind. Only a budget of seconds depends on the machine; the others repeat bit for bit."""

    kind: BudgetKind
    amount: float

    def progress(self, *, seconds: float, steps: int, tokens: int, epoch_tokens: int) -> float:
        """Share of the budget that is used, 0 to 1 and beyond."""
        if self.kind == "seconds":
            return seconds / self.amount
        if self.kind == "steps":
            return steps / self.amount
        if self.kind == "tokens":
            return tokens / self.amount
        return tokens / (self.amount * max(1, epoch_tokens))

    def __str__(self) -> str:
        """As short as it reads back exactly: a resumed run parses what the first call has written."""
        if self.kind != "seconds":
            for letter in "GMk":
                short = self.amount / _MAGNITUDES[letter]
                if short == int(short):
                    return f"{int(short)}{letter} {self.kind}"
            return f"{_plain(self.amount)} {self.kind}"
        minutes, seconds = divmod(self.amount, 60)
        if minutes and 60 * minutes + seconds == self.amount:
            return f"{_plain(minutes)}m{_plain(seconds)}s" if seconds else f"{_plain(minutes)}m"
        return f"{_plain(self.amount)}s"


def _plain(number: float) -> str:
    """All digits of a number, without an exponent."""
    return str(int(number)) if number == int(number) else format(Decimal(repr(number)), "f")


def parse_budget(given: Any) -> Budget:
    """Read '10m', '1h30m', '2000 steps', '5M tokens', '3 epochs'. Raises ValueError that says what is allowed."""
    if isinstance(given, Budget):
        return given
    text = str(given).strip()
    parts = re.findall(r"([0-9][0-9_]*\.?[0-9]*)\s*([kMGB]?)\s*([a-z]+)", text)
    joined = "".join("".join(part) for part in parts)
    if not parts or joined != re.sub(r"\s", "", text):
        raise ValueError(f"a budget such as {_EXAMPLES}, not {text!r}")
    total, kinds = 0.0, set()
    for number, magnitude, unit in parts:
        unit = unit if unit in _UNITS else unit.removesuffix("s")
        if unit not in _UNITS:
            raise ValueError(f"a budget such as {_EXAMPLES}, not {text!r}")
        kind, size = _UNITS[unit]
        kinds.add(kind)
        total += float(number.replace("_", "")) * _MAGNITUDES[magnitude] * size
    if len(kinds) != 1 or total <= 0:
        raise ValueError(f"one positive budget such as {_EXAMPLES}, not {text!r}")
    return Budget(kinds.pop(), total)


BudgetField = Annotated[Budget, BeforeValidator(parse_budget)]
"""A Budget in a config, written as text."""
