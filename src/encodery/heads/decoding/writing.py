"""A model writes: a decoder for sources, or a causal encoder with a word readout on from a prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from encodery.batch import Batch, Sample, States
from encodery.bricks.products import products_in
from encodery.data.packing import BatchPlan, pack
from encodery.data.tokenizers import Tokenizer
from encodery.encoders.past import Past
from encodery.encoders.recurrent import Recurrent
from encodery.encoders.transformer import Transformer
from encodery.errors import ConfigError, DataError
from encodery.frontends.text import TextFrontend
from encodery.heads.decoding.decoder import Decoder, Writing
from encodery.heads.decoding.generation import Rules, Written, all_written, in_groups, search
from encodery.heads.decoding.generation_options import GenerationConfig
from encodery.heads.readouts import WordReadout

ROWS_AT_ONCE = 256
"""Texts in the making that are worked on at a time."""
TOKENS_AT_ONCE = 16_384
"""Positions of sources that are read at a time."""
SOURCE_GRAIN = 16
MORE_THAN_TWICE = 20


class Writer(Protocol):
    """A Model, as far as writing needs it."""

    frontend: TextFrontend

    @property
    def encoder(self) -> Any: ...

    @property
    def readout(self) -> Any: ...

    @property
    def device(self) -> torch.device: ...

    def encode(self, batch: Batch) -> States: ...


class DecoderSteps:
    """The steps of a decoder (heads/decoding/generation.py, Steps)."""

    def __init__(self, decoder: Decoder, writing: Writing) -> None:
        self.decoder, self.writing = decoder, writing

    def next(self, tokens_RT: Tensor) -> Tensor:
        return self.decoder.next(tokens_RT, self.writing)

    def chosen(self, rows: Tensor) -> None:
        self.writing = self.writing.chosen(rows)

    def kept(self, sources: Tensor, rows: Tensor) -> None:
        self.writing = self.writing.kept(sources, rows)


class LanguageSteps:
    """The steps of a language model: a causal encoder, and the word readout at the last token."""

    def __init__(self, model: Writer, texts: int) -> None:
        self.model = model
        self.past = Past(texts, model.device)

    def next(self, tokens_RT: Tensor) -> Tensor:
        layout, ids = self.past.layout(tokens_RT.numel()), tokens_RT.reshape(-1)
        batch = Batch({"ids": ids, "segment": torch.zeros_like(ids)}, layout)
        encoder = cast(Transformer | Recurrent, self.model.encoder)
        x_PD = encoder.advance(self.model.frontend(batch).vectors, self.past)
        last = layout.starts + layout.length - 1
        output = self.model.readout(States(x_PD[last], layout), batch)
        return torch.log_softmax(output.logits.float(), dim=-1)

    def chosen(self, rows: Tensor) -> None:
        self.past = self.past.chosen(rows)

    def kept(self, sources: Tensor, rows: Tensor) -> None:
        del sources
        self.past = self.past.chosen(rows)


def rules_of(tokenizer: Tokenizer, device: torch.device) -> Rules:
    """A text ends with the token that stands behind texts; special tokens are no text, so they are never written."""
    never = [number for number in tokenizer.special_ids if number != tokenizer.sep_id]
    return Rules(tokenizer.sep_id, torch.tensor(never, dtype=torch.int64, device=device))


def write_from_sources(
    model: Writer,
    sources: Sequence[Sample],
    target: Tokenizer,
    options: GenerationConfig,
    pad_id: int,
    dtype: torch.dtype,
) -> list[list[Written]]:
    """For each source what the decoder writes, best first: one text, or as many as the beam is wide.

    `target` is the tokenizer of what is written, `pad_id` fills rows of the sources.
    """
    decoder = model.readout
    assert isinstance(decoder, Decoder), "only a decoder looks at sources"
    rules, begin = rules_of(target, model.device), np.array([target.cls_id])
    sizes = [sample.ids.size for sample in sources]

    def write(group: Sequence[int]) -> list[list[Written]]:
        chosen = [sources[number] for number in group]
        length = -(-max(sample.ids.size for sample in chosen) // SOURCE_GRAIN) * SOURCE_GRAIN
        plan = BatchPlan(length, [[number] for number in range(len(chosen))])
        batch = pack(chosen, plan, length * len(chosen), pad_id).to(model.device)
        writing = decoder.begin(model.encode(batch), batch.values["ids"], options.beam)
        limits = [_limit(options, decoder.max_length - 1, 2 * sizes[number] + MORE_THAN_TWICE) for number in group]
        return search(DecoderSteps(decoder, writing), [begin] * len(group), limits, options, rules, group)

    return _in_inference(model, sizes, options, write, dtype)


def write_from_prompts(
    model: Writer, prompts: Sequence[np.ndarray], tokenizer: Tokenizer, options: GenerationConfig, dtype: torch.dtype
) -> list[list[Written]]:
    """For each prompt (ids without special tokens; may be empty) how a language model goes on, best first.

    Raises DataError for a prompt that leaves no room for another token.
    """
    encoder = model.encoder
    check_goes_on(model)
    assert isinstance(encoder, Transformer | Recurrent)
    room = encoder.config.max_length - 1  # the first token begins the text
    begins = [np.concatenate([[tokenizer.cls_id], prompt]).astype(np.int64) for prompt in prompts]
    for number, prompt in enumerate(prompts):
        if room <= prompt.size:
            raise DataError(
                f"prompt {number + 1} has {prompt.size:,} tokens; the model can hold {room:,}, what it writes included",
                expected=f"at most {room - 1:,} tokens",
                fix="give a shorter prompt, or train with a larger encoder.max_length",
            )
    rules, sizes = rules_of(tokenizer, model.device), [begin.size for begin in begins]

    def write(group: Sequence[int]) -> list[list[Written]]:
        limits = [_limit(options, room - prompts[number].size, room) for number in group]
        steps = LanguageSteps(model, options.beam * len(group))
        return search(steps, [begins[number] for number in group], limits, options, rules, group)

    return _in_inference(model, sizes, options, write, dtype)


def check_goes_on(model: Writer) -> None:
    """Raise ConfigError when a model cannot go on from a prompt: its encoder sees what is to come, or it has no
    words to give."""
    encoder, readout = model.encoder, model.readout
    forward = isinstance(encoder, Transformer) and encoder.config.pattern == "causal"
    forward = forward or (isinstance(encoder, Recurrent) and encoder.config.directions == "forward")
    if not forward or not isinstance(readout, WordReadout):
        raise ConfigError(
            "this model cannot go on from a prompt",
            expected="a language model: an encoder with pattern: causal (a recurrent one with directions: forward), "
            "trained with objective.kind: causal",
            fix="train one (recipes/language_model.yaml)",
        )


def _limit(options: GenerationConfig, room: int, by_default: int) -> int:
    return min(room, by_default if options.max_tokens is None else options.max_tokens)


def _in_inference(
    model: Writer,
    sizes: Sequence[int],
    options: GenerationConfig,
    write: Callable[[Sequence[int]], list[list[Written]]],
    dtype: torch.dtype,
) -> list[list[Written]]:
    with torch.inference_mode(), products_in(dtype, model.device):
        groups = in_groups(sizes, options, ROWS_AT_ONCE, TOKENS_AT_ONCE)
        return all_written(len(sizes), groups, write)
