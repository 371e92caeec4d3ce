"""Tiny models that write, and batches of sources with targets, for the tests of decoder and generation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from conftest import batch_of, documents_of, tiny_config
from encodery.batch import Batch, Output, States
from encodery.encoders.kinds import make_encoder
from encodery.frontends.text import TextFrontend
from encodery.heads.decoding.decoder import Decoder
from encodery.heads.decoding.options import DecoderConfig


class TinyWriter(nn.Module):
    """Frontend, encoder and decoder, as a Model has them."""

    def __init__(self, encoder: dict[str, Any], decoder: dict[str, Any], vocab_size: int) -> None:
        super().__init__()
        config = tiny_config(vocab_size=vocab_size, **encoder)
        self.frontend = TextFrontend(config.frontend, config.encoder.width)
        self.encoder = make_encoder(config.encoder, self.frontend.width)
        settled = DecoderConfig.model_validate(decoder).like(config.encoder)
        self.readout = Decoder(settled, config.encoder.width, self.frontend)

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def encode(self, batch: Batch) -> States:
        return self.encoder(self.frontend(batch))

    def forward(self, batch: Batch) -> Output:
        return self.readout(self.encode(batch), batch)


def tiny_writer(
    seed: int = 0, *, vocab_size: int = 50, decoder: dict[str, Any] | None = None, **encoder: Any
) -> TinyWriter:
    """Weights large enough that every part matters to what is written."""
    model = TinyWriter(encoder, decoder or {}, vocab_size)
    generator = torch.Generator().manual_seed(seed)
    for part in (model.frontend, model.encoder, model.readout):
        part.initialise(generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.15)
    return model.eval()


def pairs_of(
    sources: list[int], targets: list[int], *, vocab_size: int = 50, seed: int = 0
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Sources and targets of these lengths; a target begins with the token 1."""
    found = [np.concatenate([[1], ids]) for ids in documents_of(targets, vocab_size=vocab_size, seed=seed + 1)]
    return documents_of(sources, vocab_size=vocab_size, seed=seed), found


def written_batch(
    rows: list[list[int]], sources: list[np.ndarray], targets: list[np.ndarray], room: tuple[int, int] = (32, 32)
) -> Batch:
    """Documents by number in rows, the same on both sides; what follows the last token of a target is the token 2."""
    source = batch_of([[sources[number] for number in row] for row in rows], room[0])
    target = batch_of([[targets[number] for number in row] for row in rows], room[1])
    follows = np.full(target.layout.positions, -100, dtype=np.int64)
    placed = [targets[number] for row in rows for number in row]
    for start, ids in zip(target.layout.starts.tolist(), placed):
        follows[start : start + ids.size] = np.append(ids[1:], 2)
    return replace(source, target=replace(target, truth={"target": torch.from_numpy(follows)}))
