"""The loop: sums of gradients, steps that are not finite, validation, patience, budgets."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from conftest import make_fit, make_rows
from encodery.batch import Batch, Output
from encodery.data.loader import Place
from encodery.data.tokenizers import Tokenizer
from encodery.errors import DataError, TrainingError
from encodery.objectives.masked import Loss
from encodery.training.loop import MOST_SKIPPED, Fit


def gradients_of(fit: Fit, batches: list[Batch]) -> dict[str, torch.Tensor]:
    """What reaches the optimizer in one step over these batches."""
    seen: dict[str, torch.Tensor] = {}

    def look(progress: float, *, scale: float) -> tuple[float, float]:
        del progress
        for name, parameter in fit.model.named_parameters():
            if parameter.grad is not None:
                seen[name] = parameter.grad.clone() * scale
        return 0.0, 1.0

    fit.optimizers.step = look  # type: ignore[method-assign]
    fit._step([(batch, Place()) for batch in batches])
    return seen


@pytest.mark.parametrize("kind", ["masked", "classify"])
def test_four_batches_of_eight_weigh_like_one_of_thirty_two(
    kind: str, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 13: gradients are weighted by what the loss counts, not by batches; here batches hold very unlike numbers."""
    from encodery.batch import layout_of

    # Rows of one length, however empty, so that the batches can be laid below each other.
    monkeypatch.setattr("encodery.data.packing.ROW_WASTE", 1.0)

    def parts() -> list[Batch]:
        fit = make_fit(tokenizer, objective={"kind": kind}, rows=make_rows(27, seed=5))
        return [batch for batch, _ in fit.loader.epoch(Place())]

    apart = parts()
    counts = [
        int((batch.truth["target"] >= 0).sum()) if kind == "masked" else batch.layout.documents for batch in apart
    ]
    assert len(apart) >= 3 and max(counts) > 1.2 * min(counts)
    # The same rows as one batch: lay all batches one below the other.
    sizes: list[list[int]] = []
    for batch in apart:
        rows: list[list[int]] = [[] for _ in range(batch.layout.rows)]
        for start, size in zip(batch.layout.starts.tolist(), batch.layout.lengths.tolist()):
            rows[start // batch.layout.length].append(size)
        sizes += rows
    assert len({batch.layout.length for batch in apart}) == 1
    values = {name: torch.cat([batch.values[name] for batch in apart]) for name in apart[0].values}
    truth = {name: torch.cat([batch.truth[name] for batch in apart]) for name in apart[0].truth}
    if kind == "masked":
        truth["at"] = torch.cat([batch.truth["at"] + 256 * number for number, batch in enumerate(apart)])
    whole = Batch(values, layout_of(sizes, apart[0].layout.length), truth)
    one = gradients_of(
        make_fit(tokenizer, objective={"kind": kind, "drop_rate": 0.0} if kind != "masked" else {}), [whole]
    )
    many = gradients_of(
        make_fit(tokenizer, objective={"kind": kind, "drop_rate": 0.0} if kind != "masked" else {}), apart
    )
    assert one.keys() == many.keys() and len(one) > 10
    for name in one:
        torch.testing.assert_close(many[name], one[name], atol=1e-6, rtol=1e-4)


def test_a_model_can_learn_one_batch_by_heart(tokenizer: Tokenizer) -> None:
    """Row 11: if this fails, something between loss and weights is broken."""
    fit = make_fit(tokenizer, rows=make_rows(6, seed=1), training={"budget": "120 steps", "optim": {"lr": 0.02}})
    (batch,) = [batch for batch, _ in fit.loader.epoch(Place())]
    fit._feed = lambda: iter([(batch, Place())] * 200)  # type: ignore[method-assign,assignment,return-value]
    losses: list[float] = []
    fit.on_step = lambda row: losses.append(row["loss"])
    assert fit.advance()
    assert losses[0] > 3.0 and losses[-1] < 0.1


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_labels_are_learned(kind: str, precision: torch.dtype, tokenizer: Tokenizer) -> None:
    fit = make_fit(
        tokenizer,
        objective={"kind": "classify"},
        training={"budget": "60 steps", "optim": {"kind": kind, "lr": 0.01}},
        validate=True,
    )
    fit.precision = replace(fit.precision, dtype=precision)
    accuracy: list[float] = []
    fit.on_step = lambda row: accuracy.append(row["accuracy"])
    assert fit.advance()
    assert np.mean(accuracy[-10:]) > 0.95


class Broken:
    """An objective whose loss goes wrong at chosen steps."""

    def __init__(self, inner: Any, how: str, when: Any) -> None:
        self.inner, self.how, self.when, self.calls = inner, how, when, 0

    def prepare(self, batch: Batch, rng: np.random.Generator, progress: float) -> Batch:
        return self.inner.prepare(batch, rng, progress)

    def loss(self, output: Output, batch: Batch) -> Loss:
        loss = self.inner.loss(output, batch)
        self.calls += 1
        if self.when(self.calls):
            # A factor spoils loss and gradient, an addend the loss alone.
            wrong = loss.total * math.nan if self.how == "factor" else loss.total + math.inf
            return replace(loss, total=wrong)
        return loss


@pytest.mark.parametrize("how", ["factor", "addend"])
def test_a_step_that_is_not_finite_changes_nothing(how: str, tokenizer: Tokenizer) -> None:
    fit = make_fit(tokenizer, training={"budget": "6 steps", "average": 0.9, "optim": {"kind": "muon"}})
    fit.objective = Broken(fit.objective, how, lambda call: call == 4)
    seen: list[list[torch.Tensor]] = []

    def look(row: dict[str, Any]) -> None:
        del row
        assert fit.averaged is not None
        state = [t for part in fit.optimizers.parts for s in part.state.values() for t in s.values()]
        everything = [*fit.model.state_dict().values(), *fit.averaged.weights.values(), *state]
        seen.append([torch.as_tensor(t).detach().clone() for t in everything])

    fit.on_step = look
    assert fit.advance()
    assert fit.state.step == 6 and fit.state.skipped == 0
    for number in range(1, 6):
        equal = all(torch.equal(a, b) for a, b in zip(seen[number - 1], seen[number]))
        assert equal == (number == 3)


def test_a_run_that_stays_broken_ends_and_says_what_to_do(tokenizer: Tokenizer) -> None:
    """Row 11: a run that diverges says so."""
    fit = make_fit(tokenizer, training={"budget": "100 steps"})
    fit.objective = Broken(fit.objective, "factor", lambda call: call > 5)
    with pytest.raises(TrainingError, match="diverged") as caught:
        fit.advance()
    assert "training.optim.lr" in str(caught.value) and "checkpoint" in str(caught.value)
    assert fit.state.step == 5 + MOST_SKIPPED
    assert all(torch.isfinite(parameter).all() for parameter in fit.model.parameters())


def scripted(fit: Fit, scores: list[float]) -> list[dict[str, Any]]:
    """Validation gives these scores; returns the rows that the journal would get."""
    given = iter(scores)
    rows: list[dict[str, Any]] = []
    fit.validate = lambda model: {"score": next(given)}
    fit.on_score = rows.append
    return rows


def test_the_best_weights_are_kept_and_ties_go_to_the_first(tokenizer: Tokenizer) -> None:
    fit = make_fit(tokenizer, training={"budget": "10 steps", "validations": 5})
    rows = scripted(fit, [0.1, 0.5, 0.5, math.nan, 0.2])
    kept: dict[int, dict[str, torch.Tensor]] = {}
    fit.on_step = lambda row: kept.update(
        {row["step"]: {name: p.detach().clone() for name, p in fit.model.named_parameters()}}
    )
    assert fit.advance()
    assert [row["step"] for row in rows] == [2, 4, 6, 8, 10]
    assert fit.state.kept_step == 4 and fit.state.best_score == 0.5
    final = fit.final_weights()
    assert all(torch.equal(final[name], value) for name, value in kept[4].items())
    assert not torch.equal(final["frontend.words.weight"], kept[10]["frontend.words.weight"])


@pytest.mark.parametrize(("mean", "kept"), [(0.4, False), (0.6, True)])
def test_the_mean_of_the_last_weights_is_kept_only_when_it_is_better(
    tokenizer: Tokenizer, mean: float, kept: bool
) -> None:
    fit = make_fit(tokenizer, training={"budget": "4 steps", "validations": 2, "average_last": 2})
    rows = scripted(fit, [0.1, 0.5, mean])
    assert fit.advance()
    assert [(row["step"], row.get("mean_of"), row["kept"]) for row in rows] == [
        (2, None, True), (4, None, True), (4, 2, kept),
    ]  # fmt: skip
    assert fit.state.best_score == max(0.5, mean)


def test_a_first_score_that_is_not_a_number_is_beaten_by_any(tokenizer: Tokenizer) -> None:
    fit = make_fit(tokenizer, training={"budget": "6 steps", "validations": 3})
    scripted(fit, [math.nan, -5.0, -6.0])
    assert fit.advance()
    assert fit.state.kept_step == 4 and fit.state.best_score == -5.0


def test_training_stops_when_patience_ends(tokenizer: Tokenizer) -> None:
    fit = make_fit(tokenizer, training={"budget": "20 steps", "validations": 10, "patience": 3})
    rows = scripted(fit, [0.1, 0.5, 0.4, 0.3, 0.2, 0.9])
    assert fit.advance()
    assert fit.state.step == 10 and len(rows) == 5 and fit.state.kept_step == 4


def test_averaged_weights_are_scored_and_kept_and_training_goes_on_with_its_own(tokenizer: Tokenizer) -> None:
    fit = make_fit(tokenizer, training={"budget": "8 steps", "validations": 2, "average": 0.99})
    seen: list[torch.Tensor] = []

    def look(model: Any) -> dict[str, float]:
        seen.append(model.frontend.words.weight.detach().clone())
        return {"score": float(len(seen))}

    own: list[torch.Tensor] = []
    fit.validate = look
    fit.on_step = lambda row: own.append(fit.model.frontend.words.weight.detach().clone())
    assert fit.advance()
    assert fit.averaged is not None
    assert torch.equal(fit.final_weights()["frontend.words.weight"], seen[1])
    assert torch.equal(fit.averaged.weights["frontend.words.weight"], seen[1])
    assert torch.equal(fit.model.frontend.words.weight, own[-1]) and not torch.equal(own[-1], seen[1])


@pytest.mark.parametrize("count", [0, 1, 3, 7, 50])
def test_validation_happens_as_often_as_asked_and_once_at_the_end(count: int, tokenizer: Tokenizer) -> None:
    fit = make_fit(tokenizer, training={"budget": "21 steps", "validations": count})
    rows = scripted(fit, [float(number) for number in range(60)])
    assert fit.advance()
    assert len(rows) == {0: 1, 1: 1, 3: 3, 7: 7, 50: 21}[count] and rows[-1]["step"] == 21


@pytest.mark.parametrize("budget", ["13 steps", "3k tokens", "2 epochs", "0.5 epochs"])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_budget_is_used_up_and_hardly_more(budget: str, accumulate: int, tokenizer: Tokenizer) -> None:
    fit = make_fit(tokenizer, training={"budget": budget, "accumulate": accumulate})
    assert fit.advance()
    state, wanted = fit.state, fit.config.budget
    if wanted.kind == "steps":
        assert state.step == 13 and state.positions == 13 * 256 * accumulate
    else:
        tokens = wanted.amount * (fit.epoch_tokens if wanted.kind == "epochs" else 1)
        assert tokens <= state.tokens < tokens + 256 * accumulate
    if budget == "2 epochs" and accumulate == 1:
        assert state.tokens == tokens  # every row exactly twice, to the token
        assert (state.place.epoch, state.place.window) == (1, 1)


@pytest.mark.parametrize("validation", [0.0, 0.4])
def test_a_time_budget_ends_in_time_with_validation_inside(validation: float, tokenizer: Tokenizer) -> None:
    fit = make_fit(tokenizer, training={"budget": "2s", "validations": 2})

    def slow(model: Any) -> dict[str, float]:
        time.sleep(validation)
        return {"score": 0.0}

    fit.validate = slow if validation else None
    begin = time.perf_counter()
    assert fit.advance()
    assert 1.6 < time.perf_counter() - begin < 2.3
    # The schedule was stretched over the whole of it.
    assert fit.optimizers.parts[0].param_groups[0]["lr"] < 0.15 * fit.config.optim.lr


def test_no_rows_is_one_clear_message(tokenizer: Tokenizer) -> None:
    fit = make_fit(tokenizer, rows=[])
    with pytest.raises(DataError, match="no rows"):
        fit.advance()


def test_a_corpus_of_one_document_trains(tokenizer: Tokenizer) -> None:
    fit = make_fit(tokenizer, rows=make_rows(1), training={"budget": "4 epochs"})
    assert fit.advance() and fit.state.step == 4


def test_the_journal_row_says_what_happened(tokenizer: Tokenizer) -> None:
    fit = make_fit(tokenizer, training={"budget": "4 steps", "optim": {"schedule": "linear", "warmup": 0.5}})
    rows: list[dict[str, Any]] = []
    fit.on_step = rows.append
    fit.advance()
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert all(row["loss"] > 0 and row["gradient_norm"] > 0 and 0 <= row["accuracy"] <= 1 for row in rows)
    assert rows[-1]["tokens"] == fit.state.tokens <= fit.state.positions
    assert 0 < fit.state.waited < fit.state.seconds


def test_the_mask_share_follows_the_schedule_through_the_run(tokenizer: Tokenizer) -> None:
    fit = make_fit(tokenizer, objective={"share": 0.6, "final_share": 0.1}, training={"budget": "10 steps"})
    real, shares = fit.objective.loss, []

    def loss(output: Output, batch: Batch) -> Loss:
        found = real(output, batch)
        shares.append(float(found.count) / batch.layout.real_tokens)
        return found

    fit.objective.loss = loss  # type: ignore[method-assign]
    assert fit.advance()
    assert shares[0] > 0.45 and shares[-1] < 0.2
    assert all(a > b for a, b in zip(shares[::3], shares[3::3]))
