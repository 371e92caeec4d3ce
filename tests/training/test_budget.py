"""Budgets: what may be written, what it means, and that it is written so that it reads back the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encodery.training.budget import Budget, parse_budget
from encodery.training.training_config import TrainingConfig


@pytest.mark.parametrize(
    ("text", "kind", "amount"),
    [
        ("10m", "seconds", 600), ("90s", "seconds", 90), ("1h30m", "seconds", 5400), ("1.5 hours", "seconds", 5400),
        ("2 min", "seconds", 120), ("2000 steps", "steps", 2000), ("1 step", "steps", 1), ("2k steps", "steps", 2000),
        ("5M tokens", "tokens", 5e6), ("1.5B tokens", "tokens", 1.5e9), ("1_000 tokens", "tokens", 1000),
        ("3 epochs", "epochs", 3), ("0.5 epochs", "epochs", 0.5),
    ],
)  # fmt: skip
def test_budgets_as_people_write_them(text: str, kind: str, amount: float) -> None:
    assert parse_budget(text) == Budget(kind, amount)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["", "10", "10x", "m", "-5 steps", "0 steps", "1h 3 steps", "5 steps please", "1e6 steps"]
)
def test_other_budgets_are_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match="2000 steps"):
        parse_budget(text)


@given(
    st.sampled_from(["seconds", "steps", "tokens", "epochs"]),
    st.one_of(st.integers(1, 10**12), st.floats(1e-3, 1e6, allow_nan=False)),
)
def test_a_budget_reads_back_as_it_was_written(kind: str, amount: float) -> None:
    """A resumed run reads its recipe from its own folder."""
    budget = Budget(kind, amount)  # type: ignore[arg-type]
    assert parse_budget(str(budget)) == budget
    assert TrainingConfig(budget=budget) == TrainingConfig.model_validate(TrainingConfig(budget=budget).model_dump())


@pytest.mark.parametrize(
    ("budget", "text"),
    [
        (Budget("seconds", 600), "10m"), (Budget("seconds", 90), "1m30s"), (Budget("seconds", 2.5), "2.5s"),
        (Budget("tokens", 5e6), "5M tokens"), (Budget("tokens", 1234567), "1234567 tokens"),
        (Budget("epochs", 3.0), "3 epochs"), (Budget("epochs", 0.25), "0.25 epochs"),
    ],
)  # fmt: skip
def test_budgets_are_written_short(budget: Budget, text: str) -> None:
    assert str(budget) == text


def test_progress_is_the_share_used() -> None:
    used = {"seconds": 30.0, "steps": 5, "tokens": 1500, "epoch_tokens": 1000}
    for budget, share in (("1m", 0.5), ("20 steps", 0.25), ("1k tokens", 1.5), ("3 epochs", 0.5)):
        assert parse_budget(budget).progress(**used) == pytest.approx(share)  # type: ignore[arg-type]
