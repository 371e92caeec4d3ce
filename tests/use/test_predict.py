"""A model in use: any number of texts, in order, each answered as if it were alone."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from conftest import make_texts, tiny_model
from encodery.data.tokenizers import Tokenizer
from encodery.errors import DataError, WeightsError
from encodery.trained import Task, Trained
from encodery.use import predict as room
from encodery.use.lines import answer_lines, write_answers, write_vectors
from encodery.use.predict import Predictor

TEXTS = [text for text, _ in make_texts(23, seed=4)]


@pytest.fixture
def predictor(tokenizer: Tokenizer) -> Predictor:
    readout = {"kind": "document", "outputs": 2, "drop_rate": 0.0}
    model = tiny_model(vocab_size=tokenizer.vocab_size, readout=readout)
    return Predictor(Trained(model, tokenizer, Task("classify", ("bad", "good"))))


@pytest.fixture
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "TEXTS_AT_ONCE", 5)


def test_vectors_do_not_depend_on_how_many_texts_are_answered_together(predictor: Predictor, few_at_once: None) -> None:
    together = predictor.embed(TEXTS)
    assert together.shape == (23, predictor.width)
    np.testing.assert_allclose(together, np.concatenate([predictor.embed(text) for text in TEXTS]), atol=1e-6)
    blocks = list(predictor.embed_stream(iter(TEXTS)))
    assert [len(block) for block in blocks] == [5, 5, 5, 5, 3]
    assert np.array_equal(np.concatenate(blocks), together)


def test_a_stream_is_read_no_further_than_a_few_blocks_ahead(predictor: Predictor, few_at_once: None) -> None:
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield TEXTS[taken % len(TEXTS)]

    threads = threading.active_count()
    answers = predictor.stream(endless())
    for _ in range(50):
        next(answers)
    assert taken <= 50 + 5 * 5
    answers.close()  # type: ignore[attr-defined]
    assert threading.active_count() == threads


def test_an_answer_to_unknown_words_says_so(predictor: Predictor, few_at_once: None) -> None:
    answers = predictor.predict([*TEXTS[:6], "Добрый день", f"{TEXTS[0]} Добрый"])
    assert [answer.get("unknown") for answer in answers] == [None] * 6 + [1.0, None]


def test_what_goes_wrong_in_the_stream_is_told(predictor: Predictor, few_at_once: None) -> None:
    def broken() -> Iterator[str]:
        yield from TEXTS
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(predictor.stream(broken()))
    with pytest.raises(DataError, match="text 22"):
        predictor.predict([*TEXTS[:21], 7, "x"])  # type: ignore[list-item]


def test_one_text_makes_a_batch_no_larger_than_it_needs(predictor: Predictor) -> None:
    def positions(texts: list[str]) -> int:
        return predictor.loader(predictor._store(texts, 0)[1]).budget

    assert positions(["a film"]) == 16
    assert positions([TEXTS[0]] * 3) < 256
    assert positions(TEXTS * 40) == 4096
    assert positions(["film " * 500]) <= 1024


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_a_lower_precision_answers_nearly_the_same(predictor: Predictor, precision: str) -> None:
    rough = Predictor(predictor.trained, precision)  # type: ignore[arg-type]
    cosine = (rough.embed(TEXTS) * predictor.embed(TEXTS)).sum(axis=1)
    assert cosine.mean() > 0.98
    for one, other in zip(rough.predict(TEXTS), predictor.predict(TEXTS)):
        assert one["probabilities"]["good"] == pytest.approx(other["probabilities"]["good"], abs=0.2)


def test_an_unknown_precision_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="fp64"):
        room.load(tmp_path, precision="fp64")


LINES = ["", *TEXTS[:7], " ", "\x00", *TEXTS[7:], "", ""]


def test_answers_stay_beside_their_lines(predictor: Predictor, few_at_once: None, tmp_path: Path) -> None:
    answers = list(answer_lines(predictor, LINES))
    assert ["error" in answer for answer in answers] == [not line.strip(" \x00") for line in LINES]
    assert answers[0] == {"error": "line 1: there is no text in it"}
    assert [answer for answer in answers if "error" not in answer] == predictor.predict(TEXTS)
    assert list(write_answers(predictor, LINES, tmp_path / "answers.jsonl"))[-1] == (len(LINES), len(TEXTS))
    written = (tmp_path / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in written] == answers


def test_vectors_are_written_line_by_line(predictor: Predictor, few_at_once: None, tmp_path: Path) -> None:
    file = tmp_path / "vectors.npy"
    assert list(write_vectors(predictor, LINES, file))[-1] == (len(LINES), len(TEXTS))
    found = np.load(file)
    assert found.dtype == np.float32 and found.shape == (len(LINES), predictor.width)
    empty = np.array([not line.strip(" \x00") for line in LINES])
    assert np.isnan(found[empty]).all()
    assert np.array_equal(found[~empty], predictor.embed(TEXTS))
    assert list(write_vectors(predictor, [], file))[-1] == (0, 0)
    assert np.load(file).shape == (0, predictor.width)


def test_a_file_that_was_not_finished_is_not_there(predictor: Predictor, few_at_once: None, tmp_path: Path) -> None:
    def broken() -> Iterator[str]:
        yield from TEXTS
        raise OSError("the disk is gone")

    for write in (write_vectors, write_answers):
        with pytest.raises(OSError, match="the disk is gone"):
            list(write(predictor, broken(), tmp_path / "x"))
    assert list(tmp_path.iterdir()) == []


def test_a_prompt_is_put_before_the_texts_by_its_name(tokenizer: Tokenizer) -> None:
    readout = {"kind": "vector", "dense": [{"outputs": 12, "activation": "tanh"}, {"outputs": 5, "bias": False}]}
    model = tiny_model(vocab_size=tokenizer.vocab_size, readout=readout)
    prompts = {"query": "the story ", "plain": ""}
    found = Predictor(Trained(model, tokenizer, Task("vectors", prompts=prompts)))
    with_words = found.embed(["the story " + text for text in TEXTS])
    assert with_words.shape == (23, 5) == (23, found.width)
    assert np.array_equal(found.embed(TEXTS, prompt="query"), with_words)
    assert np.array_equal(found.embed(TEXTS, prompt="plain"), found.embed(TEXTS))
    assert not np.allclose(found.embed(TEXTS), with_words)
    always = Predictor(Trained(model, tokenizer, Task("vectors", prompts=prompts, prompt="query")))
    assert np.array_equal(always.embed(TEXTS), with_words)
    assert np.array_equal(always.embed(TEXTS, prompt=""), found.embed(TEXTS))
    (line,) = answer_lines(found, [TEXTS[0]], embed=True, prompt="query")
    np.testing.assert_allclose(line["vector"], with_words[0], atol=1e-6)
    with pytest.raises(DataError, match="'queri', did you mean 'query'"):
        found.embed(TEXTS, prompt="queri")
    with pytest.raises(DataError, match="expected: one of the model's: none"):
        Predictor(Trained(model, tokenizer, Task("vectors"))).embed(TEXTS, prompt="query")
    with pytest.raises(DataError, match="trained on pairs"):
        Predictor(Trained(model, tokenizer, Task("vectors", paired=True, prompts=prompts))).embed(
            [("a", "b")], prompt="query"
        )


def test_prompts_and_dense_layers_are_saved(tokenizer: Tokenizer, tmp_path: Path) -> None:
    readout = {"kind": "vector", "pooling": "max", "dense": [{"outputs": 7, "activation": "gelu"}]}
    model = tiny_model(vocab_size=tokenizer.vocab_size, readout=readout)
    trained = Trained(model, tokenizer, Task("vectors", prompts={"query": "the "}, prompt="query"))
    trained.save(tmp_path / "model", card="", metrics={})
    again = Trained.load(tmp_path / "model")
    assert again.task == trained.task
    assert np.array_equal(Predictor(again).embed(TEXTS), Predictor(trained).embed(TEXTS))
