"""What happens in a run: a JSON line an event, the same numbers for TensorBoard, a live view of progress."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bar

from encodery.durable import replace_file

EventKind = Literal["start", "step", "validation", "checkpoint", "note", "end"]

journal_name = "journal.jsonl"
plain_every = 10.0  # seconds between two lines where no live bar can be drawn


class Journal:
    """Appends the events of a run to `folder/journal.jsonl`, each line flushed as it is written.

    A journal that exists is continued: a line torn by a kill is closed first, so that nothing is glued to it.
    With `tensorboard`, numbers of 'step' and 'validation' rows also go to `folder/tensorboard`; when the
    package is not installed a note says so, once, and the run goes on.
    """

    def __init__(self, folder: Path, *, tensorboard: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.path = folder / journal_name
        torn = self.path.exists() and not _ends_whole(self.path)
        self._file = self.path.open("a", encoding="utf-8")
        if torn:
            self._file.write("\n")
            self._file.flush()
        self._want_board = tensorboard
        self._board: Any = None

    def write(self, kind: EventKind, **fields: Any) -> dict[str, Any]:
        """Append one event and give the row: {kind, time (UTC, ISO 8601), **fields}.

        Numbers that are not finite are written as text ("nan", "inf"), so that every line is strict JSON.
        """
        row = {"kind": kind, "time": datetime.now(UTC).isoformat(timespec="milliseconds"), **fields}
        row = _plain(row)
        # Lines that a full disk refuses are kept by the file object and written with a later one.
        with suppress(OSError):
            self._file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
            self._file.flush()
        if self._want_board and kind in ("step", "validation"):
            self._to_board(kind, row)
        return row

    def truncate_after(self, step: int) -> int:
        """Drop the rows of later steps, as a run does that goes on from `step`; give how many were dropped.

        Rows without a step (notes, start) stay when they stand before the first dropped row, so that what was
        noted about the steps that are done again is not told twice. The file is replaced whole.
        """
        self._purge_step = step + 1
        rows = read_journal(self.path)
        later = [_step_of(row) > step for row in rows]
        if True not in later:
            return 0
        cut = later.index(True)
        kept = rows[:cut] + [row for row in rows[cut:] if 0 <= _step_of(row) <= step]
        self._file.close()
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept)
        replace_file(self.path, text.encode())
        self._file = self.path.open("a", encoding="utf-8")
        if self._board is not None:
            self._board.close()
            self._board = None
        return len(rows) - len(kept)

    def close(self) -> None:
        """Close the files. Closing twice is harmless."""
        with suppress(OSError):
            self._file.close()
        if self._board is not None:
            self._board.close()
            self._board = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    _purge_step: int | None = None

    def _to_board(self, kind: str, row: Mapping[str, Any]) -> None:
        if self._board is None:
            try:
                from torch.utils.tensorboard.writer import SummaryWriter
            except ImportError:
                self._want_board = False
                self.write("note", text="TensorBoard is not installed: pip install 'encodery[tensorboard]'")
                return
            # purge_step hides the points of a run that is repeated from an earlier step.
            self._board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=self._purge_step)
        for name, value in row.items():
            if name != "step" and isinstance(value, int | float) and not isinstance(value, bool):
                self._board.add_scalar(f"{kind}/{name}", value, int(row.get("step", 0)))


def read_journal(path: Path) -> list[dict[str, Any]]:
    """The rows of a journal, in order; none when the file does not exist.

    A line that is not whole (a kill while it was written) is left out.
    """
    if not path.exists():
        return []
    rows: list[dict[str, Any]] = []
    for line in path.read_bytes().split(b"\n"):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and "kind" in row:
            rows.append(row)
    return rows


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, 2) == 0:
            return True
        file.seek(-1, 2)
        return file.read(1) == b"\n"


def _step_of(row: Mapping[str, Any]) -> int:
    step = row.get("step")
    return step if isinstance(step, int) else -1


def _plain(value: Any) -> Any:
    """JSON's own types: numpy and torch scalars become numbers, odd floats become text, paths become text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        return _plain(value.item())
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return str(value)


class Progress:
    """Shows how a run goes on: a live bar on a terminal, elsewhere one plain line about every 10 seconds.

    Without a console it shows nothing. `clock` (seconds) is handed in by tests.
    """

    def __init__(self, console: Console | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = console
        self.clock = clock
        self._live: Live | None = None
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._title = ""
        self._total: float | None = None
        self._said = -math.inf
        self._line = ""

    def start(self, title: str, total: float | None = None) -> None:
        """Begin a phase of `total` steps (or seconds, or tokens: what `update` counts); None: not known."""
        self.close()
        self._title, self._total, self._said, self._line = title, total, -math.inf, ""
        if self.console is None or not self.console.is_terminal:
            return
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[line]}"))
        self._bar = Bar(*columns, console=self.console, auto_refresh=False)
        self._task = self._bar.add_task(title, total=total, line="")
        self._live = Live(self._bar, console=self.console, refresh_per_second=4, transient=False)
        self._live.start()

    def update(
        self,
        step: int,
        *,
        done: float | None = None,
        loss: float | None = None,
        tokens_per_second: float | None = None,
        wait_share: float | None = None,
        seconds_left: float | None = None,
        **metrics: float,
    ) -> None:
        """Show where the run is. `done` counts towards `total` (None: the step); `wait_share` is 0 to 1."""
        if self.console is None:
            return
        parts = [f"step {step:,}"]
        if loss is not None:
            parts.append(f"loss {loss:.3f}")
        parts.extend(f"{name} {value:.4g}" for name, value in metrics.items())
        if tokens_per_second is not None:
            parts.append(f"{tokens_per_second:,.0f} tokens/s")
        if wait_share is not None:
            parts.append(f"waits for data {wait_share:.0%}")
        if seconds_left is not None:
            parts.append(f"{clock_text(seconds_left)} left")
        self._line = " · ".join(parts)
        reached = float(step) if done is None else done
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=reached, line=self._line)
        elif self.clock() - self._said >= plain_every:
            self._said = self.clock()
            share = f" {min(1.0, reached / self._total):.0%}" if self._total else ""
            self._print(f"{self._title}{share}: {self._line}")
            self._line = ""

    def say(self, text: str) -> None:
        """Show one line above the bar."""
        if self.console is not None:
            self._print(text)

    def close(self) -> None:
        """End the phase: the last state stays to be read. Closing twice is harmless."""
        if self._live is not None:
            self._live.stop()
        elif self.console is not None and self._line:
            self._print(f"{self._title}: {self._line}")
        self._live = self._bar = self._task = None
        self._line = ""

    def _print(self, text: str) -> None:
        if self.console is not None:
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def clock_text(seconds: float) -> str:
    """Seconds as `1:02:03` or `2:03`; `?` when not finite."""
    if not math.isfinite(seconds):
        return "?"
    whole = max(0, round(seconds))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
