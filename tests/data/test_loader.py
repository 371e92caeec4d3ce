"""The loader: the same batch for the same place, every row once an epoch, whatever stands between."""

from __future__ import annotations

import threading
import time
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import encodery.data.loader as room
from conftest import make_rows
from encodery.batch import Batch
from encodery.data.loader import Loader, Place, Prefetched, StoredWindows, StreamedWindows, Windows
from encodery.data.samples import LengthCounts, SampleMaker
from encodery.data.sources import Row
from encodery.data.store import store_in_memory, store_on_disk
from encodery.data.tokenizers import Tokenizer
from encodery.objectives.masked import Masked, MaskedConfig

ROWS = make_rows(330, seed=3, most_words=60)


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "WINDOW_ROWS", 100)
    monkeypatch.setattr(room, "STREAM_WINDOW_ROWS", 100)


def windows_of(kind: str, tokenizer: Tokenizer, seed: int = 5) -> Windows:
    if kind == "stored":
        store = store_in_memory(ROWS, tokenizer, labels="class")
        return StoredWindows(store, seed=seed)

    def read(epoch: int, skip: int) -> Iterable[Row]:
        del epoch
        return iter(ROWS[skip:])

    return StreamedWindows(read, tokenizer, seed=seed, labels="class", label_names=["bad", "good"])


def loader_of(tokenizer: Tokenizer, kind: str = "stored", *, seed: int = 5, masked: bool = True) -> Loader:
    objective = Masked(
        MaskedConfig(share=0.2, final_share=0.4),
        vocab_size=tokenizer.vocab_size,
        mask_id=tokenizer.mask_id,
        special_ids=frozenset(tokenizer.special_ids),
    )
    maker = SampleMaker(tokenizer.cls_id, tokenizer.sep_id, 32)
    prepare = objective.prepare if masked else None
    return Loader(windows_of(kind, tokenizer, seed), maker, 512, tokenizer.pad_id, seed, True, prepare)


def same(one: Batch, other: Batch) -> bool:
    return (
        all(torch.equal(one.values[name], other.values[name]) for name in one.values)
        and one.truth.keys() == other.truth.keys()
        and all(torch.equal(one.truth[name], other.truth[name]) for name in one.truth)
        and torch.equal(one.layout.document, other.layout.document)
        and np.array_equal(one.uids, other.uids)
        and np.array_equal(one.parts, other.parts)
    )


@pytest.mark.parametrize("kind", ["stored", "streamed"])
def test_resuming_at_every_place_gives_the_rest_of_the_epoch(kind: str, tokenizer: Tokenizer) -> None:
    """Row 7: batches, masks and labels are a function of the place alone."""
    whole = list(loader_of(tokenizer, kind).epoch(Place(1)))
    places = [Place(1), *(place for _, place in whole)]
    assert len({(p.window, p.batch) for p in places}) == len(places) and places[-1].window == 4
    for number, place in enumerate(places):
        rest = list(loader_of(tokenizer, kind).epoch(place))
        assert len(rest) == len(whole) - number
        for (batch, after), (expected, expected_after) in zip(rest, whole[number:]):
            assert after == expected_after and same(batch, expected)


@pytest.mark.parametrize("kind", ["stored", "streamed"])
def test_an_epoch_has_every_token_of_every_row_once(kind: str, tokenizer: Tokenizer) -> None:
    """Row 2: long rows come in windows; nothing is dropped. Labels stay with their rows."""
    store = store_in_memory(ROWS, tokenizer, labels="class")
    loader = loader_of(tokenizer, kind, masked=False)
    found: dict[tuple[int, int], np.ndarray] = {}
    window = -1
    for batch, _ in loader.epoch(Place()):
        assert batch.layout.positions == 512
        for number, (uid, part) in enumerate(zip(batch.uids.tolist(), batch.parts.tolist())):
            start, size = int(batch.layout.starts[number]), int(batch.layout.lengths[number])
            ids = batch.values["ids"][start + 1 : start + size - 1].numpy()
            if kind == "streamed":  # rows are numbered inside their window
                key = next(
                    (100 * w + uid, part)
                    for w in range(4)
                    if 100 * w + uid < len(ROWS)
                    and (100 * w + uid, part) not in found
                    and is_part(ids, store.text(100 * w + uid)[0])
                )
            else:
                key = (uid, part)
            assert key not in found
            found[key] = ids
            assert store.labels is not None
            assert int(batch.truth["label"][number]) == int(store.labels[key[0]])
    for row in range(len(ROWS)):
        parts = [found.pop((row, part)) for part in range(10) if (row, part) in found]
        assert np.array_equal(np.concatenate(parts), store.text(row)[0])
    assert not found and window == -1


def is_part(ids: np.ndarray, whole: np.ndarray) -> bool:
    return any(np.array_equal(ids, whole[at : at + ids.size]) for at in range(whole.size - ids.size + 1))


def test_counts_say_what_happened_to_long_rows(tokenizer: Tokenizer) -> None:
    """Rows 2 and 19."""
    loader = loader_of(tokenizer, masked=False)
    list(loader.epoch(Place()))
    lengths = [store_in_memory([row], tokenizer).tokens.size for row in ROWS]
    expected = LengthCounts(
        rows=len(ROWS),
        split_rows=sum(size > 30 for size in lengths),
        windows=sum(-(-size // 30) for size in lengths),
        kept_tokens=sum(lengths),
    )
    assert loader.counts == expected


def test_epochs_and_seeds_differ_in_order_and_masks(tokenizer: Tokenizer) -> None:
    epochs = [next(iter(loader_of(tokenizer).epoch(Place(epoch))))[0] for epoch in range(3)]
    epochs.append(next(iter(loader_of(tokenizer, seed=6).epoch(Place())))[0])
    for number, one in enumerate(epochs):
        for other in epochs[number + 1 :]:
            assert not np.array_equal(np.sort(one.uids), np.sort(other.uids))


def test_masks_differ_between_epochs_where_rows_are_the_same(tokenizer: Tokenizer) -> None:
    """One window in order, so that batches hold the same rows in each epoch."""
    store = store_in_memory(ROWS[:60], tokenizer)
    one = loader_of(tokenizer)
    loader = Loader(StoredWindows(store, seed=None), one.maker, 512, tokenizer.pad_id, 5, False, one.prepare)
    first, again, other = (next(iter(loader.epoch(Place(epoch))))[0] for epoch in (0, 0, 1))
    assert same(first, again) and np.array_equal(first.uids, other.uids)
    assert not torch.equal(first.truth["at"], other.truth["at"])


def test_one_row_is_enough_and_none_gives_nothing(tokenizer: Tokenizer) -> None:
    maker = SampleMaker(tokenizer.cls_id, tokenizer.sep_id, 32)
    for number in (0, 1):
        windows = StoredWindows(store_in_memory(ROWS[:number], tokenizer), seed=1)
        batches = list(Loader(windows, maker, 64, tokenizer.pad_id, 1, True).epoch(Place()))
        assert len(batches) == number if number == 0 else batches[0][0].layout.documents >= 1


@pytest.mark.parametrize("ahead", [1, 4, 50])
def test_batches_do_not_depend_on_how_far_ahead_they_are_made(ahead: int, tokenizer: Tokenizer) -> None:
    plain = list(loader_of(tokenizer).epoch(Place()))
    feed = Prefetched(loader_of(tokenizer).epoch(Place()), ahead)
    found = list(feed)
    assert len(found) == len(plain)
    assert all(place == other and same(batch, expected) for (batch, place), (expected, other) in zip(found, plain))
    assert list(feed) == []  # it has ended; asking again neither hangs nor fails
    feed.close()


def test_an_error_in_the_thread_reaches_the_caller() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise ValueError("broken row")

    feed = Prefetched(source())  # type: ignore[arg-type]
    items = iter(feed)
    assert next(items) == 1
    with pytest.raises(ValueError, match="broken row"):
        next(items)
    assert list(feed) == []
    feed.close()


def test_closing_ends_the_thread_while_it_waits_for_room() -> None:
    made: list[int] = []

    def endless() -> Iterator[int]:
        while True:
            made.append(len(made))
            yield made[-1]

    before = threading.active_count()
    feed = Prefetched(endless(), ahead=2)  # type: ignore[arg-type]
    assert next(iter(feed)) == 0
    begin = time.perf_counter()
    feed.close()
    feed.close()
    assert time.perf_counter() - begin < 2 and threading.active_count() == before
    assert len(made) <= 4 and list(feed) == []


def test_waiting_for_data_is_measured() -> None:
    def slow() -> Iterator[int]:
        for number in range(3):
            time.sleep(0.05)
            yield number

    feed = Prefetched(slow())  # type: ignore[arg-type]
    assert list(feed) == [0, 1, 2]
    assert 0.1 < feed.waited < 1.0


def test_windows_do_not_number_labels_by_themselves(tokenizer: Tokenizer) -> None:
    with pytest.raises(AssertionError, match="label"):
        StreamedWindows(lambda epoch, skip: ROWS, tokenizer, seed=1, labels="class")


def test_memory_stays_flat_over_epochs_and_corpora(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Row 24: a corpus ten times as large needs no more memory, and neither does a second epoch."""

    def stream(number: int) -> Iterator[Row]:
        return (Row("the film with the house", None, None, "x") for _ in range(number))

    def peak(number: int, epochs: int) -> int:
        store = store_on_disk(tmp_path / str(number), lambda: stream(number), tokenizer)
        loader = Loader(StoredWindows(store, seed=1), SampleMaker(2, 3, 32), 512, tokenizer.pad_id, 1, True)
        tracemalloc.start()
        for epoch in range(epochs):
            assert sum(batch.layout.documents for batch, _ in loader.epoch(Place(epoch))) == number
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    small = peak(300, 1)
    assert peak(300, 3) < 1.2 * small and peak(3000, 1) < 1.2 * small


def test_streamed_windows_may_be_asked_for_in_any_order(tokenizer: Tokenizer) -> None:
    def told(windows: Windows, epoch: int, number: int) -> tuple[list[int], list[int]] | None:
        found = windows.window(epoch, number)
        return None if found is None else (found[0].tokens.tolist(), found[1].tolist())

    asked = [(0, 2), (0, 0), (0, 1), (1, 1), (0, 3), (0, 4), (1, 0)]
    windows = windows_of("streamed", tokenizer)
    found = [told(windows, *place) for place in asked]
    assert found == [told(windows_of("streamed", tokenizer), *place) for place in asked]
    assert found[5] is None and found[1] != found[6]


def test_long_and_short_rows_come_mixed(tokenizer: Tokenizer) -> None:
    """Packing begins with the longest rows; training must not."""
    sizes = [float(batch.layout.lengths.float().mean()) for batch, _ in loader_of(tokenizer).epoch(Place())]
    first = sizes[: len(sizes) // 4]
    assert min(sizes) < 0.8 * max(sizes)
    assert first != sorted(first, reverse=True)
