"""Tags and entities of a person's own text: places that hold, windows that agree, nobody's neighbour matters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import tiny_model
from encodery.data.tags import misfits, tags_of
from encodery.data.tagsets import Tagset
from encodery.data.tokenizers import Tokenizer, TokenizerConfig, train_tokenizer
from encodery.data.units import UnitRule
from encodery.evaluation.tag_answers import unit_logits
from encodery.objectives.tagging import Tagging, TaggingConfig
from encodery.trained import Trained
from encodery.use.predict import Predictor

SIGNS = [
    "Kim",
    "saw",
    "é",
    "e\u0301",
    "中国",
    "看",
    "1998",
    "👍🏽",
    "👩\u200d🔬",
    " ",
    "\n",
    ".",
    "'s",
    "\u200b",
    "ß",
    "ﬁ",
    "[MASK]",
]
TEXTS = st.lists(st.sampled_from(SIGNS), max_size=12).map("".join)


def predictor(kind: str = "wordpiece", *, units: str = "words", scheme: str = "bio", overlap: int = 4) -> Predictor:
    """A model that has learned nothing, with weights large enough that tags vary."""
    tokenizer: Tokenizer = train_tokenizer(
        ["Kim saw é 中国 看 1998 in a town . 's ß"] * 20,
        TokenizerConfig(kind=kind, vocab_size=120),
        seed=1,  # type: ignore[arg-type]
    )
    rule = UnitRule("characters" if units == "characters" else "words", ("'s",))
    names = ("O", *tags_of(["a", "b"], scheme)) if scheme != "none" else ("N", "V", "P")  # type: ignore[arg-type]
    known = Tagset(scheme, scheme, units, names, rule, names[0])  # type: ignore[arg-type]
    objective = Tagging(TaggingConfig(units=units, overlap=overlap), known, [])  # type: ignore[arg-type]
    model = tiny_model(
        vocab_size=tokenizer.vocab_size, readout=objective.readout().model_dump(), max_length=16, positions="rotary"
    )
    with torch.no_grad():
        model.readout.answer.weight.mul_(8)
    from dataclasses import replace

    return Predictor(Trained(model, tokenizer, replace(objective.task(), compose=f"windows:{overlap}")))


MODELS = {
    (kind, units): predictor(kind, units=units, scheme=scheme)
    for kind, units, scheme in (
        ("wordpiece", "words", "bio"),
        ("byte_bpe", "characters", "bmes"),
        ("unigram", "words", "bioes"),
        ("characters", "characters", "bio"),
    )
}


@settings(max_examples=40, deadline=None)
@given(text=TEXTS, model=st.sampled_from(sorted(MODELS)))
def test_places_are_those_of_the_text(text: str, model: tuple[str, str]) -> None:
    used = MODELS[model]
    (answer,) = used.predict([text])
    scheme = used.answerer.tagset.scheme  # type: ignore[attr-defined]
    for part in (*answer["entities"], *answer["units"]):
        assert text[part["start"] : part["stop"]] == part["text"] != ""
    inside = [at for unit in answer["units"] for at in range(unit["start"], unit["stop"])]
    assert inside == [at for at, char in enumerate(text) if not char.isspace()]
    assert misfits([unit["tag"] for unit in answer["units"]], scheme) == []
    edges = {unit["start"] for unit in answer["units"]}, {unit["stop"] for unit in answer["units"]}
    assert all(one["start"] in edges[0] and one["stop"] in edges[1] for one in answer["entities"])
    assert all(0 <= one["probability"] <= 1 for one in answer["entities"])


@settings(max_examples=15, deadline=None)
@given(texts=st.lists(TEXTS, min_size=2, max_size=5))
def test_answers_do_not_depend_on_what_is_answered_with_them(texts: list[str]) -> None:
    used = MODELS["wordpiece", "words"]
    for text, answer in zip(texts, used.predict(texts)):
        alone = used.predict([text])[0]
        assert [unit["tag"] for unit in alone["units"]] == [unit["tag"] for unit in answer["units"]]
        assert [round(one["probability"], 4) for one in alone["entities"]] == pytest.approx(
            [round(one["probability"], 4) for one in answer["entities"]], abs=2e-4
        )


def logits_of(used: Predictor, text: str) -> Any:
    rows, store = used._store([text], 0)
    del rows
    return unit_logits(used.model, store, used.loader(store), torch.float32)


def test_of_two_windows_the_one_with_more_context_counts() -> None:
    """A text of one word a token, longer than the encoder sees: each unit is answered as in the window that has it
    furthest from a cut."""
    used = predictor(overlap=6)
    text = "Kim saw a town in 1998 . Kim saw 1998 in a town . a Kim in town saw ."
    words = text.split()
    room = 14
    found = logits_of(used, text).logits
    assert len(found) == len(words)
    begins = [0, len(words) - room]
    pieces = [logits_of(used, " ".join(words[begin : begin + room])).logits for begin in begins]
    for place in range(len(words)):
        seen = [(begin, piece) for begin, piece in zip(begins, pieces) if begin <= place < begin + room]
        gaps = []
        for begin, _ in seen:
            left = place - begin if begin else 99
            right = begin + room - 1 - place if begin + room < len(words) else 99
            gaps.append(min(left, right))
        begin, piece = seen[int(np.argmax(gaps))]
        torch.testing.assert_close(found[place], piece[place - begin], atol=1e-4, rtol=1e-4)


def test_a_unit_that_no_token_stands_for_is_answered_too() -> None:
    used = predictor(scheme="none")
    (answer,) = used.predict(["Kim \u200b saw"])
    assert "entities" not in answer
    assert [unit["text"] for unit in answer["units"]] == ["Kim", "\u200b", "saw"]
    assert all(unit["tag"] in ("N", "V", "P") for unit in answer["units"])
