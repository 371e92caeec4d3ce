"""Local patterns in linear time give the numbers and gradients of the whole score matrix, and cost less."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from encodery.batch import Layout, layout_of
from encodery.bricks.relative import Alibi, OnceBias, RelativeBuckets
from encodery.encoders import kernels
from encodery.encoders.patterns import Pattern, allowed_pairs

LAYOUTS = {
    "short rows": layout_of([[20, 30, 14], [64], [5], []], 64),
    "one row": layout_of([[100, 3, 1, 150]], 256),
    "a long document": layout_of([[700, 200], [1000]], 1024),
    "nothing": layout_of([[], []], 64),
}
PATTERNS = [
    Pattern("dilated", radius=3, dilation=2),
    Pattern("dilated", radius=17, dilation=5, global_tokens=1),
    Pattern("block", block=8),
    Pattern("block", block=16, global_tokens=3),
    Pattern("random", radius=3, block=8, random_blocks=2),
    Pattern("random", radius=20, block=8, random_blocks=3, global_tokens=2),
    Pattern("window", radius=5, global_tokens=4),
]


def named(pattern: Pattern) -> str:
    return f"{pattern.name}-{pattern.radius}-{pattern.block}-{pattern.global_tokens}"


@pytest.mark.parametrize("bias", ["none", "alibi", "relative"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize("pattern", PATTERNS, ids=named)
def test_blocks_give_the_plain_numbers_and_gradients(pattern: Pattern, layout: Layout, bias: str) -> None:
    generator = torch.Generator().manual_seed(1)
    qkv = torch.randn(layout.positions, 3, 2, 8, generator=generator)
    real = (layout.document >= 0)[:, None]
    seen = torch.randn(layout.positions, 16, generator=generator) * real
    table = RelativeBuckets(2, 8, 40)
    found = []
    for kernel in (kernels.attend_sparsely, kernels.attend_plainly):
        given = qkv.clone().requires_grad_()
        distance = None if bias == "none" else OnceBias(Alibi(2) if bias == "alibi" else table)
        mixed = kernel(given, kernels.Meeting(replace(layout, masks={}), pattern, distance_bias=distance))
        wanted = [given, table.table.weight] if bias == "relative" and layout.documents else [given]
        found.append((mixed * real, *torch.autograd.grad((mixed * seen).sum(), wanted)))
    for one, other in zip(*found):
        torch.testing.assert_close(one, other, atol=2e-4, rtol=2e-5)


@pytest.mark.parametrize("kernel", ["attend_rows", "attend_documents", "attend_fused", "attend_windows"])
@pytest.mark.parametrize("pattern", [Pattern(), Pattern("causal"), Pattern("window", 3)], ids=named)
@pytest.mark.parametrize("kind", ["alibi", "relative"])
def test_every_kernel_adds_what_distances_are_worth(
    kernel: str, pattern: Pattern, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kernel == "attend_windows" and not pattern.local:
        pytest.skip("the other patterns are no windows")
    monkeypatch.setattr(kernels, "SCORES_UP_TO", 500)
    layout = LAYOUTS["a long document"]
    generator = torch.Generator().manual_seed(1)
    qkv = torch.randn(layout.positions, 3, 2, 8, generator=generator)
    real = (layout.document >= 0)[:, None]
    seen = torch.randn(layout.positions, 16, generator=generator) * real
    table = RelativeBuckets(2, 8, 40)
    found = []
    for name in (kernel, "attend_plainly"):
        given = qkv.clone().requires_grad_()
        distance = OnceBias(Alibi(2) if kind == "alibi" else table)
        mixed = getattr(kernels, name)(
            given, kernels.Meeting(replace(layout, masks={}), pattern, distance_bias=distance)
        )
        wanted = [given] if kind == "alibi" else [given, table.table.weight]
        found.append((mixed * real, *torch.autograd.grad((mixed * seen).sum(), wanted)))
    for one, other in zip(*found):
        torch.testing.assert_close(one, other, atol=2e-4, rtol=2e-4)


def naive(pattern: Pattern, query: int, key: int, length: int) -> bool:
    """The rule of a pattern in plain integers."""
    if query < pattern.global_tokens or key < pattern.global_tokens:
        return True
    if pattern.name == "block":
        return query // pattern.block == key // pattern.block
    if pattern.name == "dilated":
        steps, rest = divmod(abs(key - query), pattern.dilation)
        return rest == 0 and steps <= pattern.radius
    near = abs(key - query) <= pattern.radius
    drawn = [
        int(pattern.random_block(torch.tensor(query // pattern.block), number, length))
        for number in range(pattern.random_blocks)
    ]
    return near or (pattern.name == "random" and key // pattern.block in drawn)


@pytest.mark.parametrize("pattern", PATTERNS, ids=named)
def test_a_pattern_is_its_rule_inside_each_document(pattern: Pattern) -> None:
    layout = layout_of([[23, 40], [9]], 64)
    allowed = allowed_pairs(layout, pattern).numpy()
    expected = np.zeros_like(allowed)
    for start, length in zip(layout.starts.tolist(), layout.lengths.tolist()):
        row, begin = divmod(start, 64)
        for query in range(length):
            for key in range(length):
                expected[row, begin + query, begin + key] = naive(pattern, query, key, length)
    real = (layout.document >= 0).view(2, 64).numpy()
    assert np.array_equal(allowed & real[:, :, None], expected)


def test_random_blocks_are_spread_over_the_document() -> None:
    pattern = Pattern("random", radius=1, block=8, random_blocks=2)
    drawn = torch.stack([pattern.random_block(torch.arange(64), number, 512) for number in range(2)])
    assert drawn.min() >= 0 and drawn.max() < 64
    assert len(drawn.unique()) > 40 and not torch.equal(drawn[0], drawn[1])


@pytest.mark.parametrize("pattern", PATTERNS, ids=named)
def test_a_local_pattern_holds_memory_in_proportion_to_the_length(pattern: Pattern) -> None:
    """Scores of blocks, not of all pairs: four times the length makes four times the numbers."""
    sizes = []
    for length in (1024, 4096):
        layout = layout_of([[length]], length)
        qkv = torch.randn(length, 3, 1, 4)
        kernels.attend_sparsely(qkv, kernels.Meeting(layout, pattern))
        sizes.append(layout.masks[pattern].bias.numel())
    assert sizes[1] <= 4.2 * sizes[0] and sizes[1] < 4096 * 4096 / 8
