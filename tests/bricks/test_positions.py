"""Positions: the formula of the paper, and what rotary scores depend on."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from conftest import batch_of, documents_of, tiny_model
from encodery.bricks.positions import LearnedPositions, Rotary, SinusoidalPositions, rotate, sinusoidal_table


@pytest.mark.parametrize("width", [2, 7, 16, 64])
def test_the_sinusoidal_table_is_the_formula_of_the_paper(width: int) -> None:
    """PE(pos, 2i) = sin(pos / 10000^(2i/d)), PE(pos, 2i+1) = cos(pos / 10000^(2i/d)), number by number."""
    table = sinusoidal_table(50, width)
    assert table.shape == (50, width) and table.dtype == torch.float32
    for position in range(50):
        for channel in range(width):
            angle = position / 10000 ** (2 * (channel // 2) / width)
            expected = math.sin(angle) if channel % 2 == 0 else math.cos(angle)
            assert abs(float(table[position, channel]) - expected) < 1e-6


def test_sinusoidal_positions_are_added_to_scaled_vectors() -> None:
    layer = SinusoidalPositions(10, 16)
    x, position = torch.randn(4, 16), torch.tensor([3, 0, 9, 3])
    torch.testing.assert_close(layer(x, position), x * 4.0 + sinusoidal_table(10, 16)[position])
    assert not list(layer.parameters()) and not layer.state_dict()


def test_learned_positions_add_the_row_of_the_position() -> None:
    layer = LearnedPositions(10, 8)
    x, position = torch.randn(3, 8), torch.tensor([2, 2, 7])
    torch.testing.assert_close(layer(x, position), x + layer.table.weight[position])


def test_rotary_scores_depend_on_the_distance_alone() -> None:
    rotary = Rotary(300, 16)
    query, key = torch.randn(1, 1, 16), torch.randn(1, 1, 16)

    def score(at: int, other: int) -> float:
        angles = [rotary.angles(torch.tensor([place]), torch.float32) for place in (at, other)]
        return float((rotate(query, *angles[0]) * rotate(key, *angles[1])).sum())

    for distance in (0, 1, 5, 40):
        found = [score(at, at + distance) for at in (0, 1, 17, 100, 250)]
        assert np.ptp(found) < 1e-4
    assert abs(score(10, 11) - score(10, 12)) > 1e-3
    assert abs(score(10, 12) - score(12, 10)) > 1e-3  # which of the two comes first is seen


def test_rotary_turns_pairs_by_the_angle_of_the_paper() -> None:
    """Channels i and i + K/2 turn together by position / base^(2i/K); lengths stay."""
    rotary, x = Rotary(20, 8, base=100.0), torch.randn(1, 2, 8)
    turned = rotate(x, *rotary.angles(torch.tensor([7]), torch.float32))
    for head in range(2):
        for i in range(4):
            angle = 7 / 100.0 ** (2 * i / 8)
            a, b = float(x[0, head, i]), float(x[0, head, i + 4])
            assert abs(float(turned[0, head, i]) - (a * math.cos(angle) - b * math.sin(angle))) < 1e-5
            assert abs(float(turned[0, head, i + 4]) - (b * math.cos(angle) + a * math.sin(angle))) < 1e-5
    torch.testing.assert_close(turned.norm(), x.norm())


@pytest.mark.parametrize("positions", ["sinusoidal", "learned", "rotary"])
def test_the_order_of_tokens_matters_only_with_positions(positions: str) -> None:
    (document,) = documents_of([12])
    straight, turned = batch_of([[document]], 12), batch_of([[document[::-1].copy()]], 12)
    for name, differs in ((positions, True), ("none", False)):
        model = tiny_model(positions=name)
        with torch.inference_mode():
            one, other = model.encode(straight).vectors, model.encode(turned).vectors.flip(0)
        assert bool((one - other).abs().max() > 1e-3) == differs
