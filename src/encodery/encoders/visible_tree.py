"""Who may look at whom where triples are written behind a text: the visible matrix (K-BERT, Liu et al. 2020)."""

from __future__ import annotations

from torch import Tensor

from encodery.batch import Layout
from encodery.encoders.options import TransformerConfig
from encodery.errors import ConfigError

SOFT_POSITIONS = ("none", "sinusoidal", "learned", "random", "rotary")
"""Kinds of positions that read where a token stands from the layout. The others measure distances in memory."""


def visible_pairs(layout: Layout, where: slice | None = None) -> Tensor:
    """True where a query may look at a key: (B, T, T) bool, or with `where` (1, n, n) for these flat positions alone.

    The words of the text see each other; a branch sees itself and the words that it belongs to, and these see it
    (section 3.4, equation 3, where positions "in the same branch" are these). Documents are not told apart here.
    """
    assert layout.branch is not None and layout.mention is not None, "no triples are written into this layout"
    shape = (layout.rows, layout.length) if where is None else (1, -1)
    wanted = slice(None) if where is None else where
    branch, mention = layout.branch[wanted].view(shape), layout.mention[wanted].view(shape)
    same_branch = branch[:, :, None] == branch[:, None, :]
    trunk = branch == 0
    one_is_trunk = trunk[:, :, None] | trunk[:, None, :]
    same_mention = (mention[:, :, None] == mention[:, None, :]) & (mention > 0)[:, :, None]
    return same_branch | (same_mention & one_is_trunk)


def check_reads_trees(encoder: object) -> None:
    """Raise ConfigError when an encoder of this config cannot read triples behind a text."""
    if not isinstance(encoder, TransformerConfig):
        kind = getattr(encoder, "kind", type(encoder).__name__)
        raise ConfigError(
            f"an encoder of the kind {kind} cannot tell triples that are written behind a text from the text",
            expected="encoder.kind: transformer",
            fix="use a transformer, or leave data.knowledge.inject out",
        )
    wrong = {
        "pattern": (encoder.pattern, encoder.pattern == "full", "full"),
        "positions": (encoder.positions, encoder.positions in SOFT_POSITIONS, f"one of {', '.join(SOFT_POSITIONS)}"),
        "mlp_kernel": (encoder.mlp_kernel, encoder.mlp_kernel == 1, "1"),
        "halve_after": (encoder.halve_after, not encoder.halve_after, "none"),
    }
    for name, (given, right, expected) in wrong.items():
        if not right:
            raise ConfigError(
                f"encoder.{name} {given} goes by where tokens lie in memory, where triples lie behind their text",
                expected=f"encoder.{name}: {expected}, where data.knowledge.inject is used",
            )
