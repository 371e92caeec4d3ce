"""Whole runs that learn vectors and rankings: from recipe to answers, stopped and taken up, refused where they must."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import encodery
from conftest import compared_in_pairs
from encodery.config import load_config
from encodery.errors import ConfigError, DataError, EncoderyError, Interrupted, WeightsError
from encodery.training.loop import Fit
from encodery.training.preview import look_at_batch
from encodery.training.preview_model import look_at_model, stages_of
from encodery.training.recipe import Recipe
from encodery.training.run import RunResult
from encodery.training.signals import StopRequest
from encodery.training.start import resume
from encodery.use.lines import answer_lines
from encodery.use.score import evaluate

THINGS = ["bread", "train", "guitar", "river", "doctor", "garden", "winter", "letter", "window", "market"]
OTHER = dict(zip(THINGS, ["loaf", "rail", "string", "water", "nurse", "flower", "snow", "stamp", "glass", "stall"]))
FILL = ["the", "a", "one", "we", "saw", "near", "old", "big", "with", "it"]


class World:
    """Sentences about ten things, each of which has two names: texts that name the same thing belong together."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        rng = random.Random(3)
        for name, number in (("train", 240), ("dev", 60)):
            rows = [self.row(rng) for _ in range(number)]
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def row(self, rng: random.Random) -> dict[str, Any]:
        thing, wrong, *_ = rng.sample(THINGS, 2)
        same = rng.random() < 0.5
        return {
            "text": self.text(rng, thing),
            "right": f"it is a {OTHER[thing]}",
            "wrong": [f"it is a {OTHER[wrong]}"],
            "other": self.text(rng, OTHER[thing if same else wrong]),
            "close": 5.0 if same else 0.0,
        }

    def text(self, rng: random.Random, word: str) -> str:
        words = [rng.choice(FILL) for _ in range(rng.randint(2, 6))]
        words.insert(rng.randrange(len(words) + 1), word)
        return " ".join(words)

    def recipe(self, **changes: Any) -> dict[str, Any]:
        data = {"train": str(self.folder / "train.jsonl"), "validation": str(self.folder / "dev.jsonl")}
        training = {"budget": "60 steps", "batch_tokens": 256, "precision": "fp32", "validations": 3}
        return {
            "name": "vectors",
            "output": str(self.folder / "run"),
            "seed": 2,
            "data": data | changes.pop("data", {}),
            "tokenizer": {"vocab_size": 120},
            "encoder": {"width": 32, "depth": 1, "heads": 2, "max_length": 32, "drop_rate": 0.1},
            "training": training | {"optim": {"lr": 5e-3}} | changes.pop("training", {}),
            "evaluation": {"resamples": 100},
            **changes,
        }

    def run(self, **changes: Any) -> RunResult:
        return encodery.train(self.recipe(**changes))


PAIRS = {"pair": "right", "negatives": "wrong"}
GRADED = {"pair": "other", "label": "close"}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def value(result: RunResult, name: str = "") -> float:
    found = result.record.metric(name).value
    assert found is not None
    return found


def test_pairs_with_negatives_in_large_batches(world: World) -> None:
    """Chance finds one of ten things; three batches a step are looked at together."""
    objective = {"kind": "embed", "dimensions": [8], "learn_temperature": True, "symmetric": True}
    result = world.run(data=PAIRS, objective=objective, training={"accumulate": 3, "budget": "40 steps"})
    assert result.record.main_metric == "mrr_10" and value(result, "success_1") > 0.25
    assert [row.name for row in result.record.comparison] == ["BM25", "cosine of TF-IDF", "encoder"]
    compared_in_pairs(result.record)
    assert "the first 8 numbers of its vectors get" in result.record.comparison[-1].note
    used = encodery.load(result.folder)
    texts = ["we saw bread", "a big guitar"]
    vectors = used.embed(texts)
    assert vectors.shape == (2, 32)
    (answer,) = used.predict([("we saw bread", "a big guitar")])
    assert answer["similarity"] == pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-5)
    np.testing.assert_allclose(used.compare(texts, texts), vectors @ vectors.T, atol=1e-5)
    short = encodery.load(result.folder, dimension=8)
    np.testing.assert_allclose(
        short.embed(texts), vectors[:, :8] / np.linalg.norm(vectors[:, :8], axis=1, keepdims=True), atol=1e-5
    )
    again = evaluate(result.folder, world.folder / "dev.jsonl")
    assert again.metrics["mrr_10"]["value"] == pytest.approx(value(result), abs=1e-6)
    lines = list(answer_lines(used, ["a\tb", "alone", ""]))
    assert "similarity" in lines[0] and "error" in lines[1] and "error" in lines[2]
    assert ["vector" in one for one in answer_lines(used, ["a\tb", "alone", ""], embed=True)] == [True, True, False]
    with pytest.raises(DataError, match="single text"):
        used.predict(["alone"])
    with pytest.raises(WeightsError, match="dimension 33"):
        encodery.load(result.folder, dimension=33)


@pytest.mark.parametrize("loss", ["cosent", "pearson", "cosine"])
def test_pairs_with_numbers(world: World, loss: str) -> None:
    result = world.run(data=GRADED, objective={"kind": "embed", "loss": loss}, training={"budget": "80 steps"})
    assert result.record.main_metric == "spearman" and value(result) > 0.3
    assert [row.name for row in result.record.comparison] == ["cosine of TF-IDF", "encoder"]
    compared_in_pairs(result.record)
    assert result.record.scatter and result.record.errors
    again = evaluate(result.folder, world.folder / "dev.jsonl")
    assert again.metrics["spearman"]["value"] == pytest.approx(value(result), abs=1e-6)


def test_late_interaction(world: World) -> None:
    result = world.run(data=PAIRS, objective={"kind": "embed", "late": True, "width": 16})
    assert value(result, "success_1") > 0.25
    used = encodery.load(result.folder)
    found = used.compare(["we saw bread"], ["one loaf", "a string"])
    assert found.shape == (1, 2) and np.abs(found).max() <= 1 + 1e-5
    (answer,) = used.predict([("we saw bread", "one loaf")])
    assert answer["similarity"] == pytest.approx(float(found[0, 0]), abs=1e-5)
    with pytest.raises(WeightsError, match="a vector for each token"):
        used.embed(["x"])


def test_two_heads_tell_queries_from_documents(world: World) -> None:
    result = world.run(data=PAIRS, objective={"kind": "embed", "heads": "two", "width": 16})
    assert value(result, "success_1") > 0.4
    used = encodery.load(result.folder)
    (answer,) = used.predict([("we saw bread", "one loaf")])
    assert answer["similarity"] == pytest.approx(float(used.compare(["we saw bread"], ["one loaf"])[0, 0]), abs=1e-5)
    assert abs(float(used.compare(["one loaf"], ["we saw bread"])[0, 0]) - answer["similarity"]) > 1e-4


@pytest.mark.parametrize("loss", ["listwise", "pointwise"])
@pytest.mark.parametrize("grades", [False, True])
def test_candidates_in_order(world: World, loss: str, grades: bool) -> None:
    data = GRADED if grades else PAIRS
    result = world.run(data=data, objective={"kind": "rank", "loss": loss, "grades": grades})
    assert result.record.main_metric == "ndcg_10" and 0.5 < value(result) <= 1
    assert [row.name for row in result.record.comparison] == ["BM25", "encoder"]
    compared_in_pairs(result.record)
    again = evaluate(result.folder, world.folder / "dev.jsonl")
    assert again.metrics["ndcg_10"]["value"] == pytest.approx(value(result), abs=1e-6)
    (answer,) = encodery.load(result.folder).predict([("we saw bread", "one loaf")])
    assert isinstance(answer["score"], float)


def test_simcse_by_itself_and_as_a_first_stage(world: World) -> None:
    alone = world.run(objective={"kind": "contrast"}, training={"budget": "20 steps", "accumulate": 2})
    assert alone.record.main_metric == "spread_loss" and 0 < value(alone) < 5
    assert encodery.load(alone.folder).embed(["we saw bread"]).shape == (1, 32)
    with pytest.raises(WeightsError):
        encodery.load(alone.folder).predict(["we saw bread"])
    first = {"objective": {"kind": "contrast"}, "drop_rate": 0.1, "training": {"budget": "10 steps"}}
    after = world.run(
        data=PAIRS, pretrain=first, objective={"kind": "embed"}, output=str(world.folder / "after"), seed=3
    )
    assert after.record.main_metric == "mrr_10"


def test_hidden_words_are_learned_first_from_each_text_by_itself(world: World) -> None:
    """More text without pairs can stand beside the pairs."""
    (world.folder / "more.txt").write_text("the doctor saw the river\n" * 20)
    first = {"data": [str(world.folder / "more.txt")], "training": {"budget": "3 steps", "batch_tokens": 256}}
    result = world.run(data=PAIRS, pretrain=first, objective={"kind": "embed"}, training={"budget": "2 steps"})
    found = json.loads((result.folder / "pretrained" / "metrics.json").read_text(encoding="utf-8"))
    assert found["data_facts"]["splits"]["train"]["rows"] == 2 * 240 + 20


def test_a_stopped_run_goes_on_to_the_same_vectors(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several batches a step, dropout, a learned temperature."""
    given = {
        "data": PAIRS,
        "objective": {"kind": "embed", "learn_temperature": True},
        "training": {"accumulate": 2, "budget": "12 steps"},
    }
    whole = world.run(**given, output=str(world.folder / "whole"))
    step = Fit._step

    def stopping(fit: Fit, batches: Any) -> dict[str, Any]:
        if fit.state.step == 4:
            monkeypatch.setattr(StopRequest, "__call__", lambda self: True)
        return step(fit, batches)

    monkeypatch.setattr(Fit, "_step", stopping)
    folder = world.folder / "stopped"
    with pytest.raises(Interrupted):
        world.run(**given, output=str(folder))
    monkeypatch.undo()
    later = resume(folder)
    for name, value in whole.trained.model.state_dict().items():
        assert value.equal(later.trained.model.state_dict()[name]), name


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"objective": {"kind": "embed"}}, "data.pair"),
        ({"objective": {"kind": "embed"}, "data": GRADED}, "looks at no labels"),
        ({"objective": {"kind": "embed", "loss": "cosent"}, "data": {"pair": "other"}}, "data.label"),
        ({"objective": {"kind": "embed", "loss": "cosent"}, "data": GRADED | PAIRS | {"pair": "other"}}, "negatives"),
        ({"objective": {"kind": "embed", "heads": "two"}, "data": PAIRS}, "width"),
        ({"objective": {"kind": "rank"}, "data": {"pair": "right"}}, "data.negatives"),
        ({"objective": {"kind": "embed"}, "data": {"pair": "missing"}}, "missing"),
        ({"objective": {"kind": "embed"}, "data": {"pair": "right", "negatives": "none"}}, "none"),
        ({"objective": {"kind": "embed", "loss": "cosent"}, "data": {"pair": "other", "label": "text"}}, "number"),
        ({"objective": {"kind": "embed"}, "data": PAIRS, "evaluation": {"compare": ["majority"]}}, "majority"),
    ],
)
def test_what_does_not_go_together_is_refused(world: World, changes: dict[str, Any], said: str) -> None:
    with pytest.raises((ConfigError, DataError), match=said) as caught:
        world.run(**changes)
    assert isinstance(caught.value, EncoderyError)


@pytest.mark.parametrize(
    ("objective", "data"), [({"kind": "embed", "late": True}, PAIRS), ({"kind": "rank", "grades": True}, GRADED)]
)
def test_it_can_be_looked_at_before_it_runs(world: World, objective: dict[str, Any], data: dict[str, str]) -> None:
    first = {"data": [], "objective": {"kind": "contrast"}, "training": {"budget": "5 steps"}}
    given = world.recipe(objective=objective, data=data, pretrain=first)
    resolved = load_config(Recipe, None, [], environment={}, defaults=given)
    assert [view.parameters > 0 for view in look_at_model(resolved)] == [True, True]
    for stage in stages_of(resolved.config):
        view = look_at_batch(resolved, stage)
        assert view.documents > 1 and bool(view.labels) == (stage.name == "training" and data is GRADED)


def test_numbers_that_are_all_the_same_are_refused(world: World) -> None:
    rows = [json.loads(line) | {"close": 3.0} for line in (world.folder / "train.jsonl").read_text().splitlines()]
    (world.folder / "flat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = GRADED | {"train": str(world.folder / "flat.jsonl")}
    with pytest.raises(DataError, match="have the number 3"):
        world.run(data=data, objective={"kind": "embed", "loss": "cosent"})
