"""The journal survives kills and resumes without double points; the progress view is silent unless asked."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from encodery.training.journal import Journal, Progress, clock_text, read_journal


def test_every_line_is_there_as_soon_as_it_is_written(tmp_path: Path) -> None:
    with Journal(tmp_path / "run") as journal:
        journal.write("start", config={"lr": 1e-3}, path=tmp_path)
        journal.write("step", step=1, loss=np.float32(0.5), rate=torch.tensor(2.0), bad=float("nan"), 多="字")
        rows = read_journal(journal.path)
    assert [row["kind"] for row in rows] == ["start", "step"]
    assert rows[0]["path"] == str(tmp_path)
    assert rows[1] | {"time": ""} == {
        "kind": "step", "time": "", "step": 1, "loss": 0.5, "rate": 2.0, "bad": "nan", "多": "字",
    }  # fmt: skip
    for line in journal.path.read_text(encoding="utf-8").splitlines():
        json.loads(line, parse_constant=pytest.fail)  # strict JSON: no bare NaN


def test_a_torn_line_is_left_out_and_nothing_is_glued_to_it(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        for step in range(3):
            journal.write("step", step=step)
    whole = journal.path.read_bytes()
    for cut in range(len(whole) - 30, len(whole)):
        journal.path.write_bytes(whole[:cut])
        steps = [row["step"] for row in read_journal(journal.path)]
        assert steps in ([0, 1], [0, 1, 2])
        with Journal(tmp_path) as again:
            again.write("step", step=9)
        assert [row["step"] for row in read_journal(journal.path)] == [*steps, 9]
    assert read_journal(tmp_path / "nothing.jsonl") == []


def test_truncating_after_the_resumed_step(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.write("start", config={})
        for step in (1, 2, 3, 4):
            journal.write("step", step=step, loss=1.0)
            if step == 2:
                journal.write("checkpoint", step=step)
                journal.write("note", text="early")
            if step == 3:
                journal.write("note", text="late")
        assert journal.truncate_after(4) == 0
        assert journal.truncate_after(2) == 3
        journal.write("step", step=3, loss=0.9)
    rows = [(row["kind"], row.get("step", row.get("text"))) for row in read_journal(journal.path)]
    assert rows == [
        ("start", None), ("step", 1), ("step", 2), ("checkpoint", 2), ("note", "early"), ("step", 3),
    ]  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["journal.jsonl"]


def test_without_tensorboard_a_note_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", None)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with Journal(tmp_path, tensorboard=True) as journal:
        for step in range(3):
            journal.write("step", step=step, loss=1.0)
    notes = [row["text"] for row in read_journal(journal.path) if row["kind"] == "note"]
    assert notes == ["TensorBoard is not installed: pip install 'encodery[tensorboard]'"]


def test_tensorboard_gets_the_numbers_and_no_double_points(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Journal(tmp_path, tensorboard=True) as journal:
        for step in (1, 2, 3):
            journal.write("step", step=step, loss=step / 2)
        journal.truncate_after(1)
        for step in (2, 3):
            journal.write("step", step=step, loss=step / 4)
        journal.write("validation", step=3, accuracy=0.5, name="text is left out")
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert [(e.step, e.value) for e in board.Scalars("step/loss")] == [(1, 0.5), (2, 0.5), (3, 0.75)]
    assert [(e.step, e.value) for e in board.Scalars("validation/accuracy")] == [(3, 0.5)]
    assert set(board.Tags()["scalars"]) == {"step/loss", "validation/accuracy"}


def test_progress_without_a_terminal_prints_a_line_every_ten_seconds() -> None:
    now = [0.0]
    console = Console(file=io.StringIO(), width=200)
    with Progress(console, clock=lambda: now[0]) as progress:
        progress.start("pretrain", total=100)
        for step in range(1, 26):
            now[0] += 1.0
            progress.update(step, loss=6.5, tokens_per_second=8123.4, wait_share=0.021, seconds_left=75, accuracy=0.51)
        progress.say("[saved] a checkpoint")
    assert console.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "pretrain 1%: step 1 · loss 6.500 · accuracy 0.51 · 8,123 tokens/s · waits for data 2% · 1:15 left",
        "pretrain 11%: step 11 · loss 6.500 · accuracy 0.51 · 8,123 tokens/s · waits for data 2% · 1:15 left",
        "pretrain 21%: step 21 · loss 6.500 · accuracy 0.51 · 8,123 tokens/s · waits for data 2% · 1:15 left",
        "[saved] a checkpoint",
        "pretrain: step 25 · loss 6.500 · accuracy 0.51 · 8,123 tokens/s · waits for data 2% · 1:15 left",
    ]


def test_progress_on_a_terminal_draws_a_bar_and_leaves_its_last_state() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    progress = Progress(console)
    progress.start("fine-tune", total=4)
    for step in range(1, 5):
        progress.update(step, loss=0.25)
    progress.say("a word in between")
    progress.close()
    progress.close()
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "step 4 · loss 0.250" in shown
    assert "━" in shown
    assert "a word in between" in shown


def test_progress_is_silent_without_a_console(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    progress.start("x", total=None)
    progress.update(1, loss=1.0)
    progress.say("y")
    progress.close()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (75.4, "1:15"), (3723, "1:02:03"), (-3, "0:00"), (float("inf"), "?"), (float("nan"), "?")],
)
def test_clock_text(seconds: float, text: str) -> None:
    assert clock_text(seconds) == text
