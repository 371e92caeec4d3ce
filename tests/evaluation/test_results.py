"""What is said of a run by its curves."""

from __future__ import annotations

from typing import Any

from encodery.evaluation.results import diagnoses


def curves(losses: list[float], validation: list[float] = []) -> list[dict[str, Any]]:
    rows = [{"step": 10 * number, "loss": loss} for number, loss in enumerate(losses, 1)]
    return rows + [{"step": 10 * number, "validation_loss": loss} for number, loss in enumerate(validation, 1)]


FALLING = [3 - 0.1 * number for number in range(25)]


def test_a_run_that_learned_is_not_blamed() -> None:
    assert diagnoses(curves(FALLING, [2.0, 1.5, 1.0]), None) == []
    assert diagnoses([], None) == []


def test_too_few_steps_are_said() -> None:
    """As in a time budget on a busy machine."""
    (found,) = diagnoses(curves([0.7, 0.6]), None)
    assert found.startswith("Only 20 steps") and "training.budget" in found


def test_a_rising_loss_is_said() -> None:
    (found,) = diagnoses(curves(FALLING[::-1]), None)
    assert "lower training.optim.lr" in found


def test_overfitting_is_said() -> None:
    (found,) = diagnoses(curves(FALLING, [1.0, 0.8, 1.0]), None)
    assert "overfitting" in found


def test_a_loss_at_the_entropy_of_the_tokens_is_said() -> None:
    (found,) = diagnoses(curves(FALLING, [5.0, 4.9]), 5.0)
    assert "entropy" in found
