"""What a model of vectors or of candidates says: how close two texts are, how well a candidate fits a query."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from encodery.data.fields import Field
from encodery.data.loader import Place
from encodery.data.negatives import negatives_of
from encodery.data.sources import DataConfig, Labels, Row
from encodery.data.store import TokenStore
from encodery.errors import DataError
from encodery.evaluation.text_vectors import text_vectors
from encodery.use.answers import Answerer, Text, as_row

if TYPE_CHECKING:
    from encodery.use.predict import Predictor


class ClosenessAnswerer(Answerer):
    """embed: {"similarity": the cosine of the two vectors, or MaxSim of the vectors of their tokens}, from -1 to 1."""

    labels: ClassVar[Labels] = "number"

    def row(self, text: Text, number: int) -> Row:
        """A pair, or a single text to be embedded."""
        return as_row(text, number, paired=not isinstance(text, str | dict))

    def answers(self, using: Predictor, rows: Sequence[Row], store: TokenStore, top: int | None) -> Iterator[Any]:
        if not store.paired:
            raise DataError(
                f"{rows[0].where} is a single text, and this model compares two",
                expected="a pair of texts; on the command line a tab between them",
                fix="for the vector of a text: embed (predict --embed)",
            )
        texts = text_vectors(using.model, using.loader(store), using.autocast, bare=False)
        for close in texts.close(texts.numbers(0), texts.numbers(1), using.dimension):
            yield {"similarity": round(float(close), 6)}


class BelongingAnswerer(ClosenessAnswerer):
    """Of a model that learned from pairs alone: the same answers, scored by search."""

    labels: ClassVar[Labels] = "none"

    def fields(self, data: DataConfig | None) -> tuple[Field, ...]:
        return () if data is None else negatives_of(data)


class CandidateAnswerer(Answerer):
    """rank: {"score": how well the second text answers the first}: of candidates for one query the highest is the best;
    after pointwise learning it is also the chance of being relevant once it went through a sigmoid."""

    labels: ClassVar[Labels] = "none"

    def fields(self, data: DataConfig | None) -> tuple[Field, ...]:
        return () if data is None else negatives_of(data)

    def answers(self, using: Predictor, rows: Sequence[Row], store: TokenStore, top: int | None) -> Iterator[Any]:
        score = np.zeros(len(rows))
        device, dtype = using.device, using.autocast
        with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            for batch, _ in using.loader(store).epoch(Place()):
                output = using.model(batch.to(device))
                assert output.logits is not None
                score[batch.uids] = output.logits[:, 0].float().cpu().numpy()
        for value in score:
            yield {"score": round(float(value), 6)}


class GradeAnswerer(CandidateAnswerer):
    """Of a model that learned from grades."""

    labels: ClassVar[Labels] = "number"

    def fields(self, data: DataConfig | None) -> tuple[Field, ...]:
        del data
        return ()
