"""A measured number with its 95 % interval, and the bootstrap over rows that gives the interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encodery.errors import DataError

RESAMPLES = 1000
DRAWS_AT_ONCE = 2_000_000  # random row numbers held at a time: about 16 MB, whatever the number of rows


@dataclass(frozen=True)
class Metric:
    """A value with the ends of its 95 % interval; `None` where not defined, and `note` says why. `resampled` are the
    values of the bootstrap samples, while a run lasts: for `difference`."""

    value: float | None
    low: float | None = None
    high: float | None = None
    note: str = ""
    resampled: NDArray[np.float64] | None = field(default=None, compare=False, repr=False)

    def to_dict(self) -> dict[str, Any]:
        return {"value": self.value, "low": self.low, "high": self.high, "note": self.note}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Metric:
        return cls(values.get("value"), values.get("low"), values.get("high"), values.get("note") or "")

    @property
    def excludes_zero(self) -> bool:
        """True when the whole interval lies on one side of 0: what is asked of a difference."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    def __str__(self) -> str:
        if self.value is None:
            return f"not defined ({self.note})" if self.note else "not defined"
        if self.low is None or self.high is None:
            return f"{self.value:.3f}"
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def resampled_sums(
    features_NF: NDArray[Any],
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
    codes: Sequence[tuple[NDArray[Any], int]] = (),
) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
    """Column sums of per-row features in the sample itself (row 0) and in bootstrap samples of its rows.

    Nearly every metric is a function of such sums (counts of right rows, sums of losses, of products), so one
    pass over the rows serves all of them and they share their resamples. `codes` are (codes_N, kinds):
    integers in 0..kinds-1 whose histogram is wanted, which is the sum of one-hot features without ever
    building them.

    Returns (sums: (resamples + 1, F), one (resamples + 1, kinds) array for every entry of `codes`).
    """
    rows = len(features_NF)
    if rows == 0:
        raise DataError("no rows to score", expected="at least one row", fix="check the test file and its columns")
    features_NF = np.asarray(features_NF, dtype=np.float64)
    sums = [features_NF.sum(axis=0, keepdims=True)]
    counts = [[np.bincount(kind_N, minlength=kinds)[None]] for kind_N, kinds in codes]
    at_once = max(1, DRAWS_AT_ONCE // rows)
    for start in range(0, resamples, at_once):
        part = min(at_once, resamples - start)
        drawn = rng.integers(0, rows, size=(part, rows))
        offsets = np.arange(part)[:, None]
        times = np.bincount((drawn + offsets * rows).ravel(), minlength=part * rows).reshape(part, rows)
        sums.append(times.astype(np.float64) @ features_NF)
        for (kind_N, kinds), found in zip(codes, counts):
            cells = (kind_N[drawn] + offsets * kinds).ravel()
            found.append(np.bincount(cells, minlength=part * kinds).reshape(part, kinds))
    return np.concatenate(sums), [np.concatenate(found).astype(np.float64) for found in counts]


def from_resamples(
    values: NDArray[np.float64],
    *,
    note: str = "",
    bounds: tuple[float, float] | None = None,
    recentre: bool = False,
) -> Metric:
    """A Metric from the value (entry 0) and its resampled values: their 2.5th and 97.5th percentiles.

    `recentre` shifts the resampled values so that their mean is the sample's value. It is for statistics that
    a resample inflates by construction (a calibration error: repeated rows look like more miscalibration).
    """
    value, again = float(values[0]), np.asarray(values[1:], dtype=np.float64)
    finite = np.isfinite(again)
    if not np.isfinite(value):
        return Metric(None, note=note or "not defined for these rows")
    if not finite.any():
        return Metric(value, note=note)
    if recentre:
        again = again + (value - again[finite].mean())
    low, high = np.percentile(again[finite], [2.5, 97.5])
    if bounds is not None:
        low, high = np.clip([low, high], *bounds)
    return Metric(value, float(low), float(high), note, again)


def difference(one: Metric, other: Metric) -> Metric | None:
    """`one - other` with its interval, whatever the metric (paired bootstrap, Koehn 2004); None where it has none.

    Both are of the same rows, with as many samples from generators of the same seed: then each sample has the same rows
    for both, and how hard they are cancels out. With other samples the interval would be too wide, not too narrow.
    """
    if one.value is None or other.value is None or one.resampled is None or other.resampled is None:
        return None
    if len(one.resampled) != len(other.resampled):
        return None
    return from_resamples(np.append(one.value - other.value, one.resampled - other.resampled))


def paired_difference(
    correct_a: Sequence[float] | NDArray[Any],
    correct_b: Sequence[float] | NDArray[Any],
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> Metric:
    """Mean of `a - b` over the same rows with its interval: `excludes_zero` says whether one side wins.

    `correct_*` (N,) are per-row scores of two models on the same rows in the same order: right or wrong, or a
    loss. Pairing removes the difficulty of the rows, so the interval is narrower than two separate ones.
    """
    a, b = np.asarray(correct_a, dtype=np.float64), np.asarray(correct_b, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise DataError(
            f"two models scored on {a.shape} and {b.shape} rows cannot be compared in pairs",
            expected="one score a row, the same rows in the same order",
        )
    sums, _ = resampled_sums((a - b)[:, None], rng, resamples)
    return from_resamples(sums[:, 0] / len(a))
