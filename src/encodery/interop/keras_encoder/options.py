"""What the Keras encoder can be: the config of a model folder, read without torch, and what it refuses by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from encodery.config import Config, problems_of
from encodery.encoders.options import TransformerConfig
from encodery.errors import WeightsError
from encodery.frontends.options import TextConfig
from encodery.heads.options import ReadoutConfig

KNOWN: dict[str, frozenset[str]] = {
    "frontend": frozenset(
        {"kind", "vocab_size", "embedding", "width", "segments", "start", "embedding_std", "vectors"}
    ),
    "encoder": frozenset(
        {
            *("kind", "preset", "width", "depth", "max_length"),
            *("heads", "head_width", "value_width", "kv_heads", "score", "score_scale", "qk_norm"),
            *("pattern", "window", "dilation", "block", "random_blocks", "global_tokens", "global_every"),
            *("mlp_width", "activation", "mlp_kernel", "experts", "experts_per_token"),
            *("norm", "norm_place", "norm_epsilon", "norm_bias", "input_norm", "first_norm"),
            *("residual_scale", "layer_scale", "bias"),
            *("positions", "rotary_base", "rotary_base_local", "rotary_stretch", "rotary_share"),
            *("relative_buckets", "relative_reach", "disentangled", "share_position_keys", "distance_norm"),
            *("position_start", "position_shift", "distinct_blocks", "halve_after"),
            *("drop_rate", "attention_drop_rate", "depth_drop_rate"),
        }
    ),
    "readout": frozenset(
        {
            *("kind", "tied", "activation", "bias", "norm_epsilon"),
            *("pooling", "outputs", "hidden", "drop_rate", "ngram_buckets", "letters", "sides"),
            *("dense", "normalise"),
        }
    ),
}
"""The options that this encoder follows, section by section. One that is not here must keep its default."""

_NO_TABLE = "vectors are read from a learned table; `TextFrontend.as_table` makes one of what this model has"
REFUSED: dict[str, str] = {
    "frontend.embedding=hashed": _NO_TABLE,
    "frontend.embedding=characters": _NO_TABLE,
    "encoder.positions=grid": "rows and columns are of pictures, and the input here is text",
    "encoder.positions=rotary_grid": "rows and columns are of pictures, and the input here is text",
    "encoder.fusion": "which words name entities is known where `data.knowledge` is read",
    "readout.kind=tokens": "vectors of tokens are compared where two texts are at hand (late interaction)",
    "readout.first_dense": "the encoder is not told which text of a row it reads",
    "readout.scale": "a learned temperature is for learning alone, and is left out of what a run keeps",
    "readout.kind=links": "links between entities are scored where `data.knowledge` is read",
    "readout.ngrams": "part of such an answer comes from hashed runs of tokens, not from the encoder",
}
"""What is refused, and why: an option with any value but its default, or with this one."""


READOUTS = ("word", "document", "vector")
"""The kinds of readouts that are here."""
KINDS = {
    "frontend": ("text", "what comes in is text"),
    "encoder": ("transformer", "only the Transformer is written in Keras"),
}
"""The one kind of a section that is here, and why no other is."""


class KerasModelConfig(Config):
    """`ModelConfig` without torch: a text frontend, a Transformer, and a readout or none (the vectors themselves)."""

    frontend: TextConfig = TextConfig()
    encoder: TransformerConfig = TransformerConfig()
    readout: ReadoutConfig | None = None


def read_config(given: Mapping[str, Any] | KerasModelConfig) -> KerasModelConfig:
    """Check a config: the section `model` of config.json, or one that was made by hand.

    Raises WeightsError that names the option which this encoder does not have, and why.
    """
    config = given if isinstance(given, KerasModelConfig) else _validated(given)
    if config.readout is not None and (kind := config.readout.kind) not in READOUTS:
        here = f"only those of the kinds {', '.join(READOUTS)} are written in Keras"
        raise refusal("readout.kind", kind, REFUSED.get(f"readout.kind={kind}", here))
    for section, names in KNOWN.items():
        part = getattr(config, section)
        for name, field in type(part).model_fields.items() if part is not None else ():
            value, usual = getattr(part, name), field.get_default(call_default_factory=True)
            key = f"{section}.{name}"
            reason = REFUSED.get(f"{key}={value}") or (value != usual and REFUSED.get(key))
            if not reason and name not in names and value != usual:
                reason = "it is newer than this encoder"
            if reason:
                raise refusal(key, value, reason)
    vectors = config.frontend.vectors
    if vectors is not None and not vectors.tune:
        raise refusal("frontend.vectors.tune", False, _NO_TABLE)
    if config.frontend.vocab_size is None:
        raise WeightsError("frontend.vocab_size is not given", fix="name it: the number of tokens of the tokenizer")
    return config


def refusal(key: str, value: object, reason: str) -> WeightsError:
    """The error for an option that is not here."""
    own = "; or open it with readout=False, to give it labels of its own" if key.startswith("readout.") else ""
    return WeightsError(
        f"{key} is {value!r}: the Keras encoder does not have it, since {reason}",
        fix=f"use this model with torch (encodery.load), or train one without that option{own}",
    )


def _validated(given: Mapping[str, Any]) -> KerasModelConfig:
    for section, (only, reason) in KINDS.items():
        part = given.get(section)
        kind = part.get("kind", only) if isinstance(part, Mapping) else only
        if kind != only:
            raise refusal(f"{section}.kind", kind, reason)
    try:
        return KerasModelConfig.model_validate(dict(given))
    except ValidationError as error:
        problems = "\n  ".join(str(problem) for problem in problems_of(error, KerasModelConfig))
        raise WeightsError(f"this does not describe a model of this version\n  {problems}") from None
