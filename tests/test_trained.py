"""A trained thing goes to a model folder and comes back the same; a folder that does not fit says why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import batch_of, documents_of, tiny_model
from encodery.data.tokenizers import Tokenizer, TokenizerConfig, train_tokenizer
from encodery.errors import WeightsError
from encodery.trained import Task, Trained

TASKS = [
    Task("masked"),
    Task("classify", ("bad", "good"), temperature=1.7, long="cut"),
    Task("multilabel", ("a", "b", "ü")),
    Task("regress", center=3.25, scale=0.1, paired=True),
]


def trained_of(task: Task, tokenizer: Tokenizer, **encoder: Any) -> Trained:
    outputs = max(1, len(task.labels))
    readout = {"kind": "word"} if task.kind == "masked" else {"kind": "document", "outputs": outputs, "hidden": True}
    return Trained(tiny_model(vocab_size=tokenizer.vocab_size, readout=readout, **encoder), tokenizer, task)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("positions", ["rotary", "learned", "sinusoidal"])
@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)
def test_save_load_save_is_identical(task: Task, positions: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Row 3: to the byte, and its answers to the bit."""
    first = trained_of(task, tokenizer, positions=positions)
    first.save(tmp_path / "one", card="# card", metrics={"accuracy": 0.5})
    again = Trained.load(tmp_path / "one")
    again.save(tmp_path / "two", card="# card", metrics={"accuracy": 0.5})
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert again.task == task and again.model.config == first.model.config and not again.model.training
    batch = batch_of([documents_of([9, 5], vocab_size=tokenizer.vocab_size)], 16)
    with torch.inference_mode():
        assert torch.equal(first.model.encode(batch).vectors, again.model.encode(batch).vectors)
    text = "the film and an unheard word"
    assert tokenizer.encode_batch([text])[0].ids.tolist() == again.tokenizer.encode_batch([text])[0].ids.tolist()
    assert again.maker() == first.maker()
    assert again.maker().max_length == 64 and again.maker().long == task.long


def test_a_tokenizer_of_another_model_is_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    other = train_tokenizer(["the film was good"] * 9, TokenizerConfig(kind="characters", vocab_size=64), seed=1)
    trained = trained_of(Task("masked"), tokenizer)
    trained.tokenizer = other
    trained.save(tmp_path / "m", card="", metrics={})
    with pytest.raises(WeightsError, match="another model"):
        Trained.load(tmp_path / "m")


@pytest.mark.parametrize("how", ["width", "unknown key", "no task"])
def test_a_config_that_does_not_fit_is_refused(how: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    from encodery.bundle import read_bundle, write_bundle

    trained_of(Task("masked"), tokenizer).save(tmp_path / "m", card="", metrics={})
    found = read_bundle(tmp_path / "m")
    config = json.loads(json.dumps(found.config))
    if how == "width":
        config["model"]["encoder"]["width"] = 64
    elif how == "unknown key":
        config["model"]["encoder"]["wings"] = 2
    else:
        del config["task"]
    write_bundle(
        tmp_path / "n",
        config=config,
        weights=found.weights,
        tokenizer_json=found.tokenizer_json,
        card="",
        metrics={},
    )
    with pytest.raises(WeightsError):
        Trained.load(tmp_path / "n")
