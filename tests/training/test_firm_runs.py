"""Runs with what makes fine-tuning firm: from a recipe, and refused where it makes no sense."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import encodery
from conftest import make_fit, make_texts
from encodery.data.sources import Row
from encodery.data.tokenizers import Tokenizer
from encodery.errors import ConfigError, DataError
from encodery.training.loop import Fit


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("firm")
    lines = [json.dumps({"text": text, "label": label}) for text, label in make_texts(160)]
    (folder / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


def recipe(files: Path, name: str, **changes: Any) -> dict[str, Any]:
    training = {"budget": "6 steps", "batch_tokens": 256, "precision": "fp32", **changes.pop("training", {})}
    return {
        "name": name,
        "output": str(files / name),
        "cache": str(files / "cache"),
        "data": {"train": str(files / "rows.jsonl"), "label": "label"},
        "tokenizer": {"vocab_size": 200},
        "encoder": {"width": 32, "depth": 2, "heads": 2, "max_length": 32},
        "objective": "classify",
        "training": training,
        "evaluation": {"compare": [], "resamples": 100},
        **changes,
    }


def test_all_of_them_in_one_run(files: Path) -> None:
    start = encodery.train(recipe(files, "start", objective="masked"))
    firm = {"consistency": 1.0, "adversarial": 0.1, "reset_blocks": 1, "keep": "latest", "validations": 3}
    firm["augment"] = {"split": 0.1, "delete": 0.1, "swap": 0.1, "hide": 0.1}
    given = recipe(files, "firm", start_from=str(start.folder), training=firm)
    first, second = encodery.train(given), encodery.train({**given, "output": str(files / "again")})
    weights = [(one.folder / "model.safetensors").read_bytes() for one in (first, second)]
    assert weights[0] == weights[1]
    steps = (first.folder / "journal.jsonl").read_text(encoding="utf-8").splitlines()
    validations = [row for row in map(json.loads, steps) if row["kind"] == "validation"]
    assert len(validations) == 3 and all(0 <= row["standard_error"] < 1 for row in validations)


def test_blocks_that_begin_anew_are_fresh_and_the_others_are_not(files: Path) -> None:
    start = encodery.train(recipe(files, "kept", objective="masked"))
    unmoved = {"budget": "1 steps", "optim": {"lr": 1e-12, "weight_decay": 0.0}, "reset_blocks": 1}
    result = encodery.train(recipe(files, "anew", start_from=str(start.folder), training=unmoved))
    before, after = (run.trained.model.state_dict() for run in (start, result))
    for name in before:
        if name.startswith("encoder.blocks") and before[name].dim() == 2:
            assert torch.allclose(before[name], after[name], atol=1e-6) == name.startswith("encoder.blocks.0.")


def test_more_blocks_than_there_are_cannot_begin_anew(files: Path) -> None:
    start = encodery.train(recipe(files, "short", objective="masked"))
    with pytest.raises(ConfigError, match="the encoder has 2 blocks"):
        encodery.train(recipe(files, "wrong", start_from=str(start.folder), training={"reset_blocks": 3}))


def test_words_have_no_answers_to_compare(files: Path) -> None:
    with pytest.raises(ConfigError, match=r"training\.consistency is for objectives"):
        encodery.train(recipe(files, "words", objective="masked", training={"consistency": 1.0}))


def test_options_that_do_not_go_with_an_objective_are_refused_before_a_stage_of_pretraining(files: Path) -> None:
    stage = {"objective": "contrast", "training": {"budget": "2 steps", "adversarial": 0.1}}
    with pytest.raises(ConfigError, match=r"pretrain\.training\.adversarial does not go with contrast"):
        encodery.train(recipe(files, "late", pretrain=stage))
    stage["training"] = {"budget": "2 steps"}
    firm = {"budget": "2 steps", "consistency": 1.0}
    with pytest.raises(ConfigError, match=r"training\.consistency is for objectives .* not for ordinal"):
        encodery.train(recipe(files, "late", pretrain=stage, objective="ordinal", training=firm))
    copying = {"kind": "write", "decoder": {"pointer": True}}
    with pytest.raises(ConfigError, match=r"consistency does not go with objective\.decoder\.pointer"):
        written = {"train": str(files / "rows.jsonl"), "target": "label"}
        encodery.train(recipe(files, "late", data=written, objective=copying, training=firm))
    assert not (files / "late").exists()


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"evaluation": {"compare": ["bm25"]}}, "bm25 does not fit"),
        ({"objective": {"kind": "classify", "class_weights": {"nothing": 2.0}}}, "labels that the data does not have"),
        ({"training": {"budget": "2 steps", "reset_blocks": 3}}, "the encoder has 2 blocks"),
        ({"objective": {"kind": "ordinal", "order": ["nothing", "else"]}}, "is not in objective.order"),
    ],
)
def test_what_is_wrong_with_the_second_stage_is_found_before_the_first_learns(
    files: Path, change: dict[str, Any], wrong: str
) -> None:
    folder = files / f"early-{len(wrong)}"
    given = recipe(files, folder.name, pretrain={"training": {"budget": "2 steps"}})
    with pytest.raises((ConfigError, DataError), match=wrong):
        encodery.train({**given, **change})
    assert not (folder / "pretrained" / "journal.jsonl").exists()


@pytest.mark.parametrize(("keep", "kept"), [("best", 2), ("latest", 4)])
def test_which_weights_are_kept(keep: str, kept: int, tokenizer: Tokenizer, rows: list[Row]) -> None:
    """Scores 0.5, 0.9, 0.5, 0.85, 0.7, give or take 0.1: the fourth is as good as the second."""
    scores = iter([0.5, 0.9, 0.5, 0.85, 0.7])
    fit: Fit = make_fit(tokenizer, rows=rows, training={"budget": "5 steps", "validations": 5, "keep": keep})
    fit.validate = lambda model: {"score": next(scores), "validation_loss": 1.0, "metric": 0.5, "standard_error": 0.1}
    told: list[dict[str, Any]] = []
    fit.on_score = told.append
    assert fit.advance()
    assert fit.state.kept_step == kept and fit.state.best_score == 0.9
    assert fit.state.kept_score == (0.9 if keep == "best" else 0.85)  # by which the best of several seeds is chosen
    assert [row["kept_step"] for row in told] == ([1, 2, 2, 2, 2] if keep == "best" else [1, 2, 2, 4, 4])


@pytest.mark.parametrize("crf", [True, False])
def test_tags_and_what_is_written_learn_with_answers_that_agree(tmp_path: Path, crf: bool) -> None:
    tagged = [{"words": ["go", "to", city], "tags": ["O", "O", "B-city"]} for city in ("Rome", "Bonn", "Lima")] * 8
    lines = [json.dumps({**row, "target": " ".join(row["words"][::-1])}) for row in tagged]
    (tmp_path / "tagged.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    given = recipe(tmp_path, "tags", objective={"kind": "tag", "crf": crf}, training={"budget": "3 steps"})
    files = {split: str(tmp_path / "tagged.jsonl") for split in ("train", "validation")}
    given["data"] = {**files, "text": "words", "tags": "tags"}
    given["training"]["consistency"] = 1.0
    assert encodery.train(given).record.metrics["span_f1"]["value"] >= 0
    if crf:
        given["data"] = {**files, "text": "words", "target": "target"}
        given |= {"objective": "write", "output": str(tmp_path / "written"), "tokenizer": {"kind": "byte_bpe"}}
        assert encodery.train(given).record.metrics["bleu"]["value"] >= 0
