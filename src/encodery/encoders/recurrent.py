"""Recurrent encoders: RNN, LSTM and GRU, in one or both directions, States -> States.

Every document is read by itself: its vectors do not depend on what stands beside it in the batch, nor on padding.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from encodery.batch import Layout, States
from encodery.bricks.dropout import dropout
from encodery.bricks.layers import initialise, make_norm
from encodery.bricks.products import Linear
from encodery.encoders.past import Past
from encodery.encoders.recurrent_options import RecurrentConfig
from encodery.encoders.watch import Watch

__all__ = ["Reading", "Recurrent", "RecurrentConfig", "RecurrentLayer"]

_CELLS: dict[str, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class RecurrentLayer(nn.Module):
    """One layer: x + project(cell(norm(x))), (P, D) -> (P, D)."""

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        self.config = config
        self.norm = make_norm(config.norm, config.width, epsilon=config.norm_epsilon)
        both = config.directions == "both"
        self.cell = _CELLS[config.cell](config.width, config.state_width, batch_first=True, bidirectional=both)
        found = config.state_width * (2 if both else 1)
        self.project = Linear(found, config.width) if found != config.width else None

    def forward(self, x_PD: Tensor, reading: Reading) -> Tensor:
        found = reading.read(self.cell, self.norm(x_PD))
        if self.project is not None:
            found = self.project(found)
        found = dropout(found, self.config.drop_rate, self.training)
        return x_PD + found if self.config.residual else found

    def advance(self, x_PD: Tensor, past: Past, number: int) -> Tensor:
        """The next tokens of the texts of `past`, as many for each (N * T, D), from the states that it keeps."""
        x_NTD = self.norm(x_PD).view(past.rows, -1, x_PD.shape[1]).float()
        with torch.autocast(x_PD.device.type, enabled=False):
            kept = [state.transpose(0, 1) for state in past.kept.get(number, ())]
            found, states = self.cell(x_NTD, tuple(kept) if len(kept) == 2 else next(iter(kept), None))
        states = states if isinstance(states, tuple) else (states,)
        past.kept[number] = tuple(state.transpose(0, 1) for state in states)  # texts first
        found = found.reshape(len(x_PD), -1).to(x_PD.dtype)
        found = found if self.project is None else self.project(found)
        return x_PD + found if self.config.residual else found


class Reading:
    """The documents of a layout as PyTorch's recurrent cells want them: longest first, without padding between."""

    def __init__(self, layout: Layout) -> None:
        self.positions = layout.positions
        self.traced = layout.traced
        if self.traced:  # ONNX wants no order, and counts by shapes alone
            place = torch.arange(layout.length)
            self.lengths, self.there = layout.lengths, place < layout.lengths[:, None]
            self.flat = (layout.starts[:, None] + place)[self.there]
            return
        order = torch.argsort(layout.lengths, descending=True, stable=True)
        self.lengths = layout.lengths[order].cpu()
        starts = layout.starts[order]
        longest = int(self.lengths.max()) if len(order) else 0
        place = torch.arange(longest, device=starts.device)
        self.there = place < layout.lengths[order][:, None]  # (N, longest)
        self.flat = (starts[:, None] + place)[self.there]  # (real tokens,)

    def read(self, cell: nn.RNNBase, x_PD: Tensor) -> Tensor:
        """Vectors of every position (P, states); padding gets zeros."""
        width = cell.hidden_size * (2 if cell.bidirectional else 1)
        result = x_PD.new_zeros(self.positions, width, dtype=torch.float32)
        if not self.traced and not len(self.lengths):
            return result.to(x_PD.dtype)
        padded = x_PD.new_zeros(*self.there.shape, x_PD.shape[1], dtype=torch.float32)
        padded[self.there] = x_PD[self.flat].float()
        # The steps of a recurrence are many small products in a row: float32 is as fast there, and safer.
        with torch.autocast(x_PD.device.type, enabled=False):
            packed = pack_padded_sequence(padded, self.lengths, batch_first=True, enforce_sorted=not self.traced)
            found = cell(packed)[0]
        assert isinstance(found, PackedSequence)
        vectors, _ = pad_packed_sequence(found, batch_first=True, total_length=self.there.shape[1])
        return result.index_copy(0, self.flat, vectors[self.there]).to(x_PD.dtype)


class Recurrent(nn.Module):
    """States -> States: a stack of recurrent layers between two norms."""

    def __init__(self, config: RecurrentConfig, input_width: int | None = None) -> None:
        super().__init__()
        self.config = config
        entering = input_width or config.width
        self.input_norm = make_norm(config.norm, entering, epsilon=config.norm_epsilon)
        self.widen = Linear(entering, config.width) if entering != config.width else None
        self.blocks = nn.ModuleList(RecurrentLayer(config) for _ in range(config.depth))
        self.output_norm = make_norm(config.norm, config.width, epsilon=config.norm_epsilon)

    def initialise(self, generator: torch.Generator) -> None:
        """Matrices between states are orthogonal (Saxe et al. 2014), those from the input uniform by Glorot and Bengio
        2010; the forget gates of an LSTM start open (Jozefowicz et al. 2015)."""
        initialise(self, std=0.02, depth=self.config.depth, generator=generator)
        for block in self.blocks:
            assert isinstance(block, RecurrentLayer)
            for name, parameter in block.cell.named_parameters():
                gates = parameter.detach().chunk(len(parameter) // block.cell.hidden_size)
                for number, gate in enumerate(gates):
                    if name.startswith("weight_hh"):
                        nn.init.orthogonal_(gate, generator=generator)
                    elif name.startswith("weight"):
                        nn.init.xavier_uniform_(gate, generator=generator)
                    else:
                        forget = self.config.cell == "lstm" and number == 1 and name.startswith("bias_ih")
                        nn.init.constant_(gate, 1.0 if forget else 0.0)

    def forward(self, states: States, at: Tensor | None = None, watch: Watch | None = None) -> States:
        """All positions, or with `at` (M,) only these: vectors (M, D)."""
        layout, x_PD = states.layout, self.input_norm(states.vectors)
        x_PD = dropout(x_PD, self.config.drop_rate, self.training)
        x_PD = x_PD if self.widen is None else self.widen(x_PD)
        reading = Reading(layout)
        if watch is not None:
            watch.keep(x_PD, layout)
        for block in self.blocks:
            before, x_PD = x_PD, block(x_PD, reading)
            if watch is not None:
                watch.keep(x_PD, layout)
                watch.measure(recurrence=x_PD - before if self.config.residual else x_PD, sum=x_PD)
        return States(self.output_norm(x_PD if at is None else x_PD[at]), layout)

    def advance(self, x_PD: Tensor, past: Past) -> Tensor:
        """The next tokens of the texts of `past`, as many for each (N * T, D); the states of the layers are kept with
        it. Only a stack that reads forward can go on so."""
        assert self.config.directions == "forward", "a state that has read the text to come does not exist yet"
        x_PD = self.input_norm(x_PD)
        x_PD = x_PD if self.widen is None else self.widen(x_PD)
        for number, block in enumerate(self.blocks):
            assert isinstance(block, RecurrentLayer)
            x_PD = block.advance(x_PD, past, number)
        past.length += len(x_PD) // past.rows
        return self.output_norm(x_PD)

    def memory(self, length: int) -> tuple[float, float]:
        """Rough numbers for each position: kept for the gradient, and the widest moment of use."""
        del length
        states = self.config.state_width * (2 if self.config.directions == "both" else 1)
        gates = {"rnn": 1, "gru": 3, "lstm": 4}[self.config.cell]
        each = 3 * self.config.width + (gates + 2) * states
        return self.config.depth * each + 3 * self.config.width, each

    def costs(self, length: int, last_share: float) -> list[tuple[str, int, float]]:
        """Name, parameters and forward FLOPs per token of each part."""
        del length, last_share
        inside = sum(parameter.numel() for parameter in self.blocks.parameters())
        rows = [("norms", sum(parameter.numel() for parameter in self.parameters()) - inside, 0.0)]
        for number, block in enumerate(self.blocks):
            matrices = sum(parameter.numel() for parameter in block.parameters() if parameter.dim() == 2)
            rows.append((f"layer {number + 1}", sum(p.numel() for p in block.parameters()), 2.0 * matrices))
        return rows
