"""Batches of pairs of segments: what stands in them, and that they are a function of integers alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from conftest import make_texts
from encodery.batch import Batch
from encodery.data.loader import Loader, Place, StoredWindows
from encodery.data.pair_loader import FOLLOWS, PairLoader, pair_loader
from encodery.data.samples import SampleMaker
from encodery.data.sentences import SentenceField
from encodery.data.sources import Row
from encodery.data.store import store_in_memory
from encodery.data.tokenizers import Tokenizer
from encodery.errors import DataError


def documents(number: int, sentences: int = 6) -> list[str]:
    texts = [text for text, _ in make_texts(number * sentences, most_words=6)]
    return ["\n".join(texts[at : at + sentences]) for at in range(0, len(texts), sentences)]


def loader_of(texts: list[str], tokenizer: Tokenizer, kind: str = "order", *, paired: bool = False) -> PairLoader:
    rows = [Row(text, "the film" if paired else None, None, "x") for text in texts]
    store = store_in_memory(rows, tokenizer, fields=(SentenceField(),))
    maker = SampleMaker(tokenizer.cls_id, tokenizer.sep_id, 32)
    plain = Loader(StoredWindows(store, seed=3), maker, 256, tokenizer.pad_id, 5, True)
    return pair_loader(plain, kind, 0.1)  # type: ignore[arg-type]


def read(loader: PairLoader, place: Place) -> list[Batch]:
    return [batch for batch, _ in loader.epoch(place)]


@pytest.mark.parametrize("kind", ["order", "next"])
def test_pairs_stand_in_batches_with_what_is_asked_of_them(kind: str, tokenizer: Tokenizer) -> None:
    texts = [*documents(60), "the film", "the river"]
    marks: list[int] = []
    for batch in read(loader_of(texts, tokenizer, kind), Place()):
        ids, follows = batch.values["ids"], batch.values[FOLLOWS]
        assert ids.numel() == 256 and int(batch.layout.lengths.max()) <= 32
        for start, size in zip(batch.layout.starts.tolist(), batch.layout.lengths.tolist()):
            inside = slice(start, start + size)
            assert len(set(follows[inside].tolist())) == 1
            marks.append(int(follows[start]))
            seps = int((ids[inside] == tokenizer.sep_id).sum())
            assert seps == (1 if marks[-1] == 0 else 2)
            assert bool(batch.values["segment"][inside].any()) == (seps == 2)
        assert not follows[batch.layout.document < 0].any()
    counts = np.bincount(marks, minlength=3)
    assert counts[0] >= 2 and min(counts[1:]) > 0.35 * counts[1:].sum()


def test_the_same_place_gives_the_same_batch_and_another_epoch_others(tokenizer: Tokenizer) -> None:
    texts = documents(50)
    one, two = (read(loader_of(texts, tokenizer), Place()) for _ in range(2))
    assert len(one) == len(two) > 4
    for mine, other in zip(one, two):
        assert torch.equal(mine.values["ids"], other.values["ids"])
    later = read(loader_of(texts, tokenizer), Place(0, 0, 3))
    assert all(torch.equal(a.values["ids"], b.values["ids"]) for a, b in zip(one[3:], later, strict=True))
    again = read(loader_of(texts, tokenizer), Place(1))
    assert not all(torch.equal(a.values["ids"], b.values["ids"]) for a, b in zip(one, again))
    pairs = [{(int(u), int(p)) for u, p in zip(batch.uids, batch.parts)} for batch in one]
    assert sum(map(len, pairs)) == len(set().union(*pairs))  # every sample has a name of its own


def test_rows_with_a_second_text_are_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="second text"):
        read(loader_of(documents(3), tokenizer, paired=True), Place())
