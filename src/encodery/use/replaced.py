"""Which words of a text look put there: what a model of replaced words says of texts as they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from encodery.data.loader import Loader, Place
from encodery.data.sources import Row
from encodery.data.store import TokenStore
from encodery.model import Model, answering
from encodery.use.answers import Answerer

if TYPE_CHECKING:
    from encodery.use.predict import Predictor


class ReplacedAnswerer(Answerer):
    """{"words": [{"text", "start", "stop", "replaced": p}, ...]}: the words that look put there most, at most `top` of
    them (5), with their places in characters."""

    def answers(self, using: Predictor, rows: Sequence[Row], store: TokenStore, top: int | None) -> Iterator[Any]:
        found = token_logits(using.model, using.loader(store), store.rows, using.autocast)
        texts = [row.text for row in rows]
        for text, encoded, logits in zip(texts, using.trained.tokenizer.encode_batch(texts), found):
            share = 1 / (1 + np.exp(-logits.astype(np.float64)))
            word = np.cumsum(encoded.starts_word[: share.size]) - 1  # the end of a text that was cut has no answer
            words = []
            for number in range(int(word[-1]) + 1 if word.size else 0):
                tokens = np.flatnonzero(word == number)
                start, stop = int(encoded.offsets[tokens, 0].min()), int(encoded.offsets[tokens, 1].max())
                put = float(share[tokens].max())
                words.append({"text": text[start:stop], "start": start, "stop": stop, "replaced": put})
            words.sort(key=lambda one: (-one["replaced"], one["start"]))
            yield {"words": [{**one, "replaced": round(one["replaced"], 6)} for one in words[: top or 5]]}


def token_logits(model: Model, loader: Loader, rows: int, dtype: torch.dtype) -> list[np.ndarray]:
    """The logit of each token of each row, special tokens left out; windows of a long row one behind the other."""
    frame = loader.maker.around
    found: list[dict[int, np.ndarray]] = [{} for _ in range(rows)]
    with answering(model, dtype):
        for batch, _ in loader.epoch(Place()):
            logits = model(batch.to(model.device)).logits
            assert logits is not None
            told = logits.float().cpu().numpy()
            layout = batch.layout
            for uid, part, start, size in zip(batch.uids, batch.parts, layout.starts.tolist(), layout.lengths.tolist()):
                found[uid][int(part)] = told[start + len(frame.before) : start + size - len(frame.after)]
    empty = np.zeros(0, dtype=np.float32)
    return [np.concatenate([empty, *(parts[part] for part in sorted(parts))]) for parts in found]
