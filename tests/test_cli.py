"""The command line from outside: every verb, and every wrong input with one message, an exit code and no traceback."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from conftest import make_texts
from encodery import cli

RECIPE = """\
output: run
data: {train: train.jsonl, validation: dev.jsonl, label: label}
tokenizer: {vocab_size: 150}
encoder: {width: 32, depth: 1, heads: 2, max_length: 64}
pretrain: {training: {budget: 3 steps, batch_tokens: 256, precision: fp32}}
objective: classify
training: {budget: 5 steps, batch_tokens: 256, precision: fp32}
evaluation: {compare: [majority], resamples: 100}
"""


@dataclass
class Answer:
    code: int
    out: str
    err: str


Encodery = Callable[..., Answer]


def write_rows(path: Path, rows: list[tuple[str, str]]) -> None:
    lines = (json.dumps({"text": text, "label": label}, ensure_ascii=False) for text, label in rows)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def call(*arguments: object, stdin: bytes = b"") -> Answer:
    """Run `encodery ARGUMENTS` in this process."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["encodery", *map(str, arguments)])
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        patch.setenv("COLUMNS", "80")
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
    return Answer(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, a recipe and a small run in it."""
    folder = tmp_path_factory.mktemp("trained")
    write_rows(folder / "train.jsonl", make_texts(200))
    write_rows(folder / "dev.jsonl", make_texts(60, seed=1))
    (folder / "r.yaml").write_text(RECIPE, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        answer = call("train", "r.yaml", "--quiet")
    assert answer.code == 0, answer.err
    assert "tokenising" not in answer.out
    assert "majority" in answer.out
    return folder


@pytest.fixture
def place(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, and the current one."""
    folder = tmp_path / "place"
    shutil.copytree(trained, folder)
    monkeypatch.chdir(folder)
    return folder


def refused(answer: Answer, code: int, *words: str) -> None:
    """One message that holds the words, on the error stream, without a traceback."""
    assert answer.code == code, (answer.code, answer.err)
    assert "Traceback" not in answer.err
    assert answer.err.lower().count("error: ") == 1, answer.err
    for word in words:
        assert word in answer.err, (word, answer.err)


# -- the verbs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["train", "resume", "new", "tokenizer", "evaluate", "predict", "export"])
def test_help_ends_with_an_example(verb: str) -> None:
    answer = call(verb, "--help")
    assert answer.code == 0
    assert "Example:" in answer.out
    assert f"encodery {verb}" in answer.out


@pytest.mark.parametrize("part", ["data", "model", "config", "batch", "learning"])
def test_help_of_inspect(part: str) -> None:
    assert f"encodery inspect {part}" in call("inspect", part, "--help").out


def test_version_and_misspelt_verb() -> None:
    assert call("--version").out.startswith("encodery ")
    refused(call("tran", "r.yaml"), 2, "'train'")
    refused(call("inspect", "modl", "r.yaml"), 2, "'model'")


@pytest.mark.parametrize(
    ("room", "later"),
    [("encodery.cli", ("torch", "numpy")), ("encodery.training.start", ("scipy.stats", "sklearn", "datasets"))],
)
def test_what_is_slow_to_import_waits_until_it_is_needed(room: str, later: tuple[str, ...]) -> None:
    code = f"import sys, {room}; sys.exit(', '.join(name for name in {later} if name in sys.modules) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_inspect_data(place: Path) -> None:
    rows = (place / "train.jsonl").read_text().splitlines()
    (place / "dev.jsonl").write_text("\n".join([*rows[:3], '{"text": "broken', '{"text": "", "label": "good"}']))
    answer = call("inspect", "data", "r.yaml", "data.bad_rows_share=0.9")
    assert answer.code == 0, answer.err
    assert "dev.jsonl:4" in answer.out
    assert "dev.jsonl:5" in answer.out
    assert "3 of 3 validation texts (100.0%)" in " ".join(answer.out.split())
    assert max(map(len, answer.out.splitlines())) <= 160


def test_inspect_model_and_config(place: Path) -> None:
    answer = call("inspect", "model", "r.yaml", "encoder.depth=2")
    assert answer.code == 0, answer.err
    assert "encoder: block 2" in answer.out
    assert "memory in training" in answer.out
    answer = call("inspect", "config", "r.yaml", "training.optim.lr=0.01")
    lines = {line.split()[0]: line for line in answer.out.splitlines() if line.split()}
    assert "command line" in lines["training.optim.lr"]
    assert "r.yaml:4" in lines["encoder.width"]
    assert "default" in lines["encoder.norm"]
    assert "Everything random" in call("inspect", "config", "r.yaml", "--help-texts").out


def test_inspect_batch_and_learning(place: Path) -> None:
    answer = call("inspect", "batch", "r.yaml", "--rows", "1")
    assert answer.code == 0, answer.err
    assert "[MASK|" in answer.out
    assert "(good)" in answer.out
    answer = call("inspect", "learning", "r.yaml", "pretrain=", "--steps", "60")
    assert answer.code == 0, answer.err
    assert "It learns" in answer.out


def test_new_then_train(place: Path) -> None:
    answer = call("new", "train.jsonl", "--output", "mine/words.yaml")
    assert answer.code == 0, answer.err
    assert "classify" in answer.out
    refused(call("new", "train.jsonl", "-o", "mine/words.yaml"), 2, "exists already")
    small = ["encoder.preset=", "encoder.width=32", "encoder.depth=1", "encoder.heads=2", "tokenizer.vocab_size=150"]
    small += ["pretrain.training.budget=3 steps", "training.budget=3 steps", "training.precision=fp32"]
    answer = call("train", "mine/words.yaml", "-q", "output=fresh", "evaluation.compare=[majority]", *small)
    assert answer.code == 0, answer.err
    assert (place / "fresh" / "report.html").exists()


def test_tokenizer(place: Path) -> None:
    answer = call("tokenizer", "train.jsonl", "--vocab-size", "120", "--kind", "bpe", "-o", "tok")
    assert answer.code == 0, answer.err
    assert "tokens a word" in answer.out
    assert (place / "tok" / "tokenizer.json").exists()
    refused(call("tokenizer", "train.jsonl", "-o", "tok"), 2, "exists already")
    wrong = call("tokenizer", "train.jsonl", "--kind", "wordpeice", "--vocab-size", "x", "-o", "t2")
    refused(wrong, 2, "2 problems", "wordpiece", "vocab_size")


def test_evaluate(place: Path) -> None:
    answer = call("evaluate", "run", "dev.jsonl", "--output", "e/m.json", "--report", "e/r.html")
    assert answer.code == 0, answer.err
    assert "accuracy" in answer.out
    assert "most wrong" in answer.out
    written = json.loads((place / "e" / "m.json").read_text())
    kept = json.loads((place / "run" / "metrics.json").read_text())
    assert written["metrics"]["accuracy"]["value"] == pytest.approx(kept["metrics"]["accuracy"]["value"])
    assert "<html" in (place / "e" / "r.html").read_text()
    assert "masked loss" in call("evaluate", "run/pretrained", "dev.jsonl").out


def test_predict_keeps_one_answer_a_line(place: Path) -> None:
    given = "a bright film\n\n\x00\x00\n😀😀\n \t \nlast without an end".encode() + b" \xff"
    answer = call("predict", "run", "--top", "1", stdin=given)
    assert answer.code == 0, answer.err
    answers = [json.loads(line) for line in answer.out.splitlines()]
    assert ["error" in one for one in answers] == [False, True, True, False, True, False]
    assert "line 3" in answers[2]["error"]
    assert "3 of 6" in answer.err
    alone = json.loads(call("predict", "run", "a bright film", "--top", "1").out)
    assert alone["label"] == answers[0]["label"]
    vector = json.loads(call("predict", "run", "a bright film", "--embed").out)["vector"]
    assert len(vector) == 32


# -- wrong input -----------------------------------------------------------------------------------


def test_a_wrong_file_stops_before_anything_is_written(place: Path) -> None:
    (place / "empty.jsonl").write_text("")
    (place / "binary.csv").write_bytes(bytes(range(256)) * 20)
    (place / "nul.jsonl").write_text(json.dumps({"text": "\x00\x00", "label": "good"}) + "\n")
    write_rows(place / "one.jsonl", [(f"text number {number}", "good") for number in range(30)])
    write_rows(place / "other.jsonl", [("a warm house", "godo")])
    cases: list[tuple[list[str], list[str]]] = [
        (["data.train=trian.jsonl"], ["trian.jsonl", "did you mean 'train.jsonl'"]),
        (["data.train=empty.jsonl"], ["empty.jsonl", "is empty"]),
        (["data.train=binary.csv"], ["binary.csv", "binary"]),
        (["data.train=nul.jsonl"], ["nul.jsonl:1", "empty text"]),
        (["data.label=lable"], ["'lable'", "did you mean 'label'"]),
        (["data.text=txt"], ["'txt'", "did you mean 'text'"]),
        (["data.train=one.jsonl", "data.validation="], ["only the label 'good'", "two classes"]),
        (["data.validation=other.jsonl"], ["other.jsonl:1", "did you mean 'good'"]),
        (["pretrain.data=[more.txt]"], ["more.txt"]),
    ]
    for overrides, words in cases:
        refused(call("train", "r.yaml", "output=new", *overrides), 3, *words)
    refused(call("train", "r.yaml", "output=new", "start_from=rnu"), 4, "rnu", "does not exist")
    assert not (place / "new").exists()


def test_wrong_recipes(place: Path) -> None:
    answer = call("train", "r.yaml", "encodr.width=3", "encoder.depth=abc", "training.budget=soon")
    refused(answer, 2, "3 problems", "did you mean 'encoder'", "'abc'", "'soon'", "'10m'")
    refused(call("train", "r.yaml", "encoder.heads=5"), 2, "width 32 is not a multiple of heads 5")
    refused(call("train", "r.yaml", "training.budget=-5m"), 2, "budget")
    refused(call("train", "r.yml"), 2, "r.yml", "does not exist", "did you mean 'r.yaml'")
    refused(call("train", "r.yaml", "width"), 2, "key=value")
    (place / "file").write_text("")
    refused(call("train", "r.yaml", "output=file/x"), 2, "file/x")
    refused(call("train"), 2, "RECIPE")


def test_sizes_that_are_changed_are_said(place: Path) -> None:
    answer = call("train", "r.yaml", "start_from=run", "encoder.width=64", "pretrain=", "output=again")
    assert answer.code == 0, answer.err
    assert "encoder.width is 32 (the recipe says 64)" in " ".join(answer.out.split())
    answer = call("inspect", "model", "r.yaml", "encoder.max_length=2048")
    assert "positions a step: 2,048" in answer.out


def test_long_texts_are_split_and_counted(place: Path) -> None:
    write_rows(place / "long.jsonl", [(f"{label} " * 200, label) for _, label in make_texts(30)])
    answer = call("evaluate", "run", "long.jsonl", "--output", "m.json")
    assert answer.code == 0, answer.err
    facts = json.loads((place / "m.json").read_text())["data_facts"]["splits"]["scored"]
    assert facts["rows split into windows"] == 30


def test_wrong_rows_at_evaluate(place: Path) -> None:
    write_rows(place / "other.jsonl", [("a warm house", "neutral")])
    refused(call("evaluate", "run", "other.jsonl"), 3, "other.jsonl:1", "'neutral'", "bad, good")
    refused(call("evaluate", "run", "nope.jsonl"), 3, "nope.jsonl")
    refused(call("evaluate", "run", "dev.jsonl", "--label", "lable"), 3, "did you mean 'label'")
    refused(call("evaluate", "run", "dev.jsonl", "--pair", "text"), 3, "single texts")


def test_wrong_words_at_predict(place: Path) -> None:
    refused(call("predict", "rn", "hello"), 4, "rn", "does not exist")
    refused(call("predict", "run"), 3, "no texts")
    refused(call("predict", "run", "--file", "nope.txt"), 3, "nope.txt")
    refused(call("predict", "run", "x", "--file", "dev.jsonl"), 3, "--file")
    refused(call("predict", "run/pretrained", "hello"), 4, "not trained on labels")
    refused(call("predict", "run", "hello", "--top", "0"), 2, "--top")
    refused(call("predict", "run", "hello", "--output", "run"), 3, "is a folder")
    refused(call("predict", "run", "hello", "--precision", "fp8"), 4, "fp8", "int8")
    nothing = call("predict", "run", "\x00")
    assert nothing.code == 3
    assert json.loads(nothing.out) == {"error": "line 1: there is no text in it"}


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "manifest.json"])
@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_damaged_model_folder(place: Path, name: str, harm: str) -> None:
    path = place / "run" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    if harm != "remove":
        path.write_bytes(content if harm == "flip" else content[: len(content) // 2])
    refused(call("predict", "run", "hello"), 4, "damaged", name)


def test_resume_of_nothing(place: Path) -> None:
    refused(call("resume", "run"), 3, "complete")
    refused(call("resume", "nowhere"), 3, "nowhere")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"), "not enough memory"),
        (OSError(28, "No space left on device"), "disk is full"),
        (ZeroDivisionError("oh"), "--debug"),
    ],
)
def test_what_nobody_foresaw_is_one_message(
    place: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("encodery.training.preview_data.look_at_data", fail)
    answer = call("inspect", "data", "r.yaml")
    assert answer.code != 0
    assert words in answer.err
    assert "Traceback" not in answer.err
    with pytest.raises(type(error)):
        call("inspect", "data", "r.yaml", "--debug")
