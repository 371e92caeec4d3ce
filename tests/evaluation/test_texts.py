"""Scores of written texts: the numbers of sacrebleu and rouge-score, with intervals; what is cut how."""

from __future__ import annotations

import math

import numpy as np
import pytest

from encodery.errors import MissingExtra
from encodery.evaluation import texts as room
from encodery.evaluation.texts import bleu_tokenizer, count_texts, score_surprise, score_texts, utf8_sizes
from encodery.evaluation.writing_baselines import copied, first_sentences, from_memory

WRITTEN = ["the cat sat on the mat", "a dog runs in the snow .", "two men", "it rains", "nothing at all here"] * 6
REFERENCES = [
    ("the cat sat on a mat", "a cat was on the mat"),
    ("a dog is running in the snow .",),
    ("two men", "two people"),
    ("it is raining hard today",),
    ("a wholly different text",),
] * 6


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_they_are_the_packages_own_numbers() -> None:
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics import BLEU, CHRF

    found = score_texts(count_texts(WRITTEN, REFERENCES), rng=rng(), resamples=200)
    streams = [[right[0] for right in REFERENCES], [right[1] if len(right) > 1 else None for right in REFERENCES]]
    assert found["bleu"].value == pytest.approx(BLEU(force=True).corpus_score(WRITTEN, streams).score)
    assert found["chrf"].value == pytest.approx(CHRF().corpus_score(WRITTEN, streams).score)
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    each = [max(scorer.score(one, text)["rougeL"].fmeasure for one in r) for text, r in zip(WRITTEN, REFERENCES)]
    assert found["rouge_l"].value == pytest.approx(np.mean(each))
    assert found["written_exactly"].value == pytest.approx(0.2)
    assert "tok:13a" in found["bleu"].note and "nrefs:var" in found["bleu"].note
    for metric in found.values():
        assert metric.low is not None and metric.value is not None and metric.low <= metric.value <= metric.high


def test_chinese_is_cut_in_characters() -> None:
    written, right = ["点击添加以创建", "水平滚动条"], [("点击添加以创建资源",), ("垂直滚动条",)]
    assert bleu_tokenizer([one[0] for one in right]) == "zh"
    found = score_texts(count_texts(written, right, "zh"), rng=rng(), resamples=100)
    assert found["rouge_1"].value == pytest.approx((2 * 7 / 16 + 2 * 3 / 10) / 2)
    assert "tok:zh" in found["bleu"].note


@pytest.mark.parametrize(
    ("texts", "expected"),
    [(["Ein Hund läuft."], "13a"), (["これはペンです"], "char"), (["สวัสดีครับ"], "char"), (["12 34"], "13a")],
)
def test_how_bleu_cuts_follows_from_the_script(texts: list[str], expected: str) -> None:
    assert bleu_tokenizer(texts) == expected


def test_perplexity_and_bits_per_byte() -> None:
    """Each byte of 8 equally likely: 3 bits; a token of two bytes: 64 choices."""
    sizes = np.array([10.0, 20.0, 6.0])
    found = score_surprise(sizes * math.log(8), sizes / 2, sizes, rng=rng(), resamples=100)
    assert found["bits_per_byte"].value == pytest.approx(3.0)
    assert found["perplexity"].value == pytest.approx(64.0)
    assert utf8_sizes(["ab", "ä", "点"]).tolist() == [3.0, 3.0, 4.0]


def test_rules_that_write() -> None:
    assert copied(["a"]).texts == ["a"]
    assert first_sentences(["One is here. Two follows.", "only one"]).texts == ["One is here.", "only one"]
    known = ["two dogs run", "a man sleeps", "the red car"]
    assert from_memory(known, ["A", "B", "C"], ["a man is asleep", "one red car"]).texts == ["B", "C"]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sacrebleu", None)
    with pytest.raises(MissingExtra, match="sacrebleu") as found:
        room.require_scorers()
    assert "encodery[writing]" in found.value.fix
