"""Lines of config.json and rows of weights that several Hugging Face families share."""

from __future__ import annotations

from collections.abc import Callable

from encodery.interop.huggingface.meaning import Flat
from encodery.interop.huggingface.tables import Always, Computed, Ids, Line, Row, Size, Sizes, taken

# The first of those that mean the same is the one that is written.
PLAIN = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
}
GATED = {
    "gelu": "geglu",
    "gelu_python": "geglu",
    "silu": "swiglu",
    "swish": "swiglu",
    "gelu_new": "geglu_tanh",
    "gelu_pytorch_tanh": "geglu_tanh",
    "gelu_fast": "geglu_tanh",
}

VOCABULARY = Size("vocab_size", "frontend.vocab_size")
SEGMENTS = Computed(
    lambda sizes: {"frontend.segments": taken(sizes, "type_vocab_size", 2)},
    # A table without rows would leave the segment 0, which every text has, without a vector.
    lambda flat, ids: {"type_vocab_size": max(1, flat["frontend.segments"])},
)
SIZES: tuple[Line, ...] = (
    VOCABULARY,
    Size("hidden_size", "encoder.width"),
    Size("num_hidden_layers", "encoder.depth"),
    Size("num_attention_heads", "encoder.heads"),
    Size("intermediate_size", "encoder.mlp_width"),
)
DROPOUT: tuple[Line, ...] = (
    Size("hidden_dropout_prob", "encoder.drop_rate", 0.1),
    Size("attention_probs_dropout_prob", "encoder.attention_drop_rate", 0.1),
)
ACTIVATION = Size("hidden_act", "encoder.activation", "gelu", PLAIN)
HEAD_ACTIVATION = Size("hidden_act", "readout.activation", "gelu", PLAIN)
EPSILON = Size("layer_norm_eps", "encoder.norm_epsilon", 1e-12)
HEAD_EPSILON = Size("layer_norm_eps", "readout.norm_epsilon", 1e-12)
TIED = Size("tie_word_embeddings", "readout.tied", True)
LENGTH = Size("max_position_embeddings", "encoder.max_length", 512)
ABSOLUTE = Always("position_embedding_type", "absolute", "absolute", "only a learned table of positions is read")
NO_DECODER = Always("is_decoder", False, False, "a decoder sees only what stands before, an encoder everything")


def counted_from_padding(sizes: Sizes) -> Flat:
    """RoBERTa's table of positions: the first token has the number behind that of the padding token."""
    start = taken(sizes, "pad_token_id", 1) + 1
    return {
        "encoder.position_start": start,
        "encoder.max_length": taken(sizes, "max_position_embeddings", 512) - start,
    }


def rows_of_positions(flat: Flat, ids: Ids) -> Sizes:
    """How many rows the table has."""
    return {"max_position_embeddings": flat["encoder.max_length"] + flat["encoder.position_start"]}


FROM_PADDING = Computed(counted_from_padding, rows_of_positions)
"""The length of a table of positions that counts as RoBERTa's does."""


def rotary(base: float) -> tuple[Line, ...]:
    """Rotary positions, with the base that is meant where config.json says none."""
    return (
        Size("rope_parameters.rope_theta|rope_theta|rotary_emb_base", "encoder.rotary_base", base),
        Always(
            "rope_parameters.rope_type|rope_scaling.rope_type|rope_scaling.type",
            "default",
            "default",
            "stretched rotary angles of this kind are not built here",
        ),
    )


POST_NORM: Flat = {"encoder.norm_place": "post", "encoder.positions": "learned", "encoder.bias": True}
"""BERT's kind of block."""
PRE_NORM: Flat = {"encoder.norm_place": "pre", "encoder.bias": True}


def says(*names: str) -> Callable[[Sizes], bool]:
    """Whether config.json sets one of these to true."""
    return lambda sizes: any(bool(sizes.get(name, False)) for name in names)


def without(condition: Callable[[Sizes], bool]) -> Callable[[Sizes], bool]:
    """The opposite."""
    return lambda sizes: not condition(sizes)


def or_zero(ours: str, theirs: str, when: Callable[[Sizes], bool]) -> tuple[Row, ...]:
    """A bias that config.json can switch off, for a layer that always has one here."""
    return (Row(f"{ours}.bias", (f"{theirs}.bias",), when=when), Row(f"{ours}.bias", (), when=without(when)))


LINEAR_BIAS, NORM_BIAS = says("attention_bias", "mlp_bias"), says("norm_bias")
ATTENTION_BIAS, MLP_BIAS, HEAD_BIAS = says("attention_bias"), says("mlp_bias"), says("classifier_bias")


def is_tied(sizes: Sizes) -> bool:
    """Whether the output matrix is that of the embeddings."""
    return bool(taken(sizes, "tie_word_embeddings", True))


def vocabulary_rows(bias: str, decoder: str) -> tuple[Row, ...]:
    """What stands behind the head's norm: a bias, and a matrix where it is not that of the embeddings.

    The bias is there twice, alone and in `decoder`: one value while the matrix is tied, and else the second counts.
    """
    return (
        Row("readout.bias", (f"{bias}|{decoder}.bias",), when=is_tied),
        Row("readout.bias", (f"{decoder}.bias|{bias}",), when=without(is_tied)),
        Row("readout.words", (f"{decoder}.weight",)),
    )
