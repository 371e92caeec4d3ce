"""Labels with an order: thresholds that keep it, log-probabilities that add up, losses by hand, known metrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from encodery.batch import Batch, Output, States, layout_of
from encodery.errors import DataError
from encodery.evaluation.ranks import each_rank_error, likeliest_rank, score_ranks
from encodery.heads.options import OrdinalReadoutConfig
from encodery.heads.ordinal import (
    OrdinalReadout,
    above_log_probabilities,
    class_log_probabilities,
)
from encodery.objectives.ordinal import Ordinal, OrdinalConfig, coral_loss, ordered_labels


def readout_of(classes: int, width: int = 6, *, hidden: bool = False) -> OrdinalReadout:
    readout = OrdinalReadout(OrdinalReadoutConfig(outputs=classes, hidden=hidden, drop_rate=0.0), width)
    readout.initialise(torch.Generator().manual_seed(0))
    return readout


@pytest.mark.parametrize("classes", [2, 3, 5, 11])
def test_thresholds_begin_where_all_classes_are_equally_likely(classes: int) -> None:
    edges = readout_of(classes).thresholds()
    assert (edges.diff() > 0).all()
    torch.testing.assert_close(class_log_probabilities(-edges[None]).exp(), torch.full((1, classes), 1 / classes))


def test_thresholds_cannot_lose_their_order() -> None:
    readout = readout_of(6)
    with torch.no_grad():
        readout.steps.copy_(torch.tensor([-30.0, 5.0, -3.0, 0.0]))
    assert (readout.thresholds().diff() >= 0).all()


@settings(deadline=None)
@given(st.lists(st.floats(-80, 80), min_size=1, max_size=6, unique=True))
def test_log_probabilities_add_up_however_far_out(edges: list[float]) -> None:
    above = torch.tensor([sorted(edges, reverse=True)], dtype=torch.float64)
    found = class_log_probabilities(above)
    assert torch.isfinite(found).all()
    assert float(found.exp().sum()) == pytest.approx(1.0, abs=1e-5)
    up, down = above_log_probabilities(found)
    torch.testing.assert_close(up.exp(), torch.sigmoid(above), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(down.exp(), torch.sigmoid(-above), atol=1e-5, rtol=1e-4)


def test_the_losses_by_hand() -> None:
    above = torch.tensor([[2.0, 0.5, -1.0], [0.1, -0.2, -3.0]])
    logits, label = class_log_probabilities(above), torch.tensor([1, 3])
    shares = torch.sigmoid(above)
    wanted = -torch.log(shares[0, 0] - shares[0, 1]) - torch.log(shares[1, 2])
    layout = layout_of([[2, 3]], 8)
    batch = Batch({}, layout, {"label": label})
    objective = Ordinal(OrdinalConfig(), labels=["a", "b", "c", "d"])
    loss = objective.loss(Output(logits), batch)
    torch.testing.assert_close(loss.total, wanted)
    assert float(loss.count) == 2
    is_above = torch.tensor([[1.0, 0, 0], [1, 1, 1]])
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(above, is_above, reduction="none").sum(1)
    torch.testing.assert_close(coral_loss(logits, label), wanted)
    coral = Ordinal(OrdinalConfig(loss="coral"), labels=["a", "b", "c", "d"]).loss(Output(logits), batch)
    torch.testing.assert_close(coral.total, wanted.sum())


@pytest.mark.parametrize("loss", ["likelihood", "coral"])
@pytest.mark.parametrize("hidden", [False, True])
def test_it_learns_an_order(loss: str, hidden: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(200, 6, generator=generator)
    label = torch.bucketize(x[:, 0] - x[:, 1], torch.tensor([-1.2, 0.0, 1.2]))
    layout = layout_of([[1] * 200], 256)
    batch = Batch({}, layout, {"label": label})
    objective = Ordinal(OrdinalConfig(loss=loss, drop_rate=0.0), labels=["1", "2", "3", "4"])  # type: ignore[arg-type]
    readout = OrdinalReadout(objective.readout().model_copy(update={"hidden": hidden}), 6)
    readout.initialise(generator)
    vectors = torch.zeros(256, 6)
    vectors[:200] = x
    optimizer = torch.optim.Adam(readout.parameters(), lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        output = readout(States(vectors, layout), batch)
        objective.loss(output, batch).total.backward()
        if optimizer.state == {}:
            gradients = {name: parameter.grad for name, parameter in readout.named_parameters()}
            assert all(grad is not None and grad.abs().sum() > 0 for grad in gradients.values()), gradients
        optimizer.step()
    output = readout(States(vectors, layout), batch)
    assert output.logits is not None
    assert float((output.logits.argmax(1) == label).float().mean()) > 0.8


def test_ordered_labels() -> None:
    assert ordered_labels(["10", "2", "-1", "2.5"], ()) == ["-1", "2", "2.5", "10"]
    assert ordered_labels(["good", "bad"], ("bad", "fair", "good")) == ["bad", "fair", "good"]
    with pytest.raises(DataError, match=r"'goood' is not in objective.order, did you mean 'good'"):
        ordered_labels(["goood"], ("bad", "good"))
    with pytest.raises(DataError, match=r"objective.order: \[bad, good\]"):
        ordered_labels(["good", "bad"], ())
    with pytest.raises(DataError, match="'nan' is no number"):
        ordered_labels(["1", "nan"], ())
    with pytest.raises(DataError, match="only one label"):
        ordered_labels(["1"], ())


@pytest.mark.parametrize("order", [("a",), ("a", "b", "a")])
def test_an_order_that_is_none(order: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError, match="at least two labels, each once"):
        OrdinalConfig(order=order)


def test_metrics_are_those_of_scikit_learn() -> None:
    from scipy.stats import spearmanr
    from sklearn.metrics import accuracy_score, cohen_kappa_score, log_loss

    rng = np.random.default_rng(3)
    truth = rng.integers(0, 5, 300)
    logits = rng.normal(size=(300, 5)) - 0.7 * np.abs(np.arange(5) - truth[:, None])
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found = score_ranks(shares, truth, rng=rng, resamples=200)
    given_ranks = likeliest_rank(shares)
    values = {name: metric.value for name, metric in found.items()}
    assert values["quadratic_kappa"] == pytest.approx(cohen_kappa_score(truth, given_ranks, weights="quadratic"))
    assert values["accuracy"] == pytest.approx(accuracy_score(truth, given_ranks))
    assert values["rank_mae"] == pytest.approx(np.abs(truth - given_ranks).mean())
    assert values["rank_mae"] == pytest.approx(each_rank_error(shares, truth).mean())
    assert values["within_one"] == pytest.approx((np.abs(truth - given_ranks) < 2).mean())
    assert values["spearman"] == pytest.approx(np.asarray(spearmanr(shares @ np.arange(5), truth))[0])
    assert values["log_loss"] == pytest.approx(log_loss(truth, shares))
    for metric in found.values():
        assert metric.low is not None
        assert metric.low <= metric.value <= metric.high  # type: ignore[operator]


def test_the_median_is_answered() -> None:
    shares = np.array([[0.4, 0.2, 0.4], [0.5, 0.3, 0.2], [0.0, 0.0, 1.0], [0.1, 0.39, 0.51]])
    assert likeliest_rank(shares).tolist() == [1, 0, 2, 2]


def test_kappa_of_one_label_is_not_defined() -> None:
    found = score_ranks(np.tile([0.9, 0.1], (4, 1)), np.zeros(4, int), rng=np.random.default_rng(0), resamples=100)
    assert found["quadratic_kappa"].value is None
    assert found["quadratic_kappa"].note == "only one label"
    assert found["accuracy"].value == 1
