"""`encodery export` from outside: what it writes, what it prints, and every wrong input with one message."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import tiny_model
from encodery.data.tokenizers import Tokenizer
from encodery.durable import whole_folder
from encodery.interop.onnx import writer as exporting
from encodery.trained import Task, Trained
from test_cli import call, refused

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder: three labels, with n-grams that know letters."""
    readout = {"kind": "document", "outputs": 3, "ngrams": 1, "letters": 3, "ngram_buckets": 512}
    tiny = tiny_model(vocab_size=tokenizer.vocab_size, readout=readout)
    tiny.readout.lexical.spell(tokenizer.spelling())  # type: ignore[union-attr,operator]
    folder = tmp_path_factory.mktemp("model") / "m"
    Trained(tiny, tokenizer, Task("classify", ("a", "b", "c"))).save(folder, card="", metrics={})
    return folder


def test_what_is_written_and_said(model: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("a splendid film\n\nthe actor walked\n", encoding="utf-8")
    out = tmp_path / "new" / "onnx"
    answer = call("export", model, "--to", "onnx", "--output", out, "--int8", "--texts", tmp_path / "mine.txt")
    assert answer.code == 0, answer.err
    assert answer.err == ""
    said = answer.out.splitlines()
    assert said[0].startswith(f"onnx: {out / 'model.onnx'} (")
    assert "word_ids -> logits" in said[0]
    assert "on 38 texts" in said[1]
    assert "on 24 texts" in said[2]
    assert said[3] == f"how to run it: {out / 'README.md'}"
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert config["labels"] == ["a", "b", "c"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.txt", "new"]
    assert sorted(path.name for path in out.parent.iterdir()) == ["onnx"]


@pytest.mark.parametrize("part", ["encoder", "embedder"])
def test_parts(part: str, model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    answer = call("export", model, "--to", "onnx", "--output", tmp_path / "empty", "--part", part)
    assert answer.code == 0, answer.err
    config = json.loads((tmp_path / "empty" / "config.json").read_text(encoding="utf-8"))
    assert config["part"] == part
    assert "labels" not in config


def test_wrong_input_is_one_message(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"

    def export(*words: object, of: Path = model, to: str = "onnx", output: Path = out) -> Any:
        return call("export", of, "--to", to, "--output", output, *words)

    refused(export(to="onxx"), 3, "--to onxx", "did you mean 'onnx'", "onnx, huggingface")
    refused(export("--part", "head"), 3, "--part head", "model, encoder, embedder")
    refused(export("--accept-loss"), 3, "--accept-loss without --int8")
    refused(export("--int8", to="huggingface"), 3, "--int8 with --to huggingface")
    refused(export("--texts", tmp_path / "none.txt"), 3, "cannot read", "none.txt")
    refused(export(of=tmp_path / "none"), 4, "does not exist")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "notes.txt").write_text("mine", encoding="utf-8")
    refused(export(of=tmp_path / "data"), 4, "is not a model folder", "notes.txt")
    refused(export(output=tmp_path / "data"), 3, "is in use", "notes.txt")
    refused(export(output=tmp_path / "data" / "notes.txt"), 3, "is a file")
    refused(call("export", model, "--to", "onnx"), 2, "--output")
    monkeypatch.setattr(exporting, "LEAST_COSINE", 1.1)
    refused(export("--int8"), 4, "in int8 this model says something else", "--accept-loss")
    monkeypatch.setattr(exporting, "find_spec", lambda name: None)
    refused(export(), 6, "pip install 'encodery[onnx]'")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]
    assert (tmp_path / "data" / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_to_huggingface(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """The verb hands over to the writer of that format; what it writes is tested there."""
    transformers = pytest.importorskip("transformers")
    options = {"norm_place": "post", "positions": "learned", "qk_norm": False}
    trained = Trained(tiny_model(vocab_size=tokenizer.vocab_size, **options), tokenizer, Task("masked"))
    trained.save(tmp_path / "m", card="", metrics={})
    (tmp_path / "out").mkdir()
    answer = call("export", tmp_path / "m", "--to", "huggingface", "--output", tmp_path / "out")
    assert answer.code == 0, answer.err
    assert answer.out.startswith(f"huggingface: {tmp_path / 'out'} (")
    assert transformers.AutoModel.from_pretrained(tmp_path / "out").config.hidden_size == 32
    refused(call("export", tmp_path / "m", "--to", "huggingface", "--output", tmp_path / "out"), 3, "is in use")


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="stop"), whole_folder(tmp_path / "a" / "b") as beside:
        (beside / "file").write_text("half", encoding="utf-8")
        raise RuntimeError("stop")
    assert list((tmp_path / "a").iterdir()) == []
    with whole_folder(tmp_path / "a" / "b") as beside:
        (beside / "inner").mkdir()
        (beside / "inner" / "file").write_text("all", encoding="utf-8")
        assert not (tmp_path / "a" / "b").exists()
    assert (tmp_path / "a" / "b" / "inner" / "file").read_text(encoding="utf-8") == "all"


def test_the_example_needs_neither_torch_nor_this_project(model: Path, tmp_path: Path) -> None:
    """It runs where both cannot be imported."""
    assert call("export", model, "--to", "onnx", "--output", tmp_path / "out").code == 0
    code = (
        "import runpy, sys; sys.modules.update(torch=None, encodery=None);"
        f"sys.argv[:] = ['09', {str(tmp_path / 'out')!r}]; sys.path.insert(0, {str(EXAMPLES)!r});"
        f"runpy.run_path({str(next(EXAMPLES.glob('*_onnx.py')))!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "logits: 4 x 3, fp32" in done.stdout
