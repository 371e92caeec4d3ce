"""Losses on vectors of texts, by hand: candidates, copies, hard negatives, grades, prefixes, late interaction."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from conftest import batch_of
from encodery.batch import Batch, Output
from encodery.objectives.contrastive import Contrastive, cosent
from encodery.objectives.contrastive_options import ContrastConfig, EmbedConfig

Text = tuple[int, int, list[int]]


def batch_with(texts: list[Text], objective: Contrastive, labels: dict[int, float] | None = None) -> Batch:
    """Texts as (row, part, ids)."""
    batch = batch_of([[np.array(ids) for _, _, ids in texts]], 64)
    uids = np.array([row for row, _, _ in texts])
    truth = {} if labels is None else {"label": torch.tensor([labels[uid] for uid in uids.tolist()])}
    batch = Batch(batch.values, batch.layout, truth, uids, np.array([part for _, part, _ in texts]))
    return objective.prepare(batch, np.random.default_rng(0), 0.0)


def vectors(number: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(number, 6, generator=torch.Generator().manual_seed(seed))


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(F.cosine_similarity(a, b, dim=0))


def log_share(right: float, wrong: list[float], temperature: float) -> float:
    return right / temperature - math.log(sum(math.exp(x / temperature) for x in [right, *wrong]))


# rows 7, 3, 5; the second text of 3 reads like that of 7; 5 has a hard negative; their order is mixed
TEXTS: list[Text] = [
    (7, 0, [1, 2]), (3, 1, [9, 9]), (7, 1, [9, 9]), (3, 0, [3]), (5, 2, [6, 6]), (5, 0, [4, 4]), (5, 1, [5]),
]  # fmt: skip


def test_infonce_by_hand() -> None:
    objective = Contrastive(EmbedConfig(temperature=0.3))
    batch, x = batch_with(TEXTS, objective), vectors(7)
    loss = objective.loss(Output(vectors=x), batch)
    first, second = {7: 0, 3: 3, 5: 5}, {7: 2, 3: 1, 5: 6}
    # What each first text is compared with, beside its own second text. 7 and 3 have the same second text.
    wrong = {7: [6, 4], 3: [6, 4], 5: [2, 1, 4]}
    expected, right = 0.0, 0
    for row in (7, 3, 5):
        own = cosine(x[first[row]], x[second[row]])
        others = [cosine(x[first[row]], x[place]) for place in wrong[row]]
        expected -= log_share(own, others, 0.3)
        right += own > max(others)
    assert float(loss.total) == pytest.approx(expected, rel=1e-5)
    assert float(loss.count) == 3 and int(loss.correct) == right  # type: ignore[arg-type]


def test_symmetric_asks_second_texts_as_well() -> None:
    objective = Contrastive(EmbedConfig(temperature=0.3, symmetric=True))
    batch, x = batch_with(TEXTS, objective), vectors(7)
    plain = Contrastive(EmbedConfig(temperature=0.3)).loss(Output(vectors=x), batch)
    back = -log_share(cosine(x[2], x[0]), [cosine(x[2], x[5])], 0.3)  # 7 and 3: the same text, so no wrong answer
    back -= log_share(cosine(x[1], x[3]), [cosine(x[1], x[5])], 0.3)
    back -= log_share(cosine(x[6], x[5]), [cosine(x[6], x[0]), cosine(x[6], x[3])], 0.3)
    both = objective.loss(Output(vectors=x), batch)
    assert float(both.total) == pytest.approx((float(plain.total) + back) / 2, rel=1e-5)


def test_a_hard_negative_that_is_the_answer_or_the_question_does_not_count() -> None:
    objective = Contrastive(EmbedConfig())
    texts: list[Text] = [(0, 0, [1]), (0, 1, [2]), (0, 2, [2]), (0, 3, [1])]
    loss = objective.loss(Output(vectors=vectors(4)), batch_with(texts, objective))
    assert float(loss.total) == pytest.approx(0.0, abs=1e-6)


def test_answers_to_a_copy_of_the_question_are_no_wrong_answers() -> None:
    objective = Contrastive(EmbedConfig(temperature=0.3))
    texts: list[Text] = [(0, 0, [1]), (0, 1, [2]), (1, 0, [1]), (1, 1, [3]), (2, 0, [4]), (2, 1, [5])]
    x = vectors(6)
    expected = -log_share(cosine(x[0], x[1]), [cosine(x[0], x[5])], 0.3)
    expected -= log_share(cosine(x[2], x[3]), [cosine(x[2], x[5])], 0.3)
    expected -= log_share(cosine(x[4], x[5]), [cosine(x[4], x[1]), cosine(x[4], x[3])], 0.3)
    found = objective.loss(Output(vectors=x), batch_with(texts, objective))
    assert float(found.total) == pytest.approx(expected, rel=1e-5)


def test_several_batches_are_one_and_a_row_may_come_twice() -> None:
    objective = Contrastive(EmbedConfig())
    x = vectors(14)
    apart = [batch_with(TEXTS, objective), batch_with(TEXTS, objective)]
    other: list[Text] = [(row + 100, part, ids) for row, part, ids in TEXTS]
    whole = batch_with([*TEXTS, *other], objective)
    joint = objective.joint_loss([Output(vectors=x[:7]), Output(vectors=x[7:])], apart)
    torch.testing.assert_close(joint.total, objective.loss(Output(vectors=x), whole).total)
    assert float(joint.count) == 6


def test_a_learned_temperature_takes_the_place_of_the_fixed_one() -> None:
    objective = Contrastive(EmbedConfig(temperature=0.01, learn_temperature=True))
    batch, x, scale = batch_with(TEXTS, objective), vectors(7), torch.tensor(1 / 0.3, requires_grad=True)
    found = objective.loss(Output(vectors=x, scale=scale), batch).total
    torch.testing.assert_close(found, Contrastive(EmbedConfig(temperature=0.3)).loss(Output(vectors=x), batch).total)
    found.backward()
    assert scale.grad is not None and float(scale.grad) != 0


PAIRS: list[Text] = [(row, part, [10 * row + part]) for row in range(4) for part in (0, 1)]
GRADES = {0: 5.0, 1: 0.0, 2: 2.5, 3: 2.5}


@pytest.mark.parametrize("loss", ["cosine", "cosent", "pearson"])
def test_grades(loss: Any) -> None:
    objective = Contrastive(EmbedConfig(loss=loss, temperature=0.2), low=0.0, high=5.0)
    batch, x = batch_with(PAIRS, objective, GRADES), vectors(8, seed=3)
    found = objective.loss(Output(vectors=x), batch)
    close = [cosine(x[2 * row], x[2 * row + 1]) for row in range(4)]
    wanted = [GRADES[row] / 5 for row in range(4)]
    if loss == "cosine":
        expected = sum((s - y) ** 2 for s, y in zip(close, wanted))
    elif loss == "pearson":
        expected = 4 * (1 - np.corrcoef(close, wanted)[0, 1])
    else:
        wrong = [math.exp((close[i] - close[j]) / 0.2) for i in range(4) for j in range(4) if wanted[i] < wanted[j]]
        expected = 4 * math.log(1 + sum(wrong))
    assert float(found.total) == pytest.approx(expected, rel=1e-5)
    assert float(found.count) == 4


def test_grades_that_do_not_vary_give_no_gradient_that_is_not_a_number() -> None:
    for loss in ("cosent", "pearson"):
        objective = Contrastive(EmbedConfig(loss=loss), low=0.0, high=5.0)  # type: ignore[arg-type]
        x = vectors(8).requires_grad_()
        found = objective.loss(Output(vectors=x), batch_with(PAIRS, objective, dict.fromkeys(range(4), 3.0)))
        found.total.backward()
        assert x.grad is None or bool(torch.isfinite(x.grad).all())


def test_cosent_is_zero_only_when_the_order_is_right() -> None:
    right, wanted = torch.tensor([-60.0, 0.0, 60.0]), torch.tensor([0.0, 0.5, 1.0])
    assert float(cosent(right, wanted)) < 1e-6 < 100 < float(cosent(-right, wanted))


def test_matryoshka_is_the_mean_over_prefixes() -> None:
    x = vectors(7)
    plain = Contrastive(EmbedConfig())
    batch = batch_with(TEXTS, plain)
    parts = [plain.loss(Output(vectors=x[:, :width]), batch).total for width in (6, 2, 4)]
    found = Contrastive(EmbedConfig(dimensions=(2, 4))).loss(Output(vectors=x), batch)
    torch.testing.assert_close(found.total, torch.stack(parts).mean())


def test_simcse_finds_each_window_again_and_other_windows_of_a_text_are_no_wrong_answers() -> None:
    objective = Contrastive(ContrastConfig(temperature=0.3))
    # text 4 in two windows (parts 0, 1 and 2, 3), text 9 in one, and text 11 that reads like 9
    texts: list[Text] = [
        (4, 0, [1]), (4, 1, [1]), (4, 2, [2]), (4, 3, [2]), (9, 0, [3]), (9, 1, [3]), (11, 0, [3]), (11, 1, [3]),
    ]  # fmt: skip
    x = vectors(8, seed=5)
    found = objective.loss(Output(vectors=x), batch_with(texts, objective))
    wrong = {0: [5, 7], 2: [5, 7], 4: [1, 3], 6: [1, 3]}
    expected = sum(
        -log_share(cosine(x[place], x[place + 1]), [cosine(x[place], x[other]) for other in others], 0.3)
        for place, others in wrong.items()
    )
    assert float(found.count) == 4
    assert float(found.total) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("symmetric", [False, True])
def test_late_interaction_with_one_token_a_text_is_the_cosine(symmetric: bool) -> None:
    texts: list[Text] = [(row, part, [10 * row + part]) for row in range(3) for part in (0, 1, 2)]
    plain = Contrastive(EmbedConfig(symmetric=symmetric))
    batch, x = batch_with(texts, plain), F.normalize(vectors(9), dim=-1)
    tokens = torch.full((64, 6), 7.0)
    tokens[:9] = x
    late = Contrastive(EmbedConfig(late=True, symmetric=symmetric))
    torch.testing.assert_close(
        late.loss(Output(tokens=tokens), batch).total, plain.loss(Output(vectors=x), batch).total
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"dimensions": [64], "width": 32}, "dimensions are parts of the vector"),
        ({"dimensions": [8, 8]}, "names one twice"),
        ({"dimensions": [0]}, "dimensions"),
        ({"late": True, "dimensions": [8]}, "late interaction"),
        ({"late": True, "heads": "two"}, "late interaction"),
        ({"late": True, "pooling": "max"}, "late interaction"),
        ({"loss": "cosent", "symmetric": True}, "symmetric is for loss infonce"),
        ({"loss": "pearson", "learn_temperature": True}, "no temperature"),
        ({"temperature": 0}, "temperature"),
        ({"loss": "triplet"}, "loss"),
    ],
)
def test_options_that_contradict_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        EmbedConfig.model_validate(given)
