"""The number format is chosen by measuring, with a reason for the log; and one thread is enough."""

from __future__ import annotations

import pytest
import torch

from encodery.training import precision as room
from encodery.training.precision import choose_precision

CPU = torch.device("cpu")


def test_what_was_asked_for_is_used_without_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_seconds", lambda *_: pytest.fail("measured"))
    assert choose_precision("fp32", CPU).dtype == torch.float32
    assert choose_precision("bf16", CPU).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("fp32", "bf16", "chosen"),
    [(10.0, 1.0, torch.bfloat16), (1.0, 1.0, torch.float32), (1.0, 20.0, torch.float32)],
)
def test_bf16_is_taken_only_where_it_is_faster(
    fp32: float, bf16: float, chosen: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_seconds", lambda dtype, device: fp32 if dtype == torch.float32 else bf16)
    found = choose_precision("auto", CPU)
    assert found.dtype == chosen and f"{fp32 / bf16:.1f} times" in found.reason


def test_the_measurement_itself_says_why() -> None:
    found = choose_precision("auto", CPU)
    assert found.dtype in (torch.float32, torch.bfloat16)
    assert "times" in found.reason and found.reason.startswith(("bf16", "fp32"))


def test_autocast_covers_matrix_products_only() -> None:
    x = torch.randn(4, 4)
    with choose_precision("bf16", CPU).autocast(CPU):
        assert (x @ x).dtype == torch.bfloat16 and (x + x).dtype == torch.float32
    with choose_precision("fp32", CPU).autocast(CPU):
        assert (x @ x).dtype == torch.float32
