"""A model as an ONNX graph: padded rows of token ids in, vectors or answers out.

The graph is what a tracer sees of the model's own modules on a layout that says nothing but shapes. Attention patterns
become masks of whole rows there; nothing is counted or sorted by Python.
"""

from __future__ import annotations

import copy
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encodery.batch import Batch, Layout
from encodery.bricks.pooling import Pooling
from encodery.bricks.relative import DistanceBias, LogBuckets
from encodery.data.tokenizers import Tokenizer
from encodery.encoders.kinds import asks_for_ends
from encodery.encoders.options import TransformerConfig
from encodery.errors import WeightsError
from encodery.frontends.embeddings import LearnedTable
from encodery.heads.options import VectorReadoutConfig
from encodery.heads.readouts import DocumentReadout, VectorReadout, WordReadout
from encodery.interop.onnx.operators import OPSET, known_operators
from encodery.model import Model, ModelConfig
from encodery.trained import TaskKind, Trained

Part = Literal["model", "encoder", "embedder"]
"""model: with its readout. encoder: vectors of all tokens. embedder: one vector a text."""
MOST_BYTES = 2_000_000_000
"""Of weights in one file: protobuf ends at 2 GiB."""


def why_not(config: ModelConfig, part: Part = "model") -> str:
    """Why a model of this config cannot be an ONNX graph, with the nearest thing that can; empty when it can."""
    encoder = config.encoder
    if isinstance(encoder, TransformerConfig):
        if encoder.positions in ("grid", "rotary_grid"):
            return f"positions: {encoder.positions} are rows and columns, and a graph of texts knows none"
        if encoder.fusion is not None:
            return "it fuses entities into words (fusion), and a graph of token ids is not told which words name which"
    if asks_for_ends(encoder):
        return "its segments end where sentences do, and a graph cuts all texts alike; segment_at: tokens has a graph"
    if part == "model" and config.readout.kind not in ("word", "document", "vector"):
        return f"a readout of kind {config.readout.kind} has no graph; --part encoder gives the vectors it reads from"
    if isinstance(config.readout, VectorReadoutConfig) and config.readout.first_dense is not None and part != "encoder":
        return "first texts have a head of their own (heads: two), and a graph is not told which text of a row it reads"
    return ""


def answer(model: Model, part: Part, batch: Batch) -> Tensor:
    """What a part of the model says of a batch: of each position (P, D or V), or of each text (N, D or C)."""
    states, readout = model.encode(batch), model.readout
    if part == "encoder":
        return states.vectors
    if part == "embedder" and not isinstance(readout, VectorReadout):
        return F.normalize(Pooling("mean", 0)(states), dim=-1)
    output = readout(states, batch)
    found = output.vectors if output.logits is None else output.logits
    assert found is not None, "a readout gives logits or vectors"
    return found


class PaddedRows(nn.Module):
    """Token ids (B, T), one text in each row, to vectors or answers: what is traced."""

    blank: Tensor

    def __init__(self, model: Model, part: Part, tokenizer: Tokenizer, task: TaskKind) -> None:
        super().__init__()
        self.part: Part = part
        self.task: TaskKind = task
        self.model = model
        self.frame = tokenizer.frame
        self.register_buffer("blank", torch.from_numpy(tokenizer.blank))

    @property
    def reads_words(self) -> bool:
        """Whether it must be told which tokens make a word: for runs of letters."""
        readout = self.model.readout
        lexical = readout.lexical if isinstance(readout, DocumentReadout) else None
        return self.part == "model" and lexical is not None and lexical.letters > 0

    @property
    def inputs(self) -> list[str]:
        """Names of the inputs, (B, T) int64 each."""
        return ["input_ids", "attention_mask", "token_type_ids", *(["word_ids"] if self.reads_words else [])]

    @property
    def output(self) -> str:
        """Name of the one output."""
        if self.part == "encoder":
            return "last_hidden_state"
        if self.part == "embedder" or isinstance(self.model.readout, VectorReadout):
            return "sentence_embedding"
        return "logits"

    @property
    def by_token(self) -> bool:
        """Whether each token gets an answer (B, T, D or V), or each text one (B, D or C)."""
        words = self.output == "logits" and isinstance(self.model.readout, WordReadout)
        return words or self.output == "last_hidden_state"

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor, word_ids: Tensor | None = None
    ) -> Tensor:
        """Padding (mask 0) may stand on either side. -> (B, T, D or V) or (B, D or C)"""
        rows, length = input_ids.shape
        batch = self._batch(input_ids, attention_mask, token_type_ids, word_ids)
        found = answer(self.model, self.part, batch)
        if self.part == "encoder":
            found = torch.where(attention_mask.reshape(-1, 1) > 0, found, 0.0)
        return found.view(rows, length, -1) if self.by_token else found

    def _batch(self, ids_BT: Tensor, mask_BT: Tensor, segment_BT: Tensor, word_BT: Tensor | None) -> Batch:
        rows, length = ids_BT.shape
        row, place = torch.arange(rows)[:, None], torch.arange(length)
        # A row of padding alone counts as one token: a text of none would have no average.
        mask_BT = torch.where((mask_BT.sum(1, keepdim=True) == 0) & (place == 0), 1, mask_BT)
        real_BT = mask_BT > 0
        position_BT = torch.where(real_BT, mask_BT.cumsum(1) - 1, 0)
        if self.model.frontend.segments is None:
            ids_BT = ids_BT + 0 * segment_BT  # else the exporter leaves the input out, and programs must know that
        values = {"ids": ids_BT.reshape(-1), "segment": segment_BT.reshape(-1)}
        if word_BT is not None:
            values["starts_word"] = self._starts_word(ids_BT, word_BT, position_BT).reshape(-1)
        layout = Layout(
            rows=rows,
            length=length,
            document=torch.where(real_BT, row, -1).reshape(-1),
            position=position_BT.reshape(-1),
            starts=row[:, 0] * length + mask_BT.argmax(1),
            lengths=mask_BT.sum(1),
            traced=True,
        )
        return Batch(values, layout)

    def _starts_word(self, ids_BT: Tensor, word_BT: Tensor, position_BT: Tensor) -> Tensor:
        """The rule of data/tokenizers.py for tokens that begin a word, from the number of each token's word."""
        before_BT = _previous(word_BT, -2)
        frame = self.frame
        first_BT = position_BT == len(frame.before)
        if frame.between:
            first_BT = first_BT | ((_previous(ids_BT, -1) == frame.between[-1]) & (before_BT < 0))
        blank_BT = self.blank[ids_BT]
        after_blank_BT = _previous((blank_BT & ~first_BT).long(), 0) > 0
        starts_BT = (word_BT != before_BT) | (word_BT < 0) | after_blank_BT
        return (starts_BT & ~blank_BT) | first_BT


def _previous(x_BT: Tensor, at_start: int) -> Tensor:
    """What stands one place before, `at_start` where nothing does."""
    return F.pad(x_BT[:, :-1], (1, 0), value=at_start)


class TabledBias(DistanceBias):
    """A bias of distances as a table of all of them: a runtime's logarithm may differ in its last bit, and with it the
    bucket of a distance."""

    table: Tensor

    def __init__(self, bias: DistanceBias, longest: int) -> None:
        super().__init__()
        self.longest = longest
        self.register_buffer("table", bias(torch.arange(1 - longest, longest)).detach().contiguous())

    def forward(self, distance: Tensor) -> Tensor:
        return self.table[:, distance + (self.longest - 1)]


class TabledBuckets(nn.Module):
    """The same for the buckets of distances themselves."""

    table: Tensor

    def __init__(self, buckets: LogBuckets, longest: int) -> None:
        super().__init__()
        self.longest = longest
        self.register_buffer("table", buckets(torch.arange(1 - longest, longest)))

    def forward(self, distance: Tensor) -> Tensor:
        return self.table[distance + (self.longest - 1)]


def padded_rows(trained: Trained, part: Part) -> PaddedRows:
    """The module to be traced, with a copy of the model. Raises WeightsError where there can be no graph."""
    config = trained.model.config
    if reason := why_not(config, part):
        raise WeightsError(f"this model cannot be exported to ONNX: {reason}")
    if trained.knowledge is not None:
        raise WeightsError(
            "this model cannot be exported to ONNX: it reads texts with what it knows of the entities they mention "
            "(knowledge.json), and a graph of token ids is told nothing of that",
            fix="use it by `encodery predict`, or train one without data.knowledge",
        )
    size = sum(value.numel() * value.element_size() for value in trained.model.state_dict().values())
    if size > MOST_BYTES:
        raise WeightsError(
            f"the weights take {size / 1e9:.1f} GB, and an ONNX file ends at {MOST_BYTES / 1e9:.0f}",
            fix="export it to Hugging Face (--to huggingface), or a smaller encoder",
        )
    model = copy.deepcopy(trained.model).cpu().float().eval()
    if not isinstance(model.frontend.words, LearnedTable):
        # Vectors made from characters or shared rows are the same for a token at every place: one table holds them.
        matrix_VE = model.frontend.matrix().detach().float()
        model.frontend.words = LearnedTable.from_pretrained(matrix_VE)
    longest = config.encoder.max_length
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, DistanceBias):
                setattr(module, name, TabledBias(child, longest))
            elif isinstance(child, LogBuckets):
                setattr(module, name, TabledBuckets(child, longest))
    return PaddedRows(model, part, trained.tokenizer, trained.task.kind).eval()


def write_graph(rows: PaddedRows, file: Path) -> None:
    """Write the graph to an ONNX file: any number of rows and tokens.

    PyTorch's older exporter writes it: it knows recurrent layers, and takes a tenth of a second where the newer one
    takes some. Raises WeightsError when an operator is met that neither it nor operators.py can write.
    """
    # Two rows of different lengths: what is traced once must hold for all shapes, so nothing may be special about it.
    mask = (torch.arange(9) < torch.tensor([[9], [5]])).long()
    given = {"input_ids": mask, "attention_mask": mask, "token_type_ids": 0 * mask, "word_ids": mask.cumsum(1)}
    names = rows.inputs
    axes = {name: {0: "batch", 1: "tokens"} for name in names}
    axes[rows.output] = {0: "batch", 1: "tokens"} if rows.by_token else {0: "batch"}
    # The tracer warns wherever Python reads a number: the parity check is what says whether one mattered.
    with warnings.catch_warnings(), torch.no_grad(), known_operators(), _silent():
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                rows,
                tuple(given[name] for name in names),
                str(file),
                input_names=names,
                output_names=[rows.output],
                dynamic_axes=axes,
                opset_version=OPSET,
                dynamo=False,
            )
        except (torch.onnx.OnnxExporterError, RuntimeError) as problem:
            said = (str(problem).strip() or type(problem).__name__).splitlines()[0]
            raise WeightsError(
                f"this model cannot be exported to ONNX: {said}",
                fix="leave the readout out (--part encoder), or export to Hugging Face (--to huggingface)",
            ) from problem


@contextmanager
def _silent() -> Iterator[None]:
    """What the exporter's compiled half writes past Python to the terminal goes nowhere."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    try:
        kept = [os.dup(1), os.dup(2)]
    except OSError:  # a process without a terminal has nothing to keep silent
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        yield
    finally:
        for number, descriptor in enumerate(kept, start=1):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.close(nowhere)
