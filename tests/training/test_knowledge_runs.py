"""Whole runs that use knowledge: entities fused into words, triples behind texts, triples learned beside words."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import encodery
from encodery.config import load_config
from encodery.data.knowledge import Knowledge
from encodery.errors import ConfigError, DataError, EncoderyError, Interrupted
from encodery.training.loop import Fit
from encodery.training.preview import check_learning, look_at_batch
from encodery.training.preview_model import look_at_model, stages_of
from encodery.training.recipe import Recipe
from encodery.training.run import RunResult
from encodery.training.signals import StopRequest
from encodery.training.start import resume
from encodery.use.score import evaluate

KINDS = ("fruit", "tool")
PEOPLE = ["we", "saw", "the", "old", "new", "big", "small", "one", "it", "was"]


class World:
    """Things with made-up names, each a fruit or a tool. Texts name one thing and never say what it is; those in the
    files marked-* call it "thing" and mark which one it is."""

    def __init__(self, folder: Path, things: int = 600) -> None:
        rng = random.Random(5)
        self.folder = folder
        self.ids = [f"Q{number}" for number in range(things)]
        names: set[str] = set()
        while len(names) < things:
            names.add("".join(rng.choice("bdfgklmnprst") + rng.choice("aeiou") for _ in range(3)))
        self.name = dict(zip(self.ids, sorted(names, key=lambda name: rng.random())))
        self.kind = {thing: rng.choice(KINDS) for thing in self.ids}
        most = 4 * things // 5
        for called in ("", "thing"):
            self.rows("train.jsonl", self.ids[:most], 2, called, seed=1)
            self.rows("dev.jsonl", self.ids[:50], 1, called, seed=2)
            self.rows("test.jsonl", self.ids[most:], 1, called, seed=3)
        self.write("names.tsv", [f"{thing}\t{self.name[thing]}" for thing in self.ids])
        self.write("triples.tsv", [f"{thing}\tP31\t{self.kind[thing]}" for thing in self.ids])
        self.write("relations.tsv", ["P31\tis a"])
        numbers = np.random.default_rng(1).normal(size=(things, 8)).round(3)
        for row, thing in zip(numbers, self.ids):
            row[0] = 2.0 if self.kind[thing] == "fruit" else -2.0
        lines = [f"{thing} {' '.join(map(str, row))}" for row, thing in zip(numbers.tolist(), self.ids)]
        self.write("vectors.txt", [f"{things} 8", *lines])

    def write(self, name: str, lines: list[str]) -> None:
        (self.folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")

    def rows(self, name: str, things: list[str], times: int, called: str = "", *, seed: int) -> None:
        rng = random.Random(seed)
        rows = []
        for thing in things * times:
            before = " ".join(rng.choice(PEOPLE) for _ in range(rng.randint(1, 5)))
            word = called or self.name[thing]
            text = f"{before} {word} {rng.choice(PEOPLE)}"
            mark = [len(before) + 1, len(before) + 1 + len(word), thing]
            rows.append(json.dumps({"text": text, "label": self.kind[thing], "entities": [mark]}))
        rng.shuffle(rows)
        self.write(f"marked-{name}" if called else name, rows)

    def recipe(self, name: str, knowledge: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
        marked = "marked-" if "mentions" in (knowledge or {}) else ""
        names = {"train": "train", "validation": "dev", "test": "test"}
        data = {key: str(self.folder / f"{marked}{file}.jsonl") for key, file in names.items()} | {"label": "label"}
        files = ("names", "triples", "relations", "vectors", "descriptions", "test_triples", "validation_triples")
        placed = {k: str(self.folder / v) if k in files else v for k, v in (knowledge or {}).items()}
        encoder = {"width": 48, "depth": 2, "heads": 2, "max_length": 64, "drop_rate": 0.0}
        return {
            "name": name,
            "output": str(self.folder / name),
            "cache": str(self.folder / "cache"),
            "data": {**data, **({"knowledge": placed} if knowledge else {})},
            "tokenizer": {"vocab_size": 300},
            "encoder": {**encoder, **changes.pop("encoder", {})},
            "objective": "classify",
            "training": {
                "budget": "60 steps",
                "batch_tokens": 512,
                "precision": "fp32",
                "validations": 0,
                "optim": {"lr": 3e-3},
            },
            "evaluation": {"compare": ["majority"], "resamples": 100},
            **changes,
        }


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def accuracy(result: RunResult) -> float:
    value = result.record.metric("accuracy").value
    assert value is not None
    return value


MARKED = {"mentions": "entities", "names": "names.tsv", "vectors": "vectors.txt"}


@pytest.fixture(scope="module")
def fused(world: World) -> RunResult:
    encoder = {"fusion": {"after": [1, 2], "heads": 2, "frozen": True}}
    return encodery.train(world.recipe("fused", MARKED, encoder=encoder))


@pytest.fixture(scope="module")
def told(world: World) -> RunResult:
    knowledge = {"names": "names.tsv", "triples": "triples.tsv", "relations": "relations.tsv", "inject": {"tokens": 8}}
    return encodery.train(world.recipe("told", knowledge))


def test_vectors_of_entities_tell_what_texts_do_not(fused: RunResult, world: World) -> None:
    """Things that no training text names are known by their vectors alone."""
    assert accuracy(fused) > 0.9
    facts = fused.record.data_facts
    assert facts["entities known"] == facts["entities with a vector of the file"] == 600
    assert facts["splits"]["train"]["mentions"] == facts["splits"]["train"]["rows"] == 960
    encoder = fused.trained.model.config.encoder
    assert encoder.fusion.entities == 600 and encoder.fusion.width == 8  # type: ignore[union-attr]
    table = fused.trained.model.state_dict()["encoder.fusion.entities.weight"]
    number = fused.trained.knowledge.numbers["Q7"]  # type: ignore[union-attr]
    assert abs(float(table[number - 1, 0])) == 2.0, "a frozen table keeps the numbers of the file"


def test_triples_tell_what_texts_do_not(told: RunResult, world: World) -> None:
    assert accuracy(told) > 0.9
    facts = told.record.data_facts
    assert facts["splits"]["test"]["triples written"] == facts["splits"]["test"]["rows"] == 120
    assert facts["names looked for"] == facts["triples known"] == 600
    plain = encodery.train(world.recipe("plain"))
    assert accuracy(plain) < 0.7, "the texts alone must not tell"
    assert "triples written" not in plain.record.data_facts["splits"]["test"]


def test_a_model_folder_knows_what_it_was_trained_with(fused: RunResult, told: RunResult, world: World) -> None:
    """Predicted and evaluated from its folder, a model gives the answers of its run."""
    thing = world.ids[-1]
    text = f"we saw the {world.name[thing]}"
    marked = {"text": "we saw the thing", "entities": [[11, 16, thing]]}
    for result, given, prefix in ((fused, marked, "marked-"), (told, text, "")):
        known = Knowledge.from_json((result.folder / "knowledge.json").read_text(encoding="utf-8"))
        assert known == result.trained.knowledge
        model = encodery.load(result.folder)
        (answer,) = model.predict([given])
        assert answer["label"] == world.kind[thing]
        again = evaluate(result.folder, world.folder / f"{prefix}test.jsonl")
        assert again.metric("accuracy").value == accuracy(result)
        assert again.data_facts["splits"]["scored"]["mentions"] == 120
    # Which thing a text names changes the vector of a text.
    model = encodery.load(fused.folder)
    one, other = model.embed([marked, {**marked, "entities": [[11, 16, world.ids[0]]]}])
    assert not np.allclose(one, other)
    with pytest.raises(DataError, match="lies outside of the text"):
        model.predict([{"text": "short", "entities": [[0, 99, thing]]}])


def test_a_run_that_starts_from_one_with_entities_keeps_them(fused: RunResult, world: World) -> None:
    """Other rows mark other things: the numbers of those that are known stay, the others are counted."""
    later = world.recipe("later", {"mentions": "entities"}, start_from=str(fused.folder))
    later["training"]["budget"] = "5 steps"
    world.rows("later.jsonl", world.ids[:60], 2, "thing", seed=9)
    more = (world.folder / "marked-later.jsonl").read_text(encoding="utf-8").replace('"Q3"', '"Q3000"')
    world.write("later.jsonl", more.splitlines())
    later["data"]["train"] = str(world.folder / "later.jsonl")
    result = encodery.train(later)
    assert result.trained.knowledge is not None and fused.trained.knowledge is not None
    assert result.trained.knowledge.entities == fused.trained.knowledge.entities
    assert result.record.data_facts["splits"]["train"]["mentions of unknown entities"] == 2
    mine, theirs = (run.trained.model.state_dict()["encoder.fusion.entities.weight"] for run in (result, fused))
    assert np.array_equal(mine.numpy(), theirs.numpy())


# -- triples learned beside words --------------------------------------------------------------------


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Things that are said to be beside each other by their descriptions, and are so in the triples."""
    made = World(tmp_path_factory.mktemp("ring"), things=80)
    words = ["river", "house", "stone", "light", "paper", "glass", "metal", "cloud"]
    counts = ["one", "two", "three", "four", "five", "six", "seven"]
    said = [f"{thing}\tthe {words[n // 10]} number {counts[n % 7]}" for n, thing in enumerate(made.ids)]
    made.write("said.tsv", said)
    rng = random.Random(2)
    same = [(a, b) for n, a in enumerate(made.ids) for m, b in enumerate(made.ids) if n // 10 == m // 10 and a != b]
    rng.shuffle(same)
    lines = [f"{a}\tlike\t{b}" for a, b in same]
    made.write("learn.tsv", lines[:500])
    made.write("kept.tsv", lines[500:560])
    return made


def learning(ring: World, name: str, **changes: Any) -> dict[str, Any]:
    files = {"triples": "learn.tsv", "test_triples": "kept.tsv", "descriptions": "said.tsv"}
    recipe = ring.recipe(name, files)
    recipe["data"].pop("label")
    recipe["objective"] = {"kind": "knowledge", "link_width": 16, "entity_tokens": 16, "weight": 2.0, **changes}
    # At 80 steps a part of the seeds has only begun to learn: which part depends on the processor's rounding.
    recipe["training"]["budget"] = "240 steps"
    return recipe


@pytest.mark.parametrize("score", ["transe", "distmult", "rotate"])
def test_triples_are_learned_beside_words(ring: World, score: str) -> None:
    """Kept triples are ranked far better than by chance, by what the descriptions say."""
    result = encodery.train(learning(ring, f"learned-{score}", score=score))
    mrr, hits = result.record.metric("mrr").value, result.record.metric("hits_10").value
    chance = float(np.mean(1 / np.arange(1, 73)))  # about 72 of the 80 are left when known answers are taken out
    assert mrr is not None and hits is not None and mrr > 1.8 * chance and 0 <= hits <= 1
    assert result.record.main_metric == "masked_accuracy" and result.record.metric("masked_loss").value is not None
    assert any(note.startswith("Link prediction: 60 test triples") for note in result.record.notes)
    assert result.record.data_facts["triples learned"] == 500 and result.record.data_facts["entities"] == 80
    journal = (result.folder / "journal.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [row for row in map(json.loads, journal) if row["kind"] == "step"]
    assert steps[-1]["link_loss"] < steps[0]["link_loss"]
    assert "Link prediction" in (result.folder / "report.html").read_text(encoding="utf-8")


def test_the_same_recipe_gives_the_same_model_and_goes_on_as_a_start(ring: World) -> None:
    recipe = learning(ring, "first")
    recipe["training"]["budget"] = "8 steps"
    first, second = encodery.train(recipe), encodery.train({**recipe, "output": str(ring.folder / "second")})
    weights = [(result.folder / "model.safetensors").read_bytes() for result in (first, second)]
    assert weights[0] == weights[1]
    fine = ring.recipe("fine", start_from=str(first.folder))
    fine["training"]["budget"] = "3 steps"
    assert encodery.train(fine).record.metric("accuracy").value is not None


def test_a_run_that_was_stopped_goes_on_to_the_same_model(ring: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which triples a batch has follows from its place alone."""
    recipe = learning(ring, "whole")
    recipe["training"]["budget"] = "12 steps"
    whole = encodery.train(recipe)
    taken: list[int] = []
    step = Fit._step
    monkeypatch.setattr(Fit, "_step", lambda fit, batches: taken.append(1) or step(fit, batches))
    folder = ring.folder / "stopped"
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(StopRequest, "__call__", lambda stop: len(taken) == 5)
        encodery.train({**recipe, "output": str(folder)})
    assert len(taken) == 5
    later = resume(folder)
    assert len(taken) == 12
    weights = [(result.folder / "model.safetensors").read_bytes() for result in (whole, later)]
    assert weights[0] == weights[1]
    assert whole.record.metrics == later.record.metrics


def test_words_and_triples_are_a_stage_before_another_objective(ring: World) -> None:
    recipe = learning(ring, "staged")
    recipe["data"]["label"] = "label"
    recipe["pretrain"] = {"objective": recipe.pop("objective"), "training": recipe["training"]}
    recipe |= {"objective": "classify", "training": {**recipe["training"], "budget": "3 steps"}}
    result = encodery.train(recipe)
    inner = json.loads((result.folder / "pretrained" / "metrics.json").read_text(encoding="utf-8"))
    assert inner["metrics"]["mrr"]["value"] > 0 and result.record.metric("accuracy").value is not None
    assert result.trained.knowledge is None, "no text of this run is searched for entities"


def test_everything_can_be_looked_at_before_it_runs(ring: World, world: World) -> None:
    """inspect model, batch and learning for each of the three."""
    fusion = {"fusion": {"heads": 2, "width": 8}}
    told = {"names": "names.tsv", "triples": "triples.tsv", "inject": {"tokens": 8}}
    recipes = {
        "readout (words, matrix shared)": learning(ring, "a"),
        "encoder: fusion after block 2": world.recipe("b", MARKED, encoder=fusion),
        "encoder: block 1": world.recipe("c", told),
    }
    for part, recipe in recipes.items():
        resolved = load_config(Recipe, None, [], environment={}, defaults=recipe)
        (view,) = look_at_model(resolved)
        assert part in {row.name for row in view.parts}
        (stage,) = stages_of(resolved.config)
        batch = look_at_batch(resolved, stage)
        assert batch.documents > 0 and 0.3 < batch.fill <= 1
        assert (batch.masked > 0) == (part.startswith("readout"))
        learned = check_learning(resolved, stage, steps=3)
        assert len(learned.losses) == 3


# -- wrong input ------------------------------------------------------------------------------------


def wrong(ring: World, world: World) -> list[tuple[dict[str, Any], str]]:
    told = {"names": "names.tsv", "triples": "triples.tsv", "inject": {}}
    missing = learning(ring, "x")
    missing["data"]["knowledge"].pop("triples")
    missing["data"]["knowledge"].pop("test_triples")
    return [
        (world.recipe("x", encoder={"fusion": {}}), "encoder.fusion needs data.knowledge"),
        (world.recipe("x", {"mentions": "entities"}), "data.knowledge is used by nothing"),
        (world.recipe("x", told, encoder={"pattern": "window"}), "encoder.pattern window goes by where tokens lie"),
        (world.recipe("x", told, encoder={"kind": "recurrent", "heads": None}), "recurrent|heads"),
        (missing, "learns triples: name them with data.knowledge.triples"),
        (world.recipe("x", {**MARKED, "names": "nowhere.tsv"}, encoder={"fusion": {}}), "nowhere.tsv"),
        (world.recipe("x", MARKED, encoder={"fusion": {"width": 12}}), "encoder.fusion.width is 12, .* tells of 8"),
        (world.recipe("x", MARKED, encoder={"fusion": {"entities": 3}}), "fusion.entities is 3, .* tells of 600"),
        (world.recipe("x", MARKED, encoder={"fusion": {"heads": 5}}), "8 is not a multiple of fusion.heads 5"),
        (world.recipe("x", {"mentions": "entity", "names": "names.tsv"}, encoder={"fusion": {"width": 8}}),
         "none of the .* training rows mentions one of the 600 entities"),
    ]  # fmt: skip


@pytest.mark.parametrize("number", range(10))
def test_wrong_recipes_are_refused_with_the_reason(ring: World, world: World, number: int) -> None:
    recipe, said = wrong(ring, world)[number]
    with pytest.raises(EncoderyError, match=said) as caught:
        encodery.train(recipe)
    assert isinstance(caught.value, (ConfigError, DataError))
