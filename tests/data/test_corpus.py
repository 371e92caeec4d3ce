"""The data of a run: counted as it will be used, kept under a name that changes with what is in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import make_rows
from encodery.data.corpus import (
    Reading,
    held_rows,
    length_facts,
    length_histogram,
    sample_lengths,
    training_store,
    training_text,
)
from encodery.data.loader import Loader, Place, StoredWindows, StreamedWindows
from encodery.data.samples import LongPolicy, SampleMaker
from encodery.data.sources import DataConfig, Row
from encodery.data.store import store_in_memory
from encodery.data.tokenizers import Tokenizer, TokenizerConfig, train_tokenizer
from encodery.errors import DataError


def reading_of(path: Path, tmp_path: Path, **data: object) -> Reading:
    config = DataConfig.model_validate({"train": str(path), "label": "label", **data})
    return Reading(config, tmp_path, 1, "class", tmp_path / "cache")


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("long", ["split", "cut"])
@pytest.mark.parametrize("longest", [8, 24, 64])
def test_lengths_in_advance_are_those_of_the_batches(
    longest: int, long: LongPolicy, paired: bool, tokenizer: Tokenizer
) -> None:
    """An epoch is counted before it is read: schedules and epoch budgets depend on it. Rows 2 and 19."""
    rows = make_rows(80, seed=4, most_words=50)
    if paired:
        rows = [Row(row.text, other.text, None, "x") for row, other in zip(rows, rows[::-1])]
    store = store_in_memory(rows, tokenizer)
    maker = SampleMaker(tokenizer.cls_id, tokenizer.sep_id, longest, long)
    loader = Loader(StoredWindows(store, seed=1), maker, 512, tokenizer.pad_id, 1, True)
    found = np.zeros(80, np.int64)
    for batch, _ in loader.epoch(Place()):
        np.add.at(found, batch.uids, batch.layout.lengths.numpy())
    assert np.array_equal(sample_lengths(store, maker), found)
    facts, counts = length_facts(store, maker), loader.counts
    assert facts["rows"] == counts.rows == 80
    if paired or long == "cut":
        assert (facts["rows cut"], facts["tokens cut"]) == (counts.cut_rows, counts.cut_tokens)
    else:
        assert (facts["rows split into windows"], facts["windows"]) == (counts.split_rows, counts.windows)
    assert facts["tokens"] == counts.kept_tokens + counts.cut_tokens
    assert sum(length_histogram(store, longest)["counts"]) == 80


def test_the_cache_is_made_anew_when_what_is_in_it_would_change(
    text_file: Callable[..., Path], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    path = text_file("a.jsonl", 40)
    reading = reading_of(path, tmp_path)
    other = train_tokenizer(["the film was good"] * 9, TokenizerConfig(kind="characters", vocab_size=64), seed=1)
    keys = [
        reading.key("train", tokenizer, None),
        reading.key("validation", tokenizer, None),
        reading.key("train", other, None),
        reading.key("train", tokenizer, ["a"]),
        replace(reading, labels="none").key("train", tokenizer, None),
        reading_of(path, tmp_path, text="label").key("train", tokenizer, None),
    ]
    assert len(set(keys)) == len(keys)
    assert keys[0] == reading_of(path, tmp_path).key("train", tokenizer, None)
    text_file("a.jsonl", 41)
    assert reading.key("train", tokenizer, None) != keys[0]


def test_a_corpus_is_tokenised_once(text_file: Callable[..., Path], tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Row 10."""
    reading = reading_of(text_file("a.jsonl", 40), tmp_path)
    told: list[int] = []
    first = training_store(reading, tokenizer, lambda rows, tokens: told.append(rows))
    again = training_store(reading, tokenizer, lambda rows, tokens: pytest.fail("tokenised again"))
    assert told == [first.rows] and np.array_equal(first.tokens, again.tokens)
    assert first.facts["label_counts"] == again.facts["label_counts"]


def test_streamed_and_cached_rows_are_the_same(
    text_file: Callable[..., Path], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    path = text_file("a.jsonl", 60)
    texts = {}
    for tokens in ("cached", "streamed"):
        reading = replace(reading_of(path, tmp_path, tokens=tokens, validation_share=0.0), labels="none")
        text = training_text(reading, tokenizer, SampleMaker.framed(tokenizer.frame, 64))
        windows = text.windows(1)
        assert isinstance(windows, StreamedWindows if tokens == "streamed" else StoredWindows)
        assert (text.epoch_tokens == 0) == (tokens == "streamed")

        def documents(windows=windows) -> Iterator[tuple[int, ...]]:
            number = 0
            while (found := windows.window(0, number)) is not None:
                store, rows = found
                yield from (tuple(store.text(row)[0].tolist()) for row in rows.tolist())
                number += 1

        texts[tokens] = sorted(documents())
    assert texts["cached"] == texts["streamed"] and len(texts["cached"]) == 60


def test_one_class_only_and_unseen_labels_are_one_clear_message(
    text_file: Callable[..., Path], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    path = tmp_path / "one.jsonl"
    path.write_text('{"text": "the film", "label": "good"}\n{"text": "a river", "label": "good"}\n', encoding="utf-8")
    with pytest.raises(DataError, match="only the label 'good'"):
        training_store(reading_of(path, tmp_path, validation_share=0.0), tokenizer)
    reading = reading_of(text_file("a.jsonl", 40), tmp_path, test=str(text_file("t.jsonl", 9, seed=2)))
    held = held_rows(reading, "test", tokenizer, ["bad", "good"])
    assert held.store.rows == len(held.texts) == 9 and held.pairs is None
    with pytest.raises(DataError, match=r"t\.jsonl:\d+: label"):
        held_rows(reading, "test", tokenizer, ["bad", "worse"])
