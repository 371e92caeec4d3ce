"""Texts in, answers out: labels, numbers or vectors, in order, at the speed of training batches."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from encodery.batch import Batch, States
from encodery.bricks.inference import PrecisionInUse, can_prepare, prepare_for_use
from encodery.bricks.memory import keep_memory
from encodery.bricks.pooling import Pooling
from encodery.data.composing import composer, samples_of_row
from encodery.data.corpus import sample_lengths
from encodery.data.loader import Loader, Place, Prefetched, StoredWindows
from encodery.data.packing import longest_row, rounded_budget
from encodery.data.samples import LengthCounts, SampleMaker
from encodery.data.sources import Row
from encodery.data.store import TokenStore, store_in_memory
from encodery.data.unknown_words import MOSTLY_UNKNOWN, unknown_shares_of_rows
from encodery.errors import ConfigError, DataError, WeightsError, nearest
from encodery.evaluation.text_vectors import TextVectors, text_vectors
from encodery.heads.decoding.generation_options import GenerationConfig
from encodery.heads.late_interaction import TokenReadout
from encodery.heads.readouts import VectorReadout
from encodery.trained import Trained
from encodery.use.answers import Text
from encodery.use.pointing import answers_of_windows
from encodery.use.tasks import answerer_of
from encodery.use.writing import generation_of

# Texts that are tokenised, packed and answered together: memory stays flat however many come.
TEXTS_AT_ONCE = 8192


@dataclass
class Predictor:
    """A trained model in use. Made by `encodery.load`. With `dimension` only so many numbers of each vector are kept,
    the first ones: for models that learned to put what matters there (Matryoshka)."""

    trained: Trained
    precision: PrecisionInUse = "fp32"
    batch_tokens: int = 4096
    dimension: int | None = None

    generation: GenerationConfig | None = None
    """How a model that writes does it; None: as its recipe says."""

    def __post_init__(self) -> None:
        keep_memory()
        self._check_dimension()
        self.answerer = answerer_of(self.trained)
        self.model = self.trained.model.eval()
        self.autocast = torch.float32 if self.precision == "fp32" else torch.bfloat16
        if self.device.type == "cpu" and can_prepare(self.precision):
            self.model = copy.deepcopy(self.model)
            # The vectors come in and travel in the type of the products, so nothing is left to cast.
            self.model.frontend.to(prepare_for_use(self.model.encoder, self.precision))
            self.autocast = torch.float32
        elif self.precision == "int8":
            raise WeightsError("precision int8 is not there on this machine", expected="a CPU, or fp32 or bf16")

    @property
    def device(self) -> torch.device:
        return self.trained.model.device

    def predict(
        self, texts: Iterable[Text], *, top: int | None = None, prompt: str | None = None, windows: bool = False
    ) -> list[dict[str, Any]]:
        """One answer a text, in order; see `stream`."""
        given: Iterable[Any] = [texts] if isinstance(texts, str | dict) else texts
        return list(self.stream(given, top=top, prompt=prompt, windows=windows))

    def stream(
        self, texts: Iterable[Text], *, top: int | None = None, prompt: str | None = None, windows: bool = False
    ) -> Iterator[dict[str, Any]]:
        """Answer texts (or pairs of texts) as they come, however many there are.

        What an answer holds is a matter of the task: see the answerers of use/answers.py. `prompt` names one of the
        model's prompts, which is put before each text; by default the one the model always uses, if any, and "" is
        none. With `windows` each answer to a text that may be long says under "windows" what each part of it was taken
        for (use/pointing.py). An answer to a text of mostly unknown tokens has their share under "unknown". Raises
        DataError for what is no text and for an unknown prompt, WeightsError for a model without an answer (one that is
        only pretrained: use `embed`).
        """
        self.answerer.check()
        if windows and (self.trained.task.prompt if prompt is None else prompt):
            raise DataError("windows and a prompt: the places would be those of the text with the prompt before it")
        for rows, store in self._blocks_of(self._prompted(texts, prompt)):
            answers = self._with_unknown(self.answerer.answers(self, rows, store, top), store)
            if windows:
                parts = answers_of_windows(self, rows, store)
                answers = ({**answer, "windows": part} for answer, part in zip(answers, parts))
            yield from answers

    def _with_unknown(self, answers: Iterable[dict[str, Any]], store: TokenStore) -> Iterator[dict[str, Any]]:
        """An answer to words that the tokenizer does not know says so."""
        shares = unknown_shares_of_rows(store, self.trained.tokenizer.unk_id)
        for answer, share in zip(answers, shares, strict=True):
            yield answer if share < MOSTLY_UNKNOWN else {**answer, "unknown": round(float(share), 4)}

    def write(self, texts: Iterable[Text], **options: Any) -> list[str]:
        """What the model writes for each text, or as a language model on from it, in order.

        `options` are those of heads/decoding/generation_options.py (beam, length_penalty, sample, temperature, top_k,
        top_p, seed, max_tokens, ...), over what the model's recipe says. Raises ConfigError for options that cannot be,
        and for a model that does not write.
        """
        if self.trained.task.kind not in ("write", "causal"):
            raise ConfigError(
                f"this model does not write: it was trained to {self.trained.task.kind}",
                expected="a model of objective.kind write or causal",
                fix="ask it with predict or embed",
            )
        before, self.generation = self.generation, generation_of(self.trained.task, options)
        try:
            return [answer["text"] for answer in self.stream([texts] if isinstance(texts, str) else texts)]
        finally:
            self.generation = before

    def embed(self, texts: Iterable[Text], *, normalise: bool = True, prompt: str | None = None) -> np.ndarray:
        """One vector a text, (texts, D) float32, in order; of length 1 when `normalise`. Pooled as the model's readout
        says if it gives vectors, else the mean over the text. `prompt` as in `stream`."""
        given = [texts] if isinstance(texts, str) else texts
        found = list(self.embed_stream(given, normalise=normalise, prompt=prompt))
        return np.concatenate(found) if found else np.zeros((0, self.width), np.float32)

    def embed_stream(
        self, texts: Iterable[Text], *, normalise: bool = True, prompt: str | None = None
    ) -> Iterator[np.ndarray]:
        """The vectors of `embed` as they come, (texts, D) for some thousand texts at a time: memory stays flat however
        many there are."""
        if isinstance(self.trained.model.readout, TokenReadout):
            raise WeightsError(
                "this model has a vector for each token and none for a whole text (late interaction)",
                fix="compare texts with it: predict with pairs, or Predictor.compare(queries, documents)",
            )
        for _, store in self._blocks_of(self._prompted(texts, prompt)):
            vectors = self._vectors(store)[:, : self.dimension]
            if normalise:
                vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
            yield vectors

    def compare(self, queries: Iterable[str], documents: Iterable[str]) -> np.ndarray:
        """How close each document is to each query, (queries, documents) float32: the cosine of their vectors, or with
        late interaction MaxSim of the vectors of their tokens. Documents are second texts, where a model has a head of
        their own for these."""
        self._check_compares()
        sides = [self._side(list(texts), second) for texts, second in ((queries, False), (documents, True))]
        return sides[0].search_in(sides[1], self.dimension)

    def _side(self, texts: Sequence[str], second: bool) -> TextVectors:
        if not texts:
            raise DataError("no texts to compare", expected="at least one query and one document")
        _, store = self._store(texts, 0)
        return text_vectors(self.model, self.loader(store), self.autocast, bare=False, second=second)

    def _check_compares(self) -> None:
        if not isinstance(self.trained.model.readout, VectorReadout | TokenReadout):
            kind = self.trained.task.kind
            raise WeightsError(f"a model of the kind {kind} has no vectors to compare", expected="one of kind embed")

    def _check_dimension(self) -> None:
        if self.dimension is None:
            return
        if isinstance(self.trained.model.readout, TokenReadout) or not 1 <= self.dimension <= self._whole_width:
            raise WeightsError(
                f"dimension {self.dimension}", expected=f"1 to {self._whole_width}, of a model with a vector a text"
            )

    @property
    def width(self) -> int:
        """D, numbers of a vector."""
        return self.dimension or self._whole_width

    @property
    def _whole_width(self) -> int:
        readout = self.trained.model.readout
        return readout.width if isinstance(readout, VectorReadout) else self.trained.model.config.encoder.width

    def _prompted(self, texts: Iterable[Text], prompt: str | None) -> Iterable[Text]:
        task = self.trained.task
        name = task.prompt if prompt is None else prompt
        if not name:
            return texts
        if name not in task.prompts:
            known = ", ".join(task.prompts) or "none"
            raise DataError(f"prompt {name!r}{nearest(name, task.prompts)}", expected=f"one of the model's: {known}")
        if task.paired and task.kind != "embed":
            raise DataError(f"prompt {name!r}", expected="no prompt: this model was trained on pairs of texts")
        words = task.prompts[name]
        return (_begun(text, words) for text in texts)

    def _blocks_of(self, texts: Iterable[Text]) -> Iterator[tuple[list[Row], TokenStore]]:
        """The texts, tokenised some thousand at a time, the next ones while these are answered."""
        blocks = self._blocks(iter(texts))
        first = next(blocks, None)
        if first is None:
            return
        yield first
        if len(first[0]) < TEXTS_AT_ONCE:
            return
        feed = Prefetched(blocks, ahead=1)
        try:
            yield from feed
        finally:
            feed.close()

    def _blocks(self, texts: Iterator[Text]) -> Iterator[tuple[list[Row], TokenStore]]:
        done = 0
        while block := list(islice(texts, TEXTS_AT_ONCE)):
            yield self._store(block, done)
            done += len(block)

    def _store(self, texts: Sequence[Text], before: int) -> tuple[list[Row], TokenStore]:
        rows = [self.answerer.row(text, before + number) for number, text in enumerate(texts)]
        given = {"linker": self.trained.linker(), "fields": self.answerer.fields(None), "known": self.answerer.known()}
        return rows, store_in_memory(rows, self.trained.tokenizer, **given)

    def loader(self, store: TokenStore) -> Loader:
        """Batches of a tokenised store, in order."""
        maker = self.trained.maker()
        budget = rounded_budget(self.batch_tokens, maker.max_length)
        lengths = sample_lengths(store, maker)
        if composer(maker.compose).together:
            # All texts of a row stand in one batch, however many they are.
            budget = max(budget, longest_row(_longest_together(store, maker)))
        if lengths.sum() < budget:
            # A batch no larger than these few texts need; powers of two, so that there are few shapes to get used to.
            maker = replace(maker, max_length=min(maker.max_length, int(lengths.max(initial=4))))
            budget = min(budget, longest_row(max(int(lengths.sum()), maker.max_length)))
        return Loader(StoredWindows(store, seed=None), maker, budget, self.trained.tokenizer.pad_id, 0, False)

    def _vectors(self, store: TokenStore) -> np.ndarray:
        """Windows of a long text are averaged, weighted by their tokens."""
        model = self.model
        total = np.zeros((store.rows, self._whole_width), dtype=np.float64)
        weight = np.zeros(store.rows)
        device = self.device
        mean = Pooling("mean", 0)

        def pooled(states: States) -> torch.Tensor:
            if isinstance(model.readout, VectorReadout):
                return model.readout.vectors(states)
            return mean(states.summary or states)

        def add(batch: Batch) -> None:
            states = model.encode(batch.to(device))
            lengths = states.layout.lengths.cpu().numpy()
            np.add.at(total, batch.uids, pooled(states).cpu().numpy() * lengths[:, None])
            np.add.at(weight, batch.uids, lengths)

        autocast = torch.autocast(device.type, self.autocast, enabled=self.autocast != torch.float32)
        with torch.inference_mode(), autocast:
            for batch, _ in self.loader(store).epoch(Place()):
                add(batch)
        return (total / weight[:, None]).astype(np.float32)


def _longest_together(store: TokenStore, maker: SampleMaker) -> int:
    """Tokens of the row whose samples have most of them."""
    counts = LengthCounts()
    totals = (sum(one.ids.size for one in samples_of_row(store, maker, row, counts)) for row in range(store.rows))
    return max(totals, default=4)


def load(folder: str | Path, *, precision: str = "fp32", dimension: int | None = None) -> Predictor:
    """Open a model folder for use, computing in `precision`: fp32, bf16 or, on a CPU, int8; with only the first
    `dimension` numbers of its vectors.

    Raises WeightsError when the folder is missing, damaged, or not a model, or has no vectors of this size.
    """
    known = get_args(PrecisionInUse)
    if precision not in known:
        raise WeightsError(f"precision {precision!r}", expected=f"one of {', '.join(known)}")
    return Predictor(Trained.load(Path(folder)), precision, dimension=dimension)  # type: ignore[arg-type]


def _begun(text: Text, words: str) -> Text:
    """A text with these words before it. Marked mentions would no longer stand where they are marked."""
    if isinstance(text, dict):
        raise DataError("a text with marked entities cannot have a prompt", fix='give prompt="", or the text alone')
    return words + text if isinstance(text, str) else text
