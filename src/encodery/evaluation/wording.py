"""How figures are said to people: numbers, durations, metrics, and the one sentence that sums a run up."""

from __future__ import annotations

import math

from encodery.evaluation.intervals import Metric
from encodery.evaluation.metrics import MEANINGS, Meaning
from encodery.evaluation.record import ComparisonRow, RunRecord

AS_PERCENT = {"accuracy", "exact_match", "masked_accuracy"}


def meaning_of(name: str) -> Meaning:
    """What a metric is; an unknown one is called by its name, higher is better."""
    return MEANINGS.get(name) or Meaning(name.replace("_", " ") or "result", "higher", "")


def value_text(value: float | None, name: str) -> str:
    """91.2 % for shares of rows, 0.915 for other metrics, three significant digits for sizes of errors."""
    if value is None or not math.isfinite(value):
        return "–"
    if name in AS_PERCENT:
        return f"{100 * value:.1f} %"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}"


def interval_text(metric: Metric, name: str) -> str:
    """`90.5 to 91.8`, or nothing without an interval. Percent signs are left to the value beside it."""
    if metric.low is None or metric.high is None:
        return ""
    low, high = (value_text(end, name).removesuffix(" %") for end in (metric.low, metric.high))
    return f"{low} to {high}"


def metric_text(metric: Metric, name: str) -> str:
    interval = interval_text(metric, name)
    return value_text(metric.value, name) + (f" ({interval})" if interval else "")


def count_text(number: float | None) -> str:
    """1234567 -> 1.23 M; below 10,000 in full; nothing for None."""
    if number is None:
        return ""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
        if abs(number) >= size:
            return f"{number / (1e3 if unit == ' k' else size):.3g}{unit}"
    return f"{number:,.0f}"


def seconds_text(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 0.1:
        return "< 0.1 s"
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def shortened(text: str, longest: int = 480) -> str:
    """A long text with its middle left out: what a person needs stands mostly at the ends."""
    text = " ".join(text.split())
    if len(text) <= longest:
        return text
    head = longest * 2 // 3
    return f"{text[:head].rstrip()} […] {text[-(longest - head) :].lstrip()}"


def better(one: float, other: float, name: str) -> bool:
    return one < other if meaning_of(name).better == "lower" else one > other


def headline(record: RunRecord) -> str:
    """One sentence in plain words: what this run reached, and what the others got on the same rows."""
    if record.headline:
        return record.headline
    if record.kind == "pretraining":
        return _pretraining_headline(record)
    own, name = record.metric(), record.main_metric
    if own.value is None:
        return "This run has no test result yet."
    interval = interval_text(own, name)
    said = value_text(own.value, name) + (f" ({interval})" if interval else "")
    meaning = meaning_of(name)
    if name == "accuracy":
        sentence = f"Your encoder gets {said} of the {record.split} rows right"
    elif name == "exact_match":
        sentence = f"Your encoder gets all labels right for {said} of the {record.split} rows"
    else:
        sentence = (
            f"Your encoder reaches {_article(meaning.title)} {meaning.title} of {said} on the {record.split} rows"
        )
    others = [f"{row.name} {value_text(row.metric.value, name)}" for row in _rivals(record)]
    return sentence + (f"; {', '.join(others)}." if others else ".")


def verdict(record: RunRecord) -> list[str]:
    """For every rival: does this run win beyond chance, lose beyond it, or is it a tie?"""
    own, name = record.metric(), record.main_metric
    lines = []
    for row in _rivals(record):
        value = row.metric.value
        if own.value is None or own.low is None or own.high is None or value is None:
            continue
        if row.gain is not None:
            tie, said = not row.gain.excludes_zero, f"{gain_text(row.gain, name)} on the same rows"
        else:
            tie = own.low <= value <= own.high
            said = "it lies inside the interval" if tie else "by more than the interval"
        if tie:
            lines.append(f"No better than {row.name}, as far as these rows can tell: {said}.")
        elif better(own.value, value, name):
            lines.append(f"Better than {row.name}: {said}.")
        else:
            lines.append(f"Worse than {row.name}: {said}. Here that is the one to use.")
    return lines


def gain_text(gain: Metric, name: str) -> str:
    """`+1.4 points (+0.1 to +2.7)`; without points where the metric is no share of rows."""
    ends = [end for end in (gain.value, gain.low, gain.high) if end is not None]
    if name in AS_PERCENT:
        value, *interval = (f"{100 * end:+.1f}" for end in ends)
        value += " points"
    else:
        value, *interval = (f"{end:+.3f}" if abs(end) < 10 else f"{end:+,.4g}" for end in ends)
    return f"{value} ({' to '.join(interval)})" if interval else value


def _rivals(record: RunRecord) -> list[ComparisonRow]:
    """The rows before this run's own that are no mere guess: linear model, no pretraining."""
    guesses = {"majority", "mean"}
    return [row for row in record.comparison[:-1] if row.name.lower().split(" (")[0] not in guesses]


def _article(title: str) -> str:
    return "an" if title[:1].lower() in "aeo" or title[:2] in ("MC", "R²") else "a"


def _pretraining_headline(record: RunRecord) -> str:
    name, own = record.main_metric, record.metric()
    if name not in ("masked_accuracy", "masked_loss", "validation_loss") and own.value is not None:
        meaning = meaning_of(name)
        says = f" ({meaning.says})" if meaning.says else ""
        return f"On held-out texts the {meaning.title} of your encoder is {value_text(own.value, name)}{says}."
    loss = record.metric("validation_loss").value
    losses = [row["validation_loss"] for row in record.curves if row.get("validation_loss") is not None]
    if loss is None:
        loss = min((value for value in losses if value is not None), default=None)
    if loss is None:
        return "This pretraining run has no validation loss yet."
    choice = count_text(math.exp(min(loss, 30)))
    sentence = f"At hidden words your encoder's validation loss is {loss:.2f}: "
    sentence += f"it is torn between about {choice} tokens"
    line = record.entropy_line
    if line is None:
        return sentence + "."
    if loss < line - 0.1:
        return f"{sentence}, where guessing by frequency alone would leave {count_text(math.exp(line))}."
    plateau = f"no better than guessing by frequency alone ({line:.2f})"
    return f"{sentence}, {plateau}: it has not begun to use the context."
