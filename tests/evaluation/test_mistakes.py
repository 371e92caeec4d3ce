"""Confusions, the table of the labels and the worst rows, by hand."""

import numpy as np
import pytest

from encodery.evaluation.mistakes import (
    confusion_matrix,
    most_wrong,
    most_wrong_numbers,
    per_class_table,
    top_confusions,
)

TRUTH, GUESS = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 0, 1])


def test_confusion_counts_true_lines_and_predicted_columns():
    matrix = confusion_matrix(TRUTH, GUESS, 4)
    assert matrix.tolist() == [[2, 1, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    top = top_confusions(matrix, ["a", "b", "c", "d"])
    assert [(pair["true"], pair["predicted"], pair["count"]) for pair in top] == [
        ("a", "b", 1),
        ("b", "a", 1),
        ("c", "b", 1),
    ]
    assert [pair["share"] for pair in top] == pytest.approx([1 / 3, 1 / 2, 1.0])
    assert matrix[0, 0] == 2  # the matrix handed in is left alone


def test_per_class_figures_and_what_cannot_be_divided():
    table = per_class_table(TRUTH, GUESS, ["a", "b", "c", "d"])
    assert table[0] | {} == {
        "label": "a",
        "precision": pytest.approx(2 / 3),
        "recall": pytest.approx(2 / 3),
        "f1": pytest.approx(2 / 3),
        "support": 3,
        "predicted": 3,
    }
    assert (table[2]["precision"], table[2]["recall"], table[2]["f1"]) == (None, 0.0, 0.0)
    assert (table[3]["precision"], table[3]["recall"], table[3]["f1"]) == (None, None, None)
    several = per_class_table(np.array([[1, 1], [0, 1]]), np.array([[1, 0], [1, 1]]), ["x", "y"])
    assert [(line["precision"], line["recall"]) for line in several] == [(0.5, 1.0), (1.0, 0.5)]


def test_the_surest_mistake_comes_first():
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.01, 0.99], [0.2, 0.8]])
    worst = most_wrong(
        probabilities, np.array([0, 0, 0, 1]), ["n", "p"], list("wxyz"), where=["f:1", "f:2", "f:3", "f:4"]
    )
    assert [(error["text"], error["where"]) for error in worst] == [("y", "f:3"), ("x", "f:2")]
    assert worst[0]["true"] == "n"
    assert worst[0]["predicted"] == "p"
    assert worst[0]["probability"] == pytest.approx(0.99)


def test_several_labels_are_sorted_by_their_worst_decision():
    probabilities = np.array([[0.9, 0.6], [0.02, 0.1], [0.8, 0.1]])
    worst = most_wrong(probabilities, np.array([[1, 0], [1, 0], [1, 0]]), ["a", "b"], ["s", "t", "u"])
    assert [(error["text"], error["decision"]) for error in worst] == [("t", "a"), ("s", "b")]
    assert worst[0]["predicted"] == "none"
    assert worst[1]["predicted"] == "a, b"


def test_numbers_by_the_size_of_the_error():
    worst = most_wrong_numbers(np.array([1.0, 5.0, 2.0]), np.array([1.5, 2.0, 2.0]), ["a", "b", "c"], top=2)
    assert [(error["text"], error["error"]) for error in worst] == [("b", 3.0), ("a", -0.5)]
