"""Charts as inline SVG text: coloured by the page's style sheet, so they follow its light and dark theme."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

WIDTH, HEIGHT = 480, 270
LEFT, RIGHT, TOP, BOTTOM = 50, 14, 16, 42
MOST_POINTS = 240  # more than a screen can show; beyond, neighbours are averaged


@dataclass(frozen=True)
class Line:
    """A curve: points in the order of x. `look` picks colour and stroke from the style sheet: s1, s2, s3."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    look: str = "s1"


class _Frame:
    """Maps data to the drawing, and draws the axes with round numbers."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float], height: int = HEIGHT) -> None:
        self.x0, self.x1 = x if x[1] > x[0] else (x[0] - 0.5, x[0] + 0.5)
        self.y0, self.y1 = y if y[1] > y[0] else (y[0] - 0.5, y[0] + 0.5)
        self.height = height

    def px(self, x: float) -> float:
        return round(LEFT + (x - self.x0) / (self.x1 - self.x0) * (WIDTH - LEFT - RIGHT), 1)

    def py(self, y: float) -> float:
        inner = self.height - TOP - BOTTOM
        return round(TOP + (self.y1 - y) / (self.y1 - self.y0) * inner, 1)

    def axes(
        self,
        x_title: str,
        y_title: str,
        x_text: Callable[[float], str],
        y_text: Callable[[float], str],
    ) -> str:
        parts, floor = [], self.height - BOTTOM
        for tick in ticks(self.y0, self.y1, 5):
            at = self.py(tick)
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at}" y2="{at}"/>')
            parts.append(f'<text class="tick" x="{LEFT - 7}" y="{at + 4}" text-anchor="end">{y_text(tick)}</text>')
        for tick in ticks(self.x0, self.x1, 6):
            at = self.px(tick)
            anchor = "end" if at > WIDTH - RIGHT - 12 else "middle"
            parts.append(f'<line class="axis" x1="{at}" x2="{at}" y1="{floor}" y2="{floor + 4}"/>')
            parts.append(f'<text class="tick" x="{at}" y="{floor + 17}" text-anchor="{anchor}">{x_text(tick)}</text>')
        parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{floor}" y2="{floor}"/>')
        middle = (LEFT + WIDTH - RIGHT) / 2
        place = f'x="{middle}" y="{self.height - 6}" text-anchor="middle"'
        parts.append(f'<text class="title" {place}>{escape(x_title)}</text>')
        if y_title:
            parts.append(f'<text class="title" x="{LEFT - 42}" y="{TOP - 4}">{escape(y_title)}</text>')
        return "".join(parts)


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten) inside low..high, about so many."""
    step = 10 ** math.floor(math.log10((high - low) / about))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= about)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 12) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def short(number: float) -> str:
    """A tick's text: 1500 -> 1.5k, 2000000 -> 2M, 0.0003 -> 3e-4."""
    size = abs(number)
    if size >= 1e6:
        return f"{number / 1e6:g}M"
    if size >= 1e3:
        return f"{number / 1e3:g}k"
    if 0 < size < 1e-2:
        mantissa, exponent = f"{number:.1e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{number:.4g}"


def percent(share: float) -> str:
    """0.8984 -> 89.8%; a round tick has no decimals."""
    return f"{100 * share:.1f}".removesuffix(".0") + "%"


def line_chart(
    lines: Sequence[Line],
    *,
    x_title: str,
    y_title: str,
    level: tuple[float, str] | None = None,
    y_text: Callable[[float], str] = short,
    from_zero: bool = False,
) -> Markup:
    """Curves over one x, with an optional named level line. Few points get dots; many are averaged."""
    lines = [_thinned(line) for line in lines if len(line.x)]
    if not lines:
        return Markup("")
    everything = [y for line in lines for y in line.y] + ([level[0]] if level else []) + ([0.0] if from_zero else [])
    low, high = _usual_range(everything)
    spare = (high - low) * 0.06 or max(abs(high), 1.0) * 0.05
    x = min(line.x[0] for line in lines), max(line.x[-1] for line in lines)
    frame = _Frame(x, (low if from_zero else low - spare, high + spare))
    parts = [frame.axes(x_title, y_title, short, y_text)]
    if level:
        at = frame.py(level[0])
        parts.append(f'<line class="level" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at}" y2="{at}"/>')
        parts.append(f'<text class="note" x="{WIDTH - RIGHT}" y="{at - 5}" text-anchor="end">{escape(level[1])}</text>')
    for line in lines:
        points = [(frame.px(a), max(TOP - 4, frame.py(b))) for a, b in zip(line.x, line.y)]
        path = " ".join(f"{a},{b}" for a, b in points)
        parts.append(f'<polyline class="{line.look}" points="{path}"/>')
        if len(points) <= 30:
            parts += [f'<circle class="dot {line.look}" cx="{a}" cy="{b}" r="2.6"/>' for a, b in points]
    plot = {
        "x": [frame.x0, frame.x1], "left": LEFT, "right": WIDTH - RIGHT, "unit": x_title,
        "lines": [[line.name, [_brief(a) for a in line.x], [_brief(b) for b in line.y]] for line in lines],
    }  # fmt: skip
    parts.append(f'<line class="cursor" y1="{TOP}" y2="{HEIGHT - BOTTOM}" x1="0" x2="0"/>')
    name = f"{y_title or lines[0].name} by {x_title}"
    return _svg(parts, name, HEIGHT, f' data-plot="{escape(json.dumps(plot))}"')


def histogram(edges: Sequence[float], counts: Sequence[int], *, x_title: str, limit: float | None = None) -> Markup:
    """Bars over bins; `limit` draws a line at the longest length that is taken in one piece."""
    if not counts or len(edges) != len(counts) + 1:
        return Markup("")
    frame = _Frame((edges[0], edges[-1]), (0.0, max([*counts, 1]) * 1.06))
    parts = [frame.axes(x_title, "rows", short, short)]
    for left, right, count in zip(edges[:-1], edges[1:], counts):
        a, b, top = frame.px(left), frame.px(right), frame.py(count)
        wide = max(round(b - a - 1, 1), 0.8)
        tip = f"{short(left)} to {short(right)}: {count:,} rows"
        parts.append(
            f'<rect class="bar" x="{a}" y="{top}" width="{wide}" height="{round(HEIGHT - BOTTOM - top, 1)}">'
            f"<title>{tip}</title></rect>"
        )
    if limit is not None and edges[0] < limit < edges[-1]:
        at = frame.px(limit)
        anchor, shift = ("end", -5) if at > WIDTH / 2 else ("start", 5)
        parts.append(f'<line class="level" x1="{at}" x2="{at}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        place = f'x="{at + shift}" y="{TOP + 8}" text-anchor="{anchor}"'
        parts.append(f'<text class="note" {place}>limit {short(limit)}</text>')
    return _svg(parts, f"histogram of {x_title}", HEIGHT)


def reliability_chart(before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]]) -> Markup:
    """Share right over confidence, before and after the temperature; the diagonal is perfect."""
    points = [*before, *after]
    if not points:
        return Markup("")
    lowest = min(min(point["confidence"], point["accuracy"]) for point in points)
    start = max(0.0, math.floor(lowest * 10 - 0.2) / 10)
    frame = _Frame((start, 1.0), (start, 1.02), 320)
    parts = [frame.axes("confidence in the answer", "share right", percent, percent)]
    a, b = frame.px(start), frame.px(1)
    parts.append(f'<line class="level" x1="{a}" y1="{frame.py(start)}" x2="{b}" y2="{frame.py(1)}"/>')
    for series, look in ((before, "s2"), (after, "s1")):
        places = [(frame.px(p["confidence"]), frame.py(p["accuracy"]), p) for p in series]
        parts.append(f'<polyline class="{look}" points="{" ".join(f"{x},{y}" for x, y, _ in places)}"/>')
        for x, y, p in places:
            tip = f"{p['count']:,} rows: confidence {percent(p['confidence'])}, right {percent(p['accuracy'])}"
            parts.append(f'<circle class="dot {look}" cx="{x}" cy="{y}" r="3.4"><title>{tip}</title></circle>')
    return _svg(parts, "calibration plot", 320)


def scatter_chart(points: Sequence[Sequence[float]]) -> Markup:
    """Predicted over true numbers, at most 1,500 of them, evenly taken; the diagonal is perfect."""
    points = [point for point in points if None not in point]
    if not points:
        return Markup("")
    shown = points[:: max(1, math.ceil(len(points) / 1500))]
    low, high = min(min(point) for point in points), max(max(point) for point in points)
    spare = (high - low) * 0.04
    frame = _Frame((low - spare, high + spare), (low - spare, high + spare), 400)
    parts = [frame.axes("true", "predicted", short, short)]
    a, b, c, d = frame.px(low), frame.py(low), frame.px(high), frame.py(high)
    parts.append(f'<line class="level" x1="{a}" y1="{b}" x2="{c}" y2="{d}"/>')
    parts += [f'<circle class="cloud" cx="{frame.px(t)}" cy="{frame.py(p)}" r="2.4"/>' for t, p in shown]
    return _svg(parts, "predicted over true numbers", 400)


def _svg(parts: Sequence[str], name: str, height: int, more: str = "") -> Markup:
    return Markup(
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(name)}"{more}>'
        + "".join(parts)
        + "</svg>"
    )


def _thinned(line: Line) -> Line:
    group = math.ceil(len(line.x) / MOST_POINTS)
    if group == 1:
        return line
    starts = range(0, len(line.x), group)
    x = [sum(line.x[i : i + group]) / len(line.x[i : i + group]) for i in starts]
    y = [sum(line.y[i : i + group]) / len(line.y[i : i + group]) for i in starts]
    return Line(line.name, x, y, line.look)


def _usual_range(values: Sequence[float]) -> tuple[float, float]:
    """Lowest and highest, but a few spikes (a first loss of 40) do not flatten the rest of the curve."""
    ordered = sorted(values)
    low, high = ordered[0], ordered[-1]
    usual = ordered[int(len(ordered) * 0.98)] if len(ordered) >= 50 else high
    return low, min(high, usual + (usual - low) * 0.5)


def _brief(number: float) -> float:
    return float(f"{number:.5g}")
