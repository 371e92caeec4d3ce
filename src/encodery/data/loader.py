"""Stores -> Batches: shuffle, window, pack and prepare, in an order that is a function of integers alone."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch

from encodery.batch import Batch, Sample
from encodery.data.augment import Augment
from encodery.data.composing import composer, samples_of_row
from encodery.data.fields import Field
from encodery.data.gathering import LabelKind
from encodery.data.mentions import Linker
from encodery.data.order import shuffled
from encodery.data.packing import BatchPlan, pack, plan_batches, plan_rows_together
from encodery.data.samples import LengthCounts, SampleMaker
from encodery.data.sources import Row
from encodery.data.store import TokenStore, store_in_memory
from encodery.data.tokenizers import Tokenizer

# Rows that are packed together. More rows pack tighter; this many hold in memory whatever their number.
WINDOW_ROWS = 8192
# Fewer of a stream: its first batch comes when a window is tokenised.
STREAM_WINDOW_ROWS = 2048

T = TypeVar("T")
Prepare = Callable[[Batch, np.random.Generator, float], Batch]


@dataclass(frozen=True)
class Place:
    """Where in the data a run stands: the next batch to be given out."""

    epoch: int = 0
    window: int = 0
    batch: int = 0


class Windows(Protocol):
    """Rows in stretches of some thousand. `window` gives None past the end of the epoch."""

    paired: bool

    def window(self, epoch: int, number: int) -> tuple[TokenStore, np.ndarray] | None:
        """A store and the numbers of its rows to use, in order."""
        ...


class StoredWindows:
    """Windows over a whole token store, shuffled anew each epoch when `seed` is given, else in order."""

    def __init__(self, store: TokenStore, *, seed: int | None) -> None:
        self.store = store
        self.seed = seed
        self.paired = store.paired

    def window(self, epoch: int, number: int) -> tuple[TokenStore, np.ndarray] | None:
        places = np.arange(number * WINDOW_ROWS, min((number + 1) * WINDOW_ROWS, self.store.rows))
        if not places.size:
            return None
        rows = places if self.seed is None else shuffled(places, self.store.rows, (self.seed, epoch))
        return self.store, rows


class StreamedWindows:
    """Windows tokenised on the fly, for corpora that are not worth a cache. The order of the source is kept, and
    shuffled inside each window. Only one window is in memory."""

    def __init__(
        self,
        read: Callable[[int, int], Iterable[Row]],
        tokenizer: Tokenizer,
        *,
        seed: int,
        labels: LabelKind = "none",
        label_names: list[str] | None = None,
        paired: bool = False,
        linker: Linker | None = None,
        fields: Sequence[Field] = (),
        known: Mapping[str, Any] | None = None,
    ) -> None:
        assert labels not in ("class", "classes") or label_names is not None, "each window would number its own labels"
        self.read = read
        self.tokenizer = tokenizer
        self.seed = seed
        self.labels: LabelKind = labels
        self.label_names = label_names
        self.paired = paired
        self.linker = linker
        self.fields, self.known = fields, known
        self._stream: tuple[int, int, Iterator[Row]] | None = None

    def window(self, epoch: int, number: int) -> tuple[TokenStore, np.ndarray] | None:
        if self._stream is None or self._stream[:2] != (epoch, number):
            self._stream = (epoch, number, iter(self.read(epoch, number * STREAM_WINDOW_ROWS)))
        stream = self._stream[2]
        rows = list(islice(stream, STREAM_WINDOW_ROWS))
        self._stream = (epoch, number + 1, stream)
        if not rows:
            return None
        store = store_in_memory(
            rows,
            self.tokenizer,
            labels=self.labels,
            label_names=self.label_names,
            linker=self.linker,
            fields=self.fields,
            known=self.known,
        )
        return store, shuffled(np.arange(store.rows), store.rows, (self.seed, epoch, number))


@dataclass
class Loader:
    """Gives batches of exactly `budget` positions. The same (seed, place) always gives the same batch."""

    windows: Windows
    maker: SampleMaker
    budget: int
    pad_id: int
    seed: int
    shuffle: bool
    prepare: Prepare | None = None
    augment: Augment | None = None
    counts: LengthCounts = field(default_factory=LengthCounts)

    def epoch(self, place: Place, progress: Callable[[], float] = lambda: 0.0) -> Iterator[tuple[Batch, Place]]:
        """Batches from `place` to the end of its epoch, each with the place of the one after it."""
        window = place.window
        while (found := self.windows.window(place.epoch, window)) is not None:
            store, rows = found
            samples = self.samples(store, rows)
            if self.augment is not None:
                rng = np.random.default_rng([self.seed, place.epoch, window, 0, 2])
                samples = [self.augment(sample, rng) for sample in samples]
            plans = self._plans(samples, place.epoch, window)
            first = place.batch if window == place.window else 0
            for number in range(first, len(plans)):
                batch = self._labelled(self.packed(samples, plans[number], (place.epoch, window, number)), store)
                if self.prepare is not None:
                    rng = np.random.default_rng([self.seed, place.epoch, window, number])
                    batch = self.prepare(batch, rng, progress())
                last = number + 1 == len(plans)
                yield batch, Place(place.epoch, window + 1 if last else window, 0 if last else number + 1)
            window += 1

    @property
    def text_budget(self) -> int:
        """Positions of a batch that are for the rows of the data."""
        return self.budget

    @property
    def together(self) -> Callable[[Sample], int] | None:
        """Samples for which this gives the same number stand beside each other in one batch; None: each may come
        anywhere."""
        return composer(self.maker.compose).together

    def packed(self, samples: Sequence[Sample], plan: BatchPlan, key: tuple[int, ...]) -> Batch:
        """The planned samples as a batch; `key` tells this batch from all others."""
        del key
        return pack(samples, plan, self.budget, self.pad_id)

    def samples(self, store: TokenStore, rows: np.ndarray) -> list[Sample]:
        """The samples of the given rows of a store, windows of long rows included."""
        made: list[Sample] = []
        for row in rows.tolist():
            made += samples_of_row(store, self.maker, row, self.counts)
        return made

    def _plans(self, samples: list[Sample], epoch: int, window: int) -> list[BatchPlan]:
        lengths = np.array([sample.ids.size for sample in samples])
        if (together := self.together) is not None:
            plans = plan_rows_together([together(sample) for sample in samples], lengths, self.text_budget)
        else:
            plans = plan_batches(lengths, self.text_budget, self.maker.max_length)
        if self.shuffle:
            order = shuffled(np.arange(len(plans)), len(plans), (self.seed, epoch, window, -1))
            plans = [plans[number] for number in order.tolist()]
        return plans

    def _labelled(self, batch: Batch, store: TokenStore) -> Batch:
        if store.labels is None:
            return batch
        label = torch.from_numpy(np.array(store.labels[batch.uids]))
        return Batch(batch.values, batch.layout, {**batch.truth, "label": label}, batch.uids, batch.parts)


class Prefetched(Generic[T]):
    """Runs an iterator in a thread, a few items ahead, and counts how long its user had to wait."""

    def __init__(self, source: Iterator[T], ahead: int = 4) -> None:
        self.waited = 0.0
        self._ended = False
        self._queue: queue.Queue[T | BaseException | None] = queue.Queue(maxsize=ahead)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(source,), daemon=True)
        self._thread.start()

    def _run(self, source: Iterator[T]) -> None:
        try:
            for item in source:
                if not self._put(item):
                    return
            self._put(None)
        except BaseException as error:
            self._put(error)

    def _put(self, item: T | BaseException | None) -> bool:
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def __iter__(self) -> Iterator[T]:
        while not self._ended:
            begin = time.perf_counter()
            item = self._queue.get()
            self.waited += time.perf_counter() - begin
            if item is None:
                break
            if isinstance(item, BaseException):
                self._ended = True
                raise item
            yield item
        self._ended = True

    def close(self) -> None:
        """Stop the thread; whoever still asks for items gets no more. Closing twice is harmless."""
        self._stopped.set()
        self._ended = True
        self._thread.join(timeout=5)
