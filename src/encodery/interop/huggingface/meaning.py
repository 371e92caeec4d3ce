"""What of a model's config decides its answers: every value by its dotted name, without those that change nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from encodery.encoders.options import TURNING, TransformerConfig
from encodery.model import ModelConfig, VisionModelConfig

Flat = dict[str, Any]
"""Our config with a dotted key for every value: `encoder.width`."""


def flattened(config: ModelConfig | VisionModelConfig) -> Flat:
    """Every value of a config by its dotted name; what is a default of another value is written out."""
    found: Flat = {}
    for part in ("frontend", "encoder", "readout"):
        values = getattr(config, part).model_dump()
        found |= {f"{part}.{key}": value for key, value in values.items()}
    encoder = config.encoder
    if isinstance(encoder, TransformerConfig):
        found |= {
            "encoder.head_width": encoder.key_width,
            "encoder.value_width": encoder.value_width or encoder.key_width,
            "encoder.kv_heads": encoder.kv_heads or encoder.heads,
            "encoder.mlp_width": encoder.inner_width,
            "encoder.norm_bias": encoder.biased_norms,
            "encoder.rotary_base_local": encoder.rotary_base_local or encoder.rotary_base,
            "encoder.distinct_blocks": encoder.blocks,
        }
    if isinstance(config, ModelConfig):
        found["frontend.width"] = config.frontend.width or encoder.width
    return found


# Values that change nothing of what a trained model says.
_LEARNING = (
    "frontend.start",
    "frontend.embedding_std",
    "encoder.preset",
    "encoder.drop_rate",
    "encoder.attention_drop_rate",
    "encoder.depth_drop_rate",
    "encoder.position_shift",
    "encoder.max_length",  # the tables say it where there are some
)
_TABLES = ("learned", "random", "sinusoidal")


def meaning(config: ModelConfig | VisionModelConfig) -> Flat:
    """What of a config decides the answers of a trained model."""
    flat = flattened(config)
    dropped = set(_LEARNING)
    if flat["readout.kind"] != "word":
        dropped |= {name for name in flat if name.startswith("readout.")}
    encoder = config.encoder
    if isinstance(encoder, TransformerConfig):
        dropped |= {f"encoder.{name}" for name in _without_effect(encoder)}
    return {name: value for name, value in flat.items() if name not in dropped}


def _without_effect(encoder: TransformerConfig) -> Iterator[str]:
    local = {"window": ("window", "dilated", "random"), "dilation": ("dilated",), "block": ("block", "random")}
    local |= {"random_blocks": ("random",)}
    yield from (name for name, patterns in local.items() if encoder.pattern not in patterns)
    if encoder.pattern in ("full", "causal"):
        yield from ("global_tokens", "global_every")
    if not any(encoder.looks_far(block) for block in range(encoder.depth)) or encoder.pattern in ("full", "causal"):
        yield "rotary_base_local" if encoder.pattern in ("full", "causal") else "rotary_base"
    if encoder.positions not in TURNING:
        yield from ("rotary_base", "rotary_base_local", "rotary_stretch", "rotary_share")
    if encoder.positions not in ("relative", "disentangled"):
        yield from ("relative_buckets", "relative_reach")
    if encoder.positions != "disentangled":
        yield from ("disentangled", "share_position_keys", "distance_norm")
    if encoder.positions not in _TABLES:
        yield "position_start"
    if not encoder.experts:
        yield "experts_per_token"
    if encoder.norm_place == "post" or not encoder.depth:
        yield "first_norm"
    if encoder.norm == "rmsnorm":
        yield "norm_bias"
