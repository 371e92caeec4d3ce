"""Every example runs, says what it promises, and stays small enough to read."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"

# What each is called with here, and what it must print. A new example needs a line.
CASES: dict[str, tuple[list[str], list[str]]] = {
    "01_read_data.py": ([], [r"train: \d+ rows", r"validation: \d+ rows", r"broken JSON: 1 \(more\.jsonl:11\)"]),
    "02_tokenizer.py": ([], [r"wordpiece: \d+ tokens", r"characters 0-5: 'Hello'", "the same ids"]),
    "03_encoder.py": ([], [r"\d+ documents in \d+ rows", r"the same one alone: \d"]),
    "04_pretrain.py": (["40"], [r"step    1: \d\.\d\d nats", r"step   25: \d\.\d\d nats"]),
    "05_train.py": (["2s"], ["majority +accuracy 0", r"pretrained encoder +accuracy [01]", r"report: .*report\.html"]),
    "06_measure.py": ([], [r"majority: accuracy 0\.", "beyond chance: yes", "probabilities are off by"]),
    "07_use.py": ([], [r"^\w+ \([01]\.\d\d\)", "nearest of 300 texts: .*", "model.safetensors", r"^accuracy [01]\."]),
    "08_encoder_from_bricks.py": ([], [r"by frequency costs \d\.\d\d nats a token, this encoder \d\.\d\d"]),
    "09_onnx.py": ([], ["logits: 4 x 4, fp32", r"^(delivery|payment|account|product) \([01]\.\d\d\): "]),
}


ELSEWHERE = {"10_keras.py": "tests/interop/test_keras_encoder.py"}
"""Examples that need another environment, and the tests that run them."""


def run(name: str, arguments: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    monkeypatch.syspath_prepend(str(EXAMPLES))
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


@pytest.mark.parametrize("name", CASES)
def test_example_runs_and_says_what_it_promises(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, promised = CASES[name]
    run(name, arguments, tmp_path, monkeypatch)
    printed = capsys.readouterr().out
    for pattern in promised:
        assert re.search(pattern, printed, re.MULTILINE), f"{name} did not print {pattern!r} but:\n{printed}"
    if name == "08_encoder_from_bricks.py":
        # On paragraphs it has not learned from: what frequencies alone cannot tell.
        entropy, loss = map(float, re.findall(r"\d\.\d\d", printed))
        assert loss < entropy - 0.5


def test_pretraining_example_learns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model that knew nothing but frequencies would stay above the line that the example prints first."""
    run("04_pretrain.py", ["100"], tmp_path, monkeypatch)
    printed = capsys.readouterr().out
    frequency = re.search(r"alone costs ([\d.]+)", printed)
    last = re.findall(r"step +\d+: ([\d.]+) nats", printed)[-1]
    assert frequency is not None
    assert float(last) < float(frequency[1]) - 0.5


def test_every_example_is_run_and_short() -> None:
    found = sorted(file.name for file in EXAMPLES.glob("[0-9]*.py"))
    assert found == sorted([*CASES, *ELSEWHERE])
    assert all(name in (EXAMPLES.parent / tests).read_text(encoding="utf-8") for name, tests in ELSEWHERE.items())
    lines = {file.name: len(file.read_text(encoding="utf-8").splitlines()) for file in EXAMPLES.glob("*.py")}
    assert not {name: count for name, count in lines.items() if count > 80}
    assert lines["08_encoder_from_bricks.py"] < 60
