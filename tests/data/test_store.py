"""The token store: what goes in comes out, in two or four bytes a token, whole or not at all."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import make_rows
from encodery.data.sources import Row
from encodery.data.store import TokenStore, store_in_memory, store_on_disk
from encodery.data.tokenizers import Tokenizer, TokenizerConfig, train_tokenizer
from encodery.errors import DataError


def check(store: TokenStore, rows: list[Row], tokenizer: Tokenizer) -> None:
    texts = [text for row in rows for text in (row.text, row.pair) if text is not None]
    assert store.starts.size == len(texts) + 1 and store.rows == len(rows)
    for number, encoded in enumerate(tokenizer.encode_batch(texts)):
        ids, starts = store.text(number)
        assert np.array_equal(ids, encoded.ids) and np.array_equal(starts, encoded.starts_word)
        assert ids.dtype == np.int64 and starts.dtype == bool


@pytest.fixture(scope="module")
def wide_tokenizer() -> Tokenizer:
    """A vocabulary of more than 32,768 tokens, so that ids need more than 15 bits."""
    texts = [chr(0x4E00 + code) * 2 for code in range(20_000)] + [chr(0xAC00 + code) * 2 for code in range(11_000)]
    texts += [chr(0x3400 + code) * 2 for code in range(6_000)]
    config = TokenizerConfig(kind="characters", vocab_size=60_000, min_count=1, normalisation="none")
    found = train_tokenizer(texts, config, seed=1)
    assert found.vocab_size > 1 << 15
    return found


@pytest.mark.parametrize("wide", [False, True])
def test_ids_and_word_starts_come_back_from_memory_and_disk(
    wide: bool, tokenizer: Tokenizer, wide_tokenizer: Tokenizer, rows: list[Row], tmp_path: Path
) -> None:
    """Row 10: two bytes a token up to 32,768 tokens of vocabulary, four above; measured on the disk."""
    used = wide_tokenizer if wide else tokenizer
    if wide:
        texts = [f"{wide_tokenizer.token(10 + n)} {wide_tokenizer.token(36_000 + n)}" for n in range(300)]
        rows = [Row(text, None, None, "x") for text in texts]
    check(store_in_memory(rows, used), rows, used)
    store = store_on_disk(tmp_path / "store", lambda: rows, used)
    check(store, rows, used)
    tokens = int(store.starts[-1])
    assert (tmp_path / "store" / "tokens.bin").stat().st_size == tokens * (4 if wide else 2)
    if wide:
        assert max(int(store.text(number)[0].max()) for number in range(store.rows)) >= 1 << 15
    counts = np.bincount(np.concatenate(list(store.documents())), minlength=used.vocab_size)
    assert np.array_equal(store.counts(used.vocab_size), counts)


def test_the_whole_cache_costs_little_more_than_its_tokens(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Row 10: no padded or repeated copies; eight bytes a text for where it begins."""
    rows = make_rows(3000, most_words=100)
    store = store_on_disk(tmp_path / "store", lambda: rows, tokenizer)
    size = sum(file.stat().st_size for file in (tmp_path / "store").iterdir())
    assert size < 2 * store.tokens.size + 8 * (store.rows + 1) + 2000
    assert size / store.tokens.size < 2.3


def test_pairs_are_two_texts_a_row(tokenizer: Tokenizer, tmp_path: Path) -> None:
    rows = [Row(f"the film {n}", "an old house" if n % 2 else "a river", None, "x") for n in range(2500)]
    for store in (store_in_memory(rows, tokenizer), store_on_disk(tmp_path / "s", lambda: rows, tokenizer)):
        assert store.paired
        check(store, rows, tokenizer)


def test_rows_have_one_digest_a_text_or_pair(tokenizer: Tokenizer) -> None:
    texts = ["one two", "two one", "one two", "one", "two"]
    digests = store_in_memory([Row(text, None, None, "") for text in texts], tokenizer).row_keys()
    assert digests[0] == digests[2] and len(set(digests.tolist())) == 4
    pairs = [("one", "two"), ("two", "one"), ("one two", "two"), ("one", "two")]
    digests = store_in_memory([Row(*pair, None, "") for pair in pairs], tokenizer).row_keys()
    assert digests[0] == digests[3] and len(set(digests.tolist())) == 3


def test_digests_do_not_depend_on_where_a_row_stands(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [Row(f"{'one two' * (number % 7)} two", None, None, "") for number in range(50)]
    whole = store_in_memory(rows, tokenizer).row_keys()
    monkeypatch.setattr("encodery.data.store._TEXTS_AT_ONCE", 3)
    np.testing.assert_array_equal(store_in_memory(rows, tokenizer).row_keys(), whole)
    assert len(set(whole.tolist())) == 7
    np.testing.assert_array_equal(store_in_memory(rows[20:], tokenizer).row_keys(), whole[20:])


def test_pairs_and_single_texts_do_not_mix(tokenizer: Tokenizer) -> None:
    rows = [Row("the film", "the river", None, "a.csv:1"), Row("the house", None, None, "b.txt:1")]
    for given in (rows, rows[::-1]):
        with pytest.raises(DataError, match="second text") as caught:
            store_in_memory(given, tokenizer)
        assert given[1].where in str(caught.value)


LABELS: list[tuple[Any, list[Any], list[str], Any]] = [
    ("class", ["10", "9", "-1", "b", "a", "9"], ["-1", "9", "10", "a", "b"], [2, 1, 0, 4, 3, 1]),
    ("class", ["²", "--5", "x"], ["--5", "x", "²"], [2, 0, 1]),
    ("classes", [["b"], [], ["a", "b"]], ["a", "b"], [[False, True], [False, False], [True, True]]),
    ("number", [1.5, -2.0, 1e9], [], [1.5, -2.0, 1e9]),
    ("none", [None, None], [], None),
]


@pytest.mark.parametrize(("kind", "given", "names", "expected"), LABELS)
def test_labels_of_every_kind(
    kind: Any, given: list[Any], names: list[str], expected: Any, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    rows = [Row("the film", None, label, f"x:{place}") for place, label in enumerate(given)]
    on_disk = store_on_disk(tmp_path / "s", lambda: rows, tokenizer, labels=kind)
    for store in (store_in_memory(rows, tokenizer, labels=kind), on_disk):
        assert store.label_names == names
        assert (None if store.labels is None else store.labels.tolist()) == expected
    if kind == "class":
        assert on_disk.facts["label_counts"] == {name: given.count(name) for name in names}


def test_labels_of_another_split_keep_the_numbers_and_unseen_ones_are_refused(tokenizer: Tokenizer) -> None:
    rows = [Row("the film", None, "good", "test.csv:3")]
    store = store_in_memory(rows, tokenizer, labels="class", label_names=["bad", "good"])
    assert store.labels is not None and store.labels.tolist() == [1]
    with pytest.raises(DataError) as caught:
        store_in_memory(rows, tokenizer, labels="class", label_names=["bad", "goood"])
    assert "test.csv:3" in str(caught.value) and "did you mean 'goood'" in str(caught.value)


def test_no_rows_make_an_empty_store(tokenizer: Tokenizer, tmp_path: Path) -> None:
    for kind in ("none", "class", "classes", "number"):
        store = store_on_disk(tmp_path / kind, list, tokenizer, labels=kind)  # type: ignore[arg-type]
        assert store.rows == 0 and not list(store.documents()) and store.counts(200).sum() == 0
        assert store_in_memory([], tokenizer, labels=kind).rows == 0  # type: ignore[arg-type]


def test_a_store_that_is_there_is_opened_and_not_made_again(
    tokenizer: Tokenizer, rows: list[Row], tmp_path: Path
) -> None:
    first = store_on_disk(tmp_path / "s", lambda: rows, tokenizer, labels="class", facts=lambda: {"seen": 3})

    def never() -> Iterator[Row]:
        raise AssertionError("read again")

    again = store_on_disk(tmp_path / "s", never, tokenizer, labels="class")
    assert np.array_equal(first.tokens, again.tokens) and again.facts["seen"] == 3


@pytest.mark.parametrize("file", ["tokens.bin", "starts.bin", "labels.npy", "meta.json"])
@pytest.mark.parametrize("damage", ["truncated", "missing", "empty"])
def test_a_damaged_store_is_made_again(
    file: str, damage: str, tokenizer: Tokenizer, rows: list[Row], tmp_path: Path
) -> None:
    folder = tmp_path / "s"
    store_on_disk(folder, lambda: rows, tokenizer, labels="class")
    path = folder / file
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-3] if damage == "truncated" else b"")
    again = store_on_disk(folder, lambda: rows, tokenizer, labels="class")
    check(again, rows, tokenizer)
    assert again.labels is not None and again.labels.size == len(rows)


def test_an_interrupted_write_leaves_nothing(tokenizer: Tokenizer, tmp_path: Path) -> None:
    rows = make_rows(5000, most_words=5)

    def torn() -> Iterator[Row]:
        yield from rows[:4500]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store_on_disk(tmp_path / "s", torn, tokenizer)
    assert list(tmp_path.iterdir()) == []
    assert store_on_disk(tmp_path / "s", lambda: rows, tokenizer).rows == 5000


def test_what_a_killed_writer_left_is_cleared_away_but_not_a_living_one_s(tokenizer: Tokenizer, tmp_path: Path) -> None:
    for name, age in (("old", 2 * 86_400), ("new", 60)):
        left = tmp_path / f".store-{name}"
        left.mkdir()
        (left / "tokens.bin").write_bytes(b"xx")
        os.utime(left / "tokens.bin", (time.time() - age,) * 2)
    store_on_disk(tmp_path / "store", lambda: [Row("a film", None, None, "x")], tokenizer)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".store-new", "store"]


def test_a_full_disk_is_one_clear_message(
    tokenizer: Tokenizer, rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import encodery.data.store as room

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(room, "_write", full)
    with pytest.raises(DataError, match="No space left on device"):
        store_on_disk(tmp_path / "s", lambda: rows, tokenizer)
    assert list(tmp_path.iterdir()) == []


def _make(folder: Path, tokenizer_json: str, barrier: Any, queue: Any) -> None:
    from tokenizers import Tokenizer as Inner

    tokenizer = Tokenizer(Inner.from_str(tokenizer_json))

    def slow() -> Iterator[Row]:
        barrier.wait()
        yield from make_rows(2500, most_words=5)

    store = store_on_disk(folder, slow, tokenizer)
    queue.put((store.rows, int(store.counts(tokenizer.vocab_size).sum())))


def test_two_processes_may_make_the_same_store_at_once(tokenizer: Tokenizer, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(2), context.Queue()
    given = (tmp_path / "s", tokenizer.to_json(), barrier, queue)
    workers = [context.Process(target=_make, args=given) for _ in range(2)]
    for worker in workers:
        worker.start()
    found = [queue.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert found[0] == found[1] and found[0][0] == 2500
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_memory_stays_flat_however_many_rows(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """A corpus larger than memory: three times the rows need hardly more memory."""

    def stream(number: int) -> Iterator[Row]:
        text = "the film with the house " * 12
        return (Row(text, None, None, "x") for _ in range(number))

    def peak(number: int) -> int:
        tracemalloc.start()
        store_on_disk(tmp_path / str(number), lambda: stream(number), tokenizer)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    small, large = peak(4_000), peak(12_000)
    assert large < 1.15 * small


def test_the_file_says_what_is_in_it(tokenizer: Tokenizer, rows: list[Row], tmp_path: Path) -> None:
    store_on_disk(tmp_path / "s", lambda: rows, tokenizer, labels="class")
    meta = json.loads((tmp_path / "s" / "meta.json").read_text(encoding="utf-8"))
    assert meta["texts"] == len(rows) and meta["dtype"] == "uint16" and meta["label_names"] == ["bad", "good"]


@pytest.mark.parametrize(("vocab_size", "size"), [(1 << 15, 2), ((1 << 15) + 1, 4)])
def test_the_largest_id_and_its_word_start_keep_apart(vocab_size: int, size: int) -> None:
    """Row 10, at its edge: 32,768 tokens still fit in two bytes beside the flag."""

    class Fixed:
        def __init__(self) -> None:
            self.vocab_size = vocab_size

        def encode_flat(self, texts: list[str]) -> Any:
            ids = np.array([vocab_size - 1, 0, vocab_size - 2], np.uint32)
            return np.tile(ids, len(texts)), np.tile([True, False, False], len(texts)), np.full(len(texts), 3)

    store = store_in_memory([Row("x", None, None, "x")] * 2, Fixed())  # type: ignore[arg-type]
    ids, starts = store.text(1)
    assert store.tokens.itemsize == size
    assert ids.tolist() == [vocab_size - 1, 0, vocab_size - 2] and starts.tolist() == [True, False, False]
