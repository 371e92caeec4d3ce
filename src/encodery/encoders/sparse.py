"""Local patterns in linear time: blocks of queries beside the few blocks of keys that they may see.

Every document starts in a block of its own, so that its blocks do not depend on where it lies. A dilated window is a
plain window over every n-th token: each such sub-sequence is treated as a document of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from encodery.batch import Layout
from encodery.bricks.dropout import dropout
from encodery.bricks.relative import OnceBias
from encodery.encoders.pattern_rules import Pattern


@dataclass(frozen=True)
class Blocks:
    """Positions sorted into S blocks of E slots; R blocks of keys and g global tokens beside each.

    `flat` (S, E) is the position in a slot, P for an empty one; `slot` (P,) the slot of a position, S * E for padding.
    `keys` (S, R) are the blocks of keys, `globals` (S, g) the positions of the first tokens of the document. `bias`
    (S, 1, E, R * E + g) is -inf where the pattern forbids, `distance` the same without the second dimension.
    """

    flat: Tensor
    slot: Tensor
    keys: Tensor
    globals: Tensor
    bias: Tensor
    distance: Tensor


def attend_blocks(
    qkv_P3HK: Tensor, layout: Layout, pattern: Pattern, drop_rate: float, distance_bias: OnceBias | None = None
) -> Tensor:
    """Equation 1 of attention.py for a local pattern, (P, D). Queries and keys have been turned already."""
    P, _, H, K = qkv_P3HK.shape
    blocks = _blocks_of(layout, pattern)
    S, E = blocks.flat.shape
    with_empty = torch.cat([qkv_P3HK, qkv_P3HK.new_zeros(1, 3, H, K)])
    slots_SE3HK = _rows(with_empty, blocks.flat)
    q_SHEK = slots_SE3HK[:, :, 0].transpose(1, 2)
    near = _rows(slots_SE3HK[:, :, 1:], blocks.keys).flatten(1, 2)  # (S, R * E, 2, H, K)
    if pattern.global_tokens:
        near = torch.cat([near, _rows(with_empty[:, 1:], blocks.globals)], dim=1)
    k_SHXK, v_SHXK = near.permute(2, 0, 3, 1, 4).unbind(0)
    score_SHEX = (q_SHEK / math.sqrt(K)) @ k_SHXK.transpose(-1, -2) + blocks.bias.to(qkv_P3HK.dtype)
    if distance_bias is not None:
        score_SHEX = score_SHEX + distance_bias(blocks.distance).transpose(0, 1).to(score_SHEX.dtype)
    mixed_SHEK = dropout(torch.softmax(score_SHEX, dim=-1), drop_rate, True) @ v_SHXK
    mixed = mixed_SHEK.transpose(1, 2).reshape(S * E, H, K)
    mixed_PHK = _rows(torch.cat([mixed, mixed.new_zeros(1, H, K)]), blocks.slot)
    if pattern.global_tokens:
        mixed_PHK = _look_everywhere(mixed_PHK, qkv_P3HK, layout, pattern.global_tokens, drop_rate, distance_bias)
    return mixed_PHK.reshape(P, H * K)


def _rows(x: Tensor, index: Tensor) -> Tensor:
    """`x[index]`. In bf16 on a CPU the gradient of an index takes several times as long as that of a selection."""
    return x.index_select(0, index.reshape(-1)).view(*index.shape, *x.shape[1:])


def _look_everywhere(
    mixed_PHK: Tensor,
    qkv_P3HK: Tensor,
    layout: Layout,
    number: int,
    drop_rate: float,
    distance_bias: OnceBias | None,
) -> Tensor:
    """Replace the answers of the first `number` tokens of each document: they see every token of it. One softmax a
    document, over flat positions, so that the cost is linear as well."""
    q_PHK, k_PHK, v_PHK = qkv_P3HK.unbind(1)
    N = layout.documents
    owner = layout.document + 1  # padding is collected in an extra first row
    for place in range(number):
        asking = layout.starts + place
        there = place < layout.lengths
        at = torch.where(there, asking, layout.starts)
        query_PHK = torch.cat([q_PHK.new_zeros(1, *q_PHK.shape[1:]), q_PHK[at]])[owner]
        score_PH = (query_PHK * k_PHK).float().sum(-1) / math.sqrt(q_PHK.shape[-1])
        if distance_bias is not None:
            score_PH = score_PH + distance_bias(layout.position - place).T.float()
        index = owner[:, None].expand_as(score_PH)
        largest = score_PH.new_full((N + 1, score_PH.shape[1]), -torch.inf)
        largest = largest.scatter_reduce(0, index, score_PH.detach(), "amax")
        weight_PH = (score_PH - largest[owner]).exp()
        total = weight_PH.new_zeros(N + 1, weight_PH.shape[1]).index_add(0, owner, weight_PH)
        weight_PH = dropout(weight_PH / total[owner], drop_rate, True)
        found = v_PHK.new_zeros(N + 1, *v_PHK.shape[1:], dtype=torch.float32)
        found = found.index_add(0, owner, weight_PH[..., None] * v_PHK.float())[1:]
        mixed_PHK = mixed_PHK.index_copy(0, asking[there], found[there].to(mixed_PHK.dtype))
    return mixed_PHK


def _blocks_of(layout: Layout, pattern: Pattern) -> Blocks:
    """Made once a step and kept on the layout, like masks."""
    kept = layout.masks.get(pattern)
    if kept is None:
        with torch.inference_mode(False):
            kept = _make_blocks(layout, pattern)
        layout.masks[pattern] = kept
    assert isinstance(kept, Blocks)
    return kept


def _make_blocks(layout: Layout, pattern: Pattern) -> Blocks:
    size, step, P = pattern.grain, pattern.dilation, layout.positions
    device = layout.document.device
    # Sub-sequences: one a document, or for a dilated window one for each remainder of the position.
    remainder = torch.arange(step, device=device)
    lengths = ((layout.lengths[:, None] - remainder + step - 1) // step).clamp_min(0).reshape(-1)
    counts = (lengths + size - 1) // size
    first = torch.cumsum(counts, 0) - counts
    S = max(1, int(counts.sum()))
    sequence = layout.document * step + layout.position % step
    real = layout.document >= 0
    slot = torch.full((P,), S * size, device=device)
    slot[real] = first[sequence[real]] * size + layout.position[real] // step
    flat = torch.full((S * size + 1,), P, device=device)
    flat[slot] = torch.arange(P, device=device)
    flat = flat[:-1].view(S, size)

    owner = torch.repeat_interleave(torch.arange(len(counts), device=device), counts, output_size=int(counts.sum()))
    if not len(owner):  # no documents at all: one empty block
        owner, first, counts = owner.new_zeros(1), first.new_zeros(1), counts.new_ones(1)
        lengths = lengths.new_zeros(1)
    number = torch.arange(S, device=device) - first[owner]  # of a block in its sequence
    reach = 0 if pattern.name == "block" else -(-pattern.radius // size)
    wanted = [number + shift for shift in range(-reach, reach + 1)]
    document_length = torch.cat([layout.lengths, layout.lengths.new_ones(1)])[owner // step].clamp_min(1)
    drawn = [pattern.random_block(number, one, document_length) for one in range(pattern.random_blocks)]
    keys = torch.stack(wanted + drawn, dim=1)  # (S, R), numbers in the sequence
    there = (keys >= 0) & (keys < counts[owner][:, None])
    # A block that is drawn twice, or is a neighbour anyway, counts once.
    again = (keys[:, :, None] == keys[:, None, :]).tril(-1).any(-1)
    there &= ~again
    keys = torch.where(there, keys + first[owner][:, None], torch.arange(S, device=device)[:, None])

    position = torch.cat([layout.position, layout.position.new_full((1,), -1)])[flat]  # -1 in empty slots
    query = position[:, :, None]
    key = torch.where(there[:, :, None], position[keys], -1).flatten(1)[:, None, :]
    length = document_length[:, None, None]
    allowed = (key >= 0) & pattern.allows(query, key, length) & (pattern.global_tokens <= key)
    starts = torch.cat([layout.starts, layout.starts.new_zeros(1)])[owner // step]
    places = torch.arange(pattern.global_tokens, device=device)
    known = places < document_length[:, None]  # (S, g)
    globals_ = torch.where(known, starts[:, None] + places, P)
    allowed = torch.cat([allowed, known[:, None, :].expand(-1, size, -1)], dim=2)
    distance = torch.cat([key.expand(-1, size, -1), places.expand(S, size, -1)], dim=2) - query
    # An empty slot sees something, or its softmax would be NaN and spoil the gradient.
    allowed[:, :, 0] |= ~allowed.any(-1)
    bias = torch.zeros(allowed.shape, device=device).masked_fill_(~allowed, -torch.inf)[:, None]
    return Blocks(flat, slot, keys, globals_, bias, distance)
