"""Batches of pairs of segments: documents of several sentences, cut in two anew in every epoch."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from encodery.batch import Sample
from encodery.data.loader import Loader
from encodery.data.sentences import SENTENCE, PairsName, segment_pairs
from encodery.data.store import TokenStore
from encodery.errors import DataError

FOLLOWS = "follows"
"""Name of the numbers beside the tokens of a pair: one of the three below."""
UNKNOWN, IN_ORDER, OUT_OF_ORDER = 0, 1, 2


@dataclass
class PairLoader(Loader):
    """Samples are pairs of segments of the rows, as `segment_pairs` makes them; a row of one sentence, and what is left
    of a document, stands alone. `beside[FOLLOWS]` says of each token whether its pair is in order."""

    kind: PairsName = "order"
    short_share: float = 0.1

    def samples(self, store: TokenStore, rows: np.ndarray) -> list[Sample]:
        """The pairs of a window. What is drawn follows from the seed and from the order of the rows, which is another
        in every epoch."""
        if store.paired:
            raise DataError(
                "rows with a second text cannot be cut into pairs of segments",
                expected="documents of several sentences",
                fix="leave data.pair out, or learn with objective.kind: masked",
            )
        texts = [store.text(row) for row in rows.tolist()]
        begins = [store.numbers(row)[SENTENCE] > 0 for row in rows.tolist()]
        rng = np.random.default_rng([self.seed, rows.size, *rows[:16].tolist()])
        room = self.maker.max_length - self.maker.around.pair_size
        made: list[Sample] = []
        parts: dict[int, int] = {}
        for pair in segment_pairs(begins, self.kind, room, rng, short_share=self.short_share):
            uid = int(rows[pair.first.document])
            pieces = [
                tuple(of[one.start : one.stop] for of in texts[one.document])
                for one in (pair.first, pair.second)
                if one is not None
            ]
            if len(pieces) == 1:
                found = self.maker.single(*pieces[0], uid, self.counts)  # type: ignore[arg-type]
            else:
                found = self.maker.pair(*pieces, uid, self.counts)  # type: ignore[arg-type]
            mark = UNKNOWN if pair.follows is None else IN_ORDER if pair.follows else OUT_OF_ORDER
            for sample in found:
                part = parts.get(uid, 0)
                parts[uid] = part + 1
                beside = {FOLLOWS: np.full(sample.ids.size, mark, dtype=np.int32)}
                made.append(replace(sample, part=part, beside=beside))
        return made


def pair_loader(loader: Loader, kind: PairsName, short_share: float) -> PairLoader:
    """A loader of pairs over the same rows."""
    shared = {part.name: getattr(loader, part.name) for part in fields(Loader)}
    return PairLoader(**shared, kind=kind, short_share=short_share)
