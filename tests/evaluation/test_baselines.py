"""Baselines on tiny made data: they learn what is there, line up with the labels, and do not fall over."""

import numpy as np
import pytest

from encodery.errors import DataError
from encodery.evaluation.baselines import majority, mostly_unspaced, tfidf_logistic

GOOD, BAD = ["fine", "lovely", "great"], ["awful", "dull", "poor"]


def made(rng, rows):
    labels = [str(rng.choice(["bad", "good"])) for _ in range(rows)]
    fill = ["film", "the", "plot", "a", "scene", "actor"]
    texts = [
        " ".join([*rng.choice(fill, 4), str(rng.choice(GOOD if label == "good" else BAD)), *rng.choice(fill, 2)])
        for label in labels
    ]
    return texts, labels


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_it_learns_the_words_that_decide(rng):
    texts, labels = made(rng, 120)
    test_texts, test_labels = made(rng, 60)
    found = tfidf_logistic(texts, labels, test_texts, validation=made(rng, 40))
    assert found.labels == ["bad", "good"]
    assert [found.labels[k] for k in found.predicted] == test_labels
    assert found.probabilities.shape == (60, 2)
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1)
    assert found.parameters > 20
    assert found.seconds > 0
    assert found.note.startswith("words 1-2, C = ")


def test_probabilities_follow_the_order_of_the_labels_given(rng):
    texts, labels = made(rng, 100)
    straight = tfidf_logistic(texts, labels, texts[:9])
    turned = tfidf_logistic(texts, labels, texts[:9], labels=["good", "never", "bad"])
    np.testing.assert_allclose(turned.probabilities[:, [2, 0]], straight.probabilities, atol=1e-6)
    np.testing.assert_array_equal(turned.probabilities[:, 1], 0)


def test_the_same_twice(rng):
    texts, labels = made(rng, 60)
    first, second = (tfidf_logistic(texts, labels, texts).probabilities for _ in "12")
    np.testing.assert_array_equal(first, second)


def test_unspaced_scripts_are_read_by_character(rng):
    texts = ["这个酒店很好", "房间太差了", "服务很好很好", "早餐太差太差"] * 5
    found = tfidf_logistic(texts, ["pos", "neg"] * 10, ["真的很好", "实在太差"])
    assert [found.labels[k] for k in found.predicted] == ["pos", "neg"]
    assert found.note.startswith("characters 1-3")
    assert mostly_unspaced(["これは日本語です", "ภาษาไทย"])
    assert not mostly_unspaced(["это по-русски", "a 中 b c d", "한국어 문장"])
    assert mostly_unspaced(["hello"], "zh-Hans")
    assert not mostly_unspaced([""])


def test_several_labels_one_of_them_never_there():
    texts = ["red round", "red", "round", "plain thing", "red round", "thing"] * 4
    labels = [["red", "round"], ["red"], ["round"], [], ["red", "round"], []] * 4
    found = tfidf_logistic(
        texts,
        labels,
        texts[:4],
        kind="classes",
        labels=["blue", "red", "round"],
        validation=(texts, labels),
    )
    np.testing.assert_array_equal(found.predicted, [[0, 1, 1], [0, 1, 0], [0, 0, 1], [0, 0, 0]])
    guess = majority(labels, 2, kind="classes")
    assert guess.labels == ["red", "round"]
    np.testing.assert_allclose(guess.probabilities, [[0.5, 0.5]] * 2)


def test_numbers_and_pairs(rng):
    words = ["sun", "rain", "wind", "snow", "fog"]
    first = [" ".join(rng.choice(words, 3, replace=False)) for _ in range(300)]
    second = [text if rng.random() < 0.5 else " ".join(rng.choice(words, 3)) for text in first]
    score = [float(len(set(a.split()) & set(b.split()))) for a, b in zip(first, second)]
    found = tfidf_logistic(
        first[:200],
        score[:200],
        first[200:],
        kind="number",
        train_pairs=second[:200],
        test_pairs=second[200:],
    )
    assert found.probabilities is None
    assert np.corrcoef(found.predicted, score[200:])[0, 1] > 0.8  # the product says what both have
    assert majority(score, 3, kind="number").predicted.tolist() == pytest.approx([np.mean(score)] * 3)


def test_one_label_in_training_does_not_fall_over():
    found = tfidf_logistic(["a b", "c d"], ["x", "x"], ["e"], labels=["x", "y"])
    assert found.probabilities.tolist() == [[1.0, 0.0]]
    assert "one label" in found.note


def test_text_without_words_does_not_fall_over():
    found = tfidf_logistic(["🙂🙂", "🙁🙁", "🙂", "🙁"], ["up", "down"] * 2, ["🙂", ""])
    assert found.labels[found.predicted[0]] == "up"


def test_majority_answers_with_the_most_frequent_label():
    found = majority(["b", "a", "b"], 4)
    assert [found.labels[k] for k in found.predicted] == ["b"] * 4
    np.testing.assert_allclose(found.probabilities[0], [1 / 3, 2 / 3])
    assert found.note == "always 'b'"


def test_wrong_input_is_named():
    with pytest.raises(DataError, match="2 training texts but 1 labels"):
        tfidf_logistic(["a", "b"], ["x"], ["a"])
    with pytest.raises(DataError, match="not in the list of labels"):
        tfidf_logistic(["a", "b"], ["x", "y"], ["a"], labels=["x", "z"])
    with pytest.raises(DataError, match="second texts in some splits only"):
        tfidf_logistic(["a", "b"], ["x", "y"], ["a"], train_pairs=["c", "d"])
    with pytest.raises(DataError, match="no training labels"):
        majority([], 3)
