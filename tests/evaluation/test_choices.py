"""Multiple choice: options as rows give them, the softmax of each row by hand, simple rules."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from encodery.batch import Batch, Output, layout_of
from encodery.data.choices import ChoiceField, ChoiceGatherer, Choices, read_options, right_choice
from encodery.data.fields import BadField
from encodery.data.rows import Row
from encodery.data.tokenizers import Encoded
from encodery.errors import DataError
from encodery.evaluation.choices import each_right, majority_place, score_choices, shares, word_overlap
from encodery.objectives.choices import Choices as ChoicesObjective
from encodery.objectives.choices import ChoicesConfig, log_sum_by_row

OPTIONS = ("a fox", "a hen", "7")


@pytest.mark.parametrize("value", [list(OPTIONS), json.dumps(OPTIONS), {"text": list(OPTIONS)}, ["a fox", "a hen", 7]])
def test_every_form_of_options(value: object) -> None:
    assert read_options(value) == OPTIONS


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "is not"),
        ("a fox", "is not"),
        (["a fox"], "1 options: give from 2 to 26"),
        (["a fox", " "], "option 1 is ' ': write a text for each"),
        (["a fox", None], "option 1"),
        (["x"] * 27, "27 options"),
    ],
)
def test_options_that_cannot_be_read(value: object, said: str) -> None:
    with pytest.raises(BadField) as caught:
        read_options(value)
    assert said in caught.value.detail


@pytest.mark.parametrize(
    ("label", "right"), [(1, 1), (1.0, 1), ("1", 1), ("B", 1), ("b", 1), ("a hen", 1), ("7", 2), (" a fox ", 0)]
)
def test_the_right_option(label: object, right: int) -> None:
    assert right_choice(label, OPTIONS) == right


def test_names_of_options_come_before_numbers() -> None:
    assert right_choice("1", OPTIONS, ["1", "2", "3"]) == 0
    given = {"c": {"text": list(OPTIONS), "label": ["x", "y", "z"]}, "l": "y"}
    assert ChoiceField("c", "l").read(given, "") == Choices(OPTIONS, 1)
    assert ChoiceField("c", None).read(given, "") == Choices(OPTIONS)


@pytest.mark.parametrize("label", [3, -1, "D", "a wolf", None, True, 1.5, float("nan"), "", "10"])
def test_a_label_that_names_no_option(label: object) -> None:
    with pytest.raises(BadField) as caught:
        right_choice(label, OPTIONS)
    assert caught.value.kind == "the label names none of the options"
    if isinstance(label, str) and label:
        assert "0 to 2, A to C, or the text of one" in caught.value.detail


def test_two_options_of_one_text_need_a_number() -> None:
    with pytest.raises(BadField):
        right_choice("x", ["x", "x"])
    assert right_choice(1, ["x", "x"]) == 1


def test_the_gatherer() -> None:
    two = Encoded(np.zeros(2, np.uint32), np.ones(2, bool), np.zeros((2, 2), np.int32))
    rows = [Row("t", None, None, "x:1", beside={"choices": Choices(OPTIONS, 2)})]
    rows.append(Row("t", None, None, "x:2", beside={"choices": Choices(("p", "q"))}))
    gatherer = ChoiceGatherer()
    assert gatherer.arrays(rows, [[two], [two]])["right"].tolist() == [3, 3, 0, 0]
    assert gatherer.texts(rows) == [list(OPTIONS), ["p", "q"]]
    assert gatherer.facts() == {"rows with 2 options": 1, "rows with 3 options": 1, "right is option 3": 1}


def batch_of(rows: list[tuple[int, int, int]]) -> Batch:
    """(uid, options, the right one from 1) of each row, two positions an option."""
    documents = sum(options for _, options, _ in rows)
    layout = layout_of([[2] * documents], 32)
    right = torch.zeros(32, dtype=torch.int64)
    uids = [uid for uid, options, _ in rows for _ in range(options)]
    parts = [part for _, options, _ in rows for part in range(options)]
    for document, number in enumerate(number for _, options, number in rows for _ in range(options)):
        right[2 * document + 1] = number
    return Batch({"right": right}, layout, {}, np.array(uids), np.array(parts))


def test_the_loss_by_hand() -> None:
    objective = ChoicesObjective(ChoicesConfig())
    batch = objective.prepare(batch_of([(9, 3, 2), (4, 2, 1), (7, 4, 0)]), np.random.default_rng(0), 0.0)
    scores = torch.tensor([0.0, 2.0, 1.0, 5.0, 6.0, 1.0, 1.0, 1.0, 1.0], requires_grad=True)
    loss = objective.loss(Output(scores[:, None]), batch)
    wanted = -torch.log_softmax(scores[:3], 0)[1] - torch.log_softmax(scores[3:5], 0)[0]
    torch.testing.assert_close(loss.total, wanted)
    assert float(loss.count) == 2
    assert loss.correct is not None
    assert int(loss.correct) == 1
    loss.total.backward()
    assert scores.grad is not None
    assert scores.grad[5:].abs().sum() == 0, "a row whose answer is not known teaches nothing"
    assert (scores.grad[:5] != 0).all()
    assert objective.readout().outputs == 1


def test_log_sum_by_row_is_exact_far_out() -> None:
    total, largest = log_sum_by_row(torch.tensor([900.0, 901.0, -900.0]), torch.tensor([0, 0, 1]))
    torch.testing.assert_close(total, torch.tensor([901.3132617, -900.0]))
    assert largest.tolist() == [901.0, -900.0]


def test_scores_of_rows_with_different_numbers_of_options() -> None:
    scores = [np.array([1.0, 3.0]), np.array([2.0, 2.0, 0.0]), np.array([0.0, 1.0, 2.0, 5.0])]
    assert each_right(scores, [1, 0, 0]).tolist() == [1.0, 0.5, 0.0]
    found = score_choices(scores, [1, 0, 0], rng=np.random.default_rng(0), resamples=200)
    assert found["choice_accuracy"].value == pytest.approx(0.5)
    assert "0.361" in found["choice_accuracy"].note
    wanted = -np.mean([np.log(shares(one)[number]) for one, number in zip(scores, [1, 0, 0])])
    assert found["log_loss"].value == pytest.approx(wanted)
    with pytest.raises(DataError, match="no rows"):
        score_choices([], [], rng=np.random.default_rng(0))
    with pytest.raises(DataError, match="scores of 0 rows"):
        score_choices([], [1], rng=np.random.default_rng(0))


def test_simple_rules() -> None:
    found = majority_place([2, 2, 2, 1, 1, 0], [3, 2])
    assert [int(one.argmax()) for one in found.scores] == [2, 1]
    assert "option 3" in found.note
    texts = ["the cat sat on the mat", "snow fell on the hills"]
    options = [["dogs bark", "a cat on a mat"], ["snow on hills", "hot sand", "mat"]]
    found = word_overlap(texts, options, texts, options)
    assert each_right(found.scores, [1, 0]).tolist() == [1.0, 1.0]
    assert word_overlap(texts, options, [], []).scores == []
