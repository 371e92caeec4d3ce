"""Which tokens end sentences, in several scripts, and what is said where none does."""

from __future__ import annotations

import pytest
import torch

from conftest import spelled, tiny_config, tiny_model
from encodery.data.tokenizers import TokenizerConfig, train_tokenizer
from encodery.errors import ConfigError
from encodery.frontends.sentence_ends import SentenceEnds, ends_sentence
from encodery.model import Model

SENTENCES = {"kind": "hierarchical", "segment": 6, "segment_at": "sentences"}


@pytest.mark.parametrize(
    "token",
    [".", " .", " !", "?", "...", "…", '."', " done.", "。", "！", "？」", "।", "؟", "\n", " \n\n", ".\n"],
)
def test_stops_and_line_breaks_end_a_sentence(token: str) -> None:
    assert ends_sentence(token)


@pytest.mark.parametrize("token", ["a", " the", ",", ";", "、", " ", '"', "3.1", ".com", "\nA", "-", "\udce3\udc80"])
def test_what_goes_on_does_not(token: str) -> None:
    assert not ends_sentence(token)


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram", "characters"])
def test_every_kind_of_tokenizer_has_such_tokens(kind: str) -> None:
    texts = ["The end. Is it? Yes! 他来了。她走了！真的？"] * 20
    tokenizer = train_tokenizer(texts, TokenizerConfig.model_validate({"kind": kind, "vocab_size": 300}), seed=1)
    ends = SentenceEnds(tokenizer.vocab_size)
    ends.tell(tokenizer.written())
    (encoded,) = tokenizer.encode_batch(texts[:1])
    marks = ends(torch.from_numpy(encoded.ids.astype("int64"))).numpy()
    places = encoded.offsets[marks, 1]
    assert {texts[0][place - 1] for place in places} == set(".?!。！？") and len(places) == 6


def test_it_is_kept_with_the_weights() -> None:
    model, twin = tiny_model(**SENTENCES), Model(tiny_config(**SENTENCES))
    ids = torch.arange(50)
    with pytest.raises(ConfigError, match="not been told which tokens end sentences"):
        twin.frontend.sentence_ends(ids)  # type: ignore[misc]
    twin.load_state_dict(model.state_dict())
    found = twin.frontend.sentence_ends(ids)  # type: ignore[misc]
    assert found.tolist() == [number > 4 and number % 7 == 6 for number in range(50)]
    assert torch.equal(model.frontend.as_table().sentence_ends(ids), found)  # type: ignore[misc]


def test_a_vocabulary_without_stops_is_refused() -> None:
    ends = SentenceEnds(3)
    with pytest.raises(ConfigError, match=r"no token of the tokenizer ends a sentence(.|\n)*segment_at: tokens"):
        ends.tell([None, "a", "b"])
    with pytest.raises(ConfigError, match="4 tokens for a model of 3"):
        ends.tell([None, "a", "b", "."])


def test_others_are_not_told() -> None:
    model = tiny_model(kind="hierarchical", segment=6)
    assert model.frontend.sentence_ends is None and not model.frontend.asks_for_spelling
    model.frontend.spell(spelled(50))
