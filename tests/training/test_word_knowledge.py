"""Whole runs with each kind of embedding: they start well, are reported, saved whole, and fine-tuned from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

import encodery
from conftest import make_texts
from encodery.config import load_config
from encodery.errors import ConfigError, DataError
from encodery.frontends.cooccurrence import cooccurrence_embeddings
from encodery.frontends.embeddings import StillTable
from encodery.training.preview_model import look_at_model
from encodery.training.recipe import Recipe
from encodery.training.resume import latest_checkpoint

WORDS = sorted({word for text, _ in make_texts(400) for word in text.split()})
CHARACTERS = "frontend.embedding=characters"
KINDS: dict[str, list[str]] = {
    "learned": [],
    "hashed": ["frontend.embedding=hashed", "frontend.hash_rows=300"],
    "n-grams": [CHARACTERS, "frontend.ngram_rows=500"],
    "convolution": [CHARACTERS, "frontend.character_model=convolution"],
    "tuned": ["frontend.embedding=static", "frontend.vectors=vectors.txt"],
    "still": ["frontend.embedding=static", "frontend.vectors.path=vectors.txt", "frontend.vectors.tune=false"],
}
SHORT = ["training.budget=6 steps", "pretrain.training.budget=6 steps"]
RECIPE = """\
name: small
data: {{train: {train}, validation: {validation}, label: label}}
tokenizer: {{vocab_size: 150}}
encoder: {{width: 32, depth: 1, heads: 2, max_length: 64}}
cache: {cache}
pretrain:
  training: {{budget: 6 steps, batch_tokens: 256, precision: fp32, validations: 1}}
objective: {{kind: classify}}
training: {{budget: 6 steps, batch_tokens: 256, precision: fp32, validations: 1}}
evaluation: {{compare: [scratch], resamples: 100}}
"""


@pytest.fixture
def recipe(tmp_path: Path, text_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """And beside it vectors of nearly all words, 12 numbers each, in a space of their own."""
    monkeypatch.chdir(tmp_path)  # overrides name files of the working directory
    path = tmp_path / "recipe.yaml"
    given = {"train": text_file("train.jsonl", 200), "validation": text_file("dev.jsonl", 60, seed=5)}
    path.write_text(RECIPE.format(**given, cache=tmp_path / "cache"), encoding="utf-8")
    rng = np.random.default_rng(3)
    rows = [f"{word} {' '.join(f'{x:.4f}' for x in rng.normal(2, 5, 12))}" for word in WORDS if word != "the"]
    (tmp_path / "vectors.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_run_of_every_kind(kind: str, recipe: Path, tmp_path: Path) -> None:
    """Pretraining, fine-tuning, the contender from scratch; then the folder alone answers as the run did."""
    (tmp_path / "log").touch()
    with (tmp_path / "log").open("w") as file:
        result = encodery.train(recipe, *KINDS[kind], f"output={tmp_path / 'run'}", console=Console(file=file))
    log = (tmp_path / "log").read_text()
    record = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    if kind in ("tuned", "still"):
        (tmp_path / "vectors.txt").unlink()
        assert "of the vocabulary has a vector" in log and "most frequent without one: the" in log
        assert "of the training tokens" in record["data_facts"]["word vectors"]
        assert "word vectors" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
        assert result.trained.model.frontend.width == 12
    else:
        assert "word vectors" not in record["data_facts"]
    texts = [text for text, _ in make_texts(8, seed=9)]
    for folder in ("run", "run/pretrained"):
        opened = encodery.load(tmp_path / folder)
        assert np.isfinite(opened.embed(texts)).all()
    assert encodery.load(tmp_path / "run").predict(texts) == encodery.load(tmp_path / "run").predict(texts)
    assert record["parameters"] == sum(p.numel() for p in result.trained.model.parameters())


@pytest.mark.parametrize("kind", ["learned", "hashed", "n-grams", "tuned"])
def test_embeddings_start_from_neighbours(kind: str, recipe: Path, tmp_path: Path) -> None:
    """Without a step of training the vectors are near those of the counts (of a file: where it has none)."""
    near, far = (
        encodery.train(
            recipe, *KINDS[kind], "pretrain=null", "objective=masked", "training.budget=1 steps",
            "training.optim.lr=1e-12", f"frontend.start={start}", f"output={tmp_path / start}",
        ).trained
        for start in ("cooccurrence", "random")
    )  # fmt: skip
    documents = [encoded.ids.astype(np.int64) for encoded in near.tokenizer.encode_batch(texts_of(recipe))]
    width = near.model.frontend.width
    wanted = cooccurrence_embeddings(documents, near.tokenizer.vocab_size, width, std=0.1, seed=1)
    counts = np.bincount(np.concatenate(documents), minlength=len(wanted))
    often = counts >= 20

    def likeness(trained: Any) -> float:
        """How alike the likenesses between tokens are, whatever way the spaces are turned."""
        with torch.no_grad():
            found = trained.model.frontend.matrix().numpy()[often]
        gram, true = ((x @ x.T)[np.triu_indices(len(x), 1)] for x in (found, wanted[often]))
        return float(np.corrcoef(gram, true)[0, 1])

    if kind == "tuned":
        without = near.tokenizer.encode_batch(["the"])[0].ids
        one, other = (trained.model.frontend.matrix()[without.astype(np.int64)] for trained in (near, far))
        assert not torch.allclose(one, other)
    else:
        assert likeness(near) > 0.7 and abs(likeness(far)) < 0.4


def texts_of(recipe: Path) -> list[str]:
    lines = (recipe.parent / "train.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


def test_vectors_that_stand_still_do_so_through_all_stages(recipe: Path, tmp_path: Path) -> None:
    changes = [*KINDS["still"], "evaluation.compare=[]", f"output={tmp_path / 'run'}"]
    result = encodery.train(recipe, *changes)
    words = result.trained.model.frontend.words
    assert isinstance(words, StillTable)
    before = encodery.load(tmp_path / "run/pretrained").model.frontend.words
    assert torch.equal(words.still, before.still) and torch.equal(words.place, before.place)  # type: ignore[union-attr]
    assert not torch.equal(words.words.weight, before.words.weight)  # type: ignore[union-attr]
    token = int(result.trained.tokenizer.encode_batch([WORDS[0]])[0].ids[0])
    line = (tmp_path / "vectors.txt").read_text(encoding="utf-8").splitlines()[0]
    given = np.array(line.split()[1:], dtype=np.float32)
    found = result.trained.model.frontend.matrix()[token].detach().numpy()
    np.testing.assert_allclose(found / found[0], given / given[0], rtol=1e-4)


def test_fine_tuning_keeps_the_kind_of_its_starting_point(recipe: Path, tmp_path: Path) -> None:
    """The recipe says nothing of characters; the weights do."""
    one = encodery.train(recipe, *KINDS["n-grams"], "pretrain=null", "objective=masked", f"output={tmp_path / 'one'}")
    two = encodery.train(
        recipe, "pretrain=null", f"start_from={tmp_path / 'one'}", "frontend.width=16", f"output={tmp_path / 'two'}",
        "training.optim.lr=1e-12", "evaluation.compare=[]",
    )  # fmt: skip
    assert two.trained.model.config.frontend == one.trained.model.config.frontend
    torch.testing.assert_close(two.trained.model.frontend.matrix(), one.trained.model.frontend.matrix())
    resolved = load_config(Recipe, recipe, [f"start_from={tmp_path / 'one'}", "frontend.width=16"], environment={})
    said = " ".join(look_at_model(resolved)[-1].notes)
    assert "frontend.width is None (the recipe says 16)" in said


def test_looking_at_the_model_before_the_run(recipe: Path) -> None:
    def looked(*changes: str) -> Any:
        return look_at_model(load_config(Recipe, recipe, list(changes), environment={}))

    pretraining, training = looked(*KINDS["convolution"])
    assert any("matrix of its own" in part.name for part in pretraining.parts)
    assert training.parts[0].name == "frontend (characters, convolution)"
    still = looked(*KINDS["still"])[0]
    assert any("stand still" in note for note in still.notes)
    assert still.parts[0].parameters == 150 * 12 + 2 * 12


def test_what_is_wrong_with_the_vectors_is_said_before_the_run(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"frontend.width is 32, .* have 12 numbers") as caught:
        encodery.train(recipe, *KINDS["tuned"], "frontend.width=32", f"output={tmp_path / 'a'}")
    assert "leave frontend.width out" in caught.value.fix
    with pytest.raises(DataError, match=r"did you mean 'vectors.txt'"):
        encodery.train(recipe, "frontend.embedding=static", "frontend.vectors=vektors.txt", f"output={tmp_path / 'b'}")
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()
    (tmp_path / "other.txt").write_text("ein 1 2\nzwei 3 4\n", encoding="utf-8")
    with pytest.raises(DataError, match="none of its 2 words is in the vocabulary"):
        encodery.train(recipe, "frontend.embedding=static", "frontend.vectors=other.txt", f"output={tmp_path / 'c'}")


def test_a_resumed_run_has_the_same_spelling_and_facts(recipe: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """Stopped in the fine-tuning: the pretrained encoder is taken as it lies there, with what it says of the file."""
    whole = encodery.train(recipe, *KINDS["still"], f"output={tmp_path / 'whole'}")
    folder = tmp_path / "broken"
    with monkeypatch.context() as patched:
        patched.setattr("encodery.training.finetune.Finetuning.carry_out", lambda self, start: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            encodery.train(recipe, *KINDS["still"], f"output={folder}")
    assert (folder / "pretrained" / "config.json").exists() and latest_checkpoint(folder) is None
    resumed = encodery.resume(folder)
    for name, value in whole.trained.model.state_dict().items():
        assert torch.equal(value, resumed.trained.model.state_dict()[name]), name
    said = resumed.record.data_facts["word vectors"]
    assert said.split("read in")[0] == whole.record.data_facts["word vectors"].split("read in")[0]
