"""The special tokens around texts are those that the tokenizer's own file puts there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tokenizers as hf
from tokenizers import pre_tokenizers, processors

from encodery.data.corpus import sample_lengths
from encodery.data.frames import Frame, frame_of
from encodery.data.samples import LengthCounts, SampleMaker
from encodery.data.sources import Row
from encodery.data.store import store_in_memory
from encodery.data.tokenizers import Tokenizer
from encodery.errors import DataError

NAMES = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 4, "a": 5, "b": 6, "c": 7}


def foreign(post_processor: Any) -> Any:
    inner: Any = hf.Tokenizer(hf.models.WordLevel(NAMES, unk_token="<unk>"))  # pyright: ignore
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    if post_processor is not None:
        inner.post_processor = post_processor
    return inner


ROBERTA = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=False, add_prefix_space=False)
T5 = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 2)])
FRAMES = [
    (ROBERTA, Frame((0,), (2, 2), (2,), 0)),
    (T5, Frame((), (2,), (2,), 0)),
    (processors.BertProcessing(("</s>", 2), ("<s>", 0)), Frame((0,), (2,), (2,), 1)),
]


@pytest.mark.parametrize(("post_processor", "frame"), FRAMES)
def test_samples_are_framed_as_the_file_frames_them(post_processor: Any, frame: Frame) -> None:
    inner = foreign(post_processor)
    assert frame_of(inner) == frame
    tokenizer = Tokenizer(inner)
    maker = SampleMaker.framed(tokenizer.frame, 32)
    first, second = tokenizer.encode_batch(["a b c", "b a"])
    (single,) = maker.single(first.ids, first.starts_word, 0, LengthCounts())
    assert single.ids.tolist() == inner.encode("a b c").ids
    (pair,) = maker.pair((first.ids, first.starts_word), (second.ids, second.starts_word), 0, LengthCounts())
    theirs = inner.encode("a b c", "b a")
    assert pair.ids.tolist() == theirs.ids
    content = [place for place, word in enumerate(theirs.word_ids) if word is not None]
    assert pair.segment[content].tolist() == [theirs.type_ids[place] for place in content]
    assert len(pair.starts_word) == len(pair.ids)


@pytest.mark.parametrize(("post_processor", "frame"), FRAMES)
def test_lengths_are_those_of_the_framed_samples_and_keep_to_the_limit(post_processor: Any, frame: Frame) -> None:
    tokenizer = Tokenizer(foreign(post_processor))
    for rows in ([Row("a b c", None, None, "1")], [Row("a b c a", "b b", None, "1")]):
        store = store_in_memory(rows, tokenizer)
        for limit in (32, 7):
            maker = SampleMaker.framed(frame, limit, "cut")
            texts = [(one.ids, one.starts_word) for one in tokenizer.encode_batch([rows[0].text, rows[0].pair or ""])]
            counts = LengthCounts()
            made = maker.pair(*texts, 0, counts) if rows[0].pair else maker.single(*texts[0], 0, counts)
            assert sum(sample.ids.size for sample in made) == sample_lengths(store, maker).sum() <= limit


def test_a_file_that_frames_nothing_is_framed_as_in_bert() -> None:
    assert frame_of(foreign(None)) is None
    assert Tokenizer(foreign(None)).frame == Frame((0,), (2,), (2,), 1)
    maker = SampleMaker(8, 9, 16)
    (sample,) = maker.single(np.array([5, 6]), np.array([True, False]), 0, LengthCounts())
    assert sample.ids.tolist() == [8, 5, 6, 9]


def test_roles_can_be_named_or_said_to_be_missing() -> None:
    names = {"<|begin|>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "a": 4}
    inner: Any = hf.Tokenizer(hf.models.WordLevel(names, unk_token="<unk>"))  # pyright: ignore
    with pytest.raises(DataError, match="no cls and no mask"):
        Tokenizer(inner)
    tokenizer = Tokenizer(inner, {"special": {"cls": "<|begin|>"}, "may_lack": ["mask"]})
    assert (tokenizer.cls_id, tokenizer.special) == (
        0,
        {"pad": "<pad>", "unk": "<unk>", "cls": "<|begin|>", "sep": "</s>"},
    )
    with pytest.raises(DataError, match="no mask token"):
        _ = tokenizer.mask_id
    with pytest.raises(DataError, match="no cls"):
        Tokenizer(inner, {"special": {"cls": "<|start|>"}, "may_lack": ["mask"]})
