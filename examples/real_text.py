"""Real English text that comes with every Python, its words hidden and ready to be guessed: the language reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, count, islice
from pydoc_data.topics import topics

import torch

from encodery.batch import Batch
from encodery.data.loader import Loader, Place, StoredWindows
from encodery.data.samples import SampleMaker
from encodery.data.sources import Row
from encodery.data.store import TokenStore, store_in_memory
from encodery.data.tokenizers import TokenizerConfig, train_tokenizer
from encodery.frontends.cooccurrence import cooccurrence_embeddings
from encodery.objectives.masked import Loss, Masked, MaskedConfig


def paragraphs() -> list[str]:
    """Paragraphs of prose in the order of the reference, each once; grammar rules and code are left out."""
    found: dict[str, None] = {}
    for topic in topics.values():
        for paragraph in topic.split("\n\n"):
            text = " ".join(paragraph.split())
            letters = sum(char.isalpha() or char == " " for char in text)
            if len(text) > 80 and 0.85 * len(text) < letters and text.endswith((".", ":", ")", '"')):
                found[text] = None
    return list(found)


class RealText:
    """The paragraphs as batches of tokens of which some are hidden. Every tenth paragraph is held back."""

    def __init__(self, *, vocab_size: int, max_length: int, batch_tokens: int) -> None:
        rows = [Row(text, None, None, f"reference:{number}") for number, text in enumerate(paragraphs())]
        self.tokenizer = train_tokenizer([row.text for row in rows], TokenizerConfig(vocab_size=vocab_size), seed=1)
        self.objective = Masked.of(MaskedConfig(share=0.2), self.tokenizer)
        self.store = store_in_memory([row for number, row in enumerate(rows) if number % 10], self.tokenizer)
        self.held = store_in_memory(rows[::10], self.tokenizer)
        self.maker = SampleMaker(self.tokenizer.cls_id, self.tokenizer.sep_id, max_length)
        self.batch_tokens = batch_tokens
        counts = self.store.counts(vocab_size) + 0.5
        self.shares = torch.from_numpy(counts / counts.sum()).float()

    def entropy(self) -> float:
        """What a held-back token costs someone who knows only how frequent each token is, in nats."""
        counts = torch.from_numpy(self.held.counts(len(self.shares)))
        return float(-(counts * self.shares.log()).sum() / counts.sum())

    @torch.no_grad()
    def start(self, words_VD: torch.Tensor, bias_V: torch.Tensor) -> None:
        """Fill the vectors of the tokens from which stand near each other, and the bias from how frequent each is."""
        documents = self.store.documents()
        words_VD.copy_(torch.from_numpy(cooccurrence_embeddings(documents, *words_VD.shape, std=0.1, seed=1)))
        bias_V.copy_(self.shares.log())

    def batches(self, steps: int) -> Iterator[Batch]:
        """So many batches to learn from, shuffled anew whenever all have been seen."""
        epochs = (self._batches(self.store, epoch) for epoch in count())
        return islice(chain.from_iterable(epochs), steps)

    def loss(self, loss_of: Callable[[Batch], Loss]) -> float:
        """The mean loss of a hidden token in the paragraphs that were held back, in nats."""
        with torch.inference_mode():
            losses = [loss_of(batch) for batch in self._batches(self.held, None)]
        return sum(float(one.total) for one in losses) / sum(float(one.count) for one in losses)

    def _batches(self, store: TokenStore, epoch: int | None) -> Iterator[Batch]:
        shuffle, prepare = epoch is not None, self.objective.prepare
        windows = StoredWindows(store, seed=1 if shuffle else None)
        loader = Loader(windows, self.maker, self.batch_tokens, self.tokenizer.pad_id, 1, shuffle, prepare)
        return (batch for batch, _ in loader.epoch(Place(epoch=epoch or 0)))
