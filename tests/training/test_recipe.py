"""What a recipe accepts and what it says about keys that stand in the wrong section."""

from __future__ import annotations

from pathlib import Path

import pytest

from encodery.config import load_config
from encodery.errors import ConfigError
from encodery.training.recipe import Recipe


def test_a_key_of_the_wrong_section_is_sought_nearby_first(tmp_path: Path) -> None:
    """Pretraining has a rate as well; who writes under training means the one there."""
    file = tmp_path / "recipe.yaml"
    file.write_text("data: {train: x.csv}\nobjective: classify\ntraining: {lr: 1e-3}\npretrain: {training: {lr: 1}}\n")
    with pytest.raises(ConfigError) as refused:
        load_config(Recipe, file, [], environment={})
    said = str(refused.value)
    assert "training.lr: unknown key, did you mean 'training.optim.lr'" in said
    assert "pretrain.training.lr: unknown key, did you mean 'pretrain.training.optim.lr'" in said


@pytest.mark.parametrize(
    ("encoder", "said"),
    [
        (
            "{kind: recurrent, window: 64}",
            "encoder.window: kind recurrent has no such key; kind transformer has it; expected one of kind",
        ),
        (
            "{kind: hierarchical, pattern: window}",
            "encoder.pattern: kind hierarchical has no such key; kind transformer",
        ),
        ("{kind: recurrent, heads: 4}", "kind recurrent has no such key; kind transformer and hierarchical have it"),
        ("{kind: recurrent, widht: 64}", "encoder.widht: unknown key, did you mean 'width'?"),
    ],
)
def test_a_key_of_another_kind_is_told_from_one_that_is_unknown(encoder: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(f"data: {{train: x.csv}}\nobjective: masked\nencoder: {encoder}\n")
    with pytest.raises(ConfigError) as refused:
        load_config(Recipe, file, [], environment={})
    assert said in str(refused.value)
