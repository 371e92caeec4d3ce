"""Tables of the Hugging Face families whose positions are distances: DeBERTa-v2 and v3, and the encoder of T5."""

from __future__ import annotations

from dataclasses import replace

from encodery.errors import WeightsError
from encodery.interop.huggingface.lines import (
    ACTIVATION,
    DROPOUT,
    HEAD_ACTIVATION,
    SIZES,
    TIED,
    VOCABULARY,
    vocabulary_rows,
)
from encodery.interop.huggingface.meaning import Flat
from encodery.interop.huggingface.tables import (
    Always,
    Computed,
    Family,
    Ids,
    Size,
    Sizes,
    linear,
    taken,
    weight,
)

# -- DeBERTa (He et al. 2021, 2023) ------------------------------------------------------------------

_TERMS = {"c2p": "content_position", "p2c": "position_content"}


def _deberta_distances(sizes: Sizes) -> Flat:
    given = sizes.get("pos_att_type") or []
    terms = [term.strip() for term in given.lower().split("|")] if isinstance(given, str) else list(given)
    if not terms or not set(terms) <= set(_TERMS):
        raise WeightsError(f"pos_att_type of config.json is {given!r}", expected="c2p, p2c or both")
    reach = taken(sizes, "max_relative_positions", -1)
    if reach < 1:
        reach = taken(sizes, "max_position_embeddings", 512)
    buckets = taken(sizes, "position_buckets", -1)
    if buckets > 0 and buckets >= reach:
        raise WeightsError(
            f"position_buckets of config.json is {buckets}, max_relative_positions {reach}",
            expected="fewer buckets than distances, or position_buckets: -1",
        )
    return {
        "encoder.disentangled": tuple(ours for name, ours in _TERMS.items() if name in terms),
        "encoder.relative_buckets": buckets if buckets > 0 else reach,
        "encoder.relative_reach": reach,
        "encoder.distance_norm": "layer_norm" in str(sizes.get("norm_rel_ebd", "none")).lower().split("|"),
        "encoder.max_length": taken(sizes, "max_position_embeddings", 512),
    }


def _deberta_distances_written(flat: Flat, ids: Ids) -> Sizes:
    buckets, reach = flat["encoder.relative_buckets"], flat["encoder.relative_reach"]
    terms = flat["encoder.disentangled"]
    return {
        "pos_att_type": [name for name, ours in _TERMS.items() if ours in terms],
        "max_relative_positions": reach if buckets < reach else buckets,
        "position_buckets": buckets if buckets < reach else -1,
        "norm_rel_ebd": "layer_norm" if flat["encoder.distance_norm"] else "none",
        "max_position_embeddings": flat["encoder.max_length"],
        "legacy": True,
        "bos_token_id": ids.get("cls"),
        "eos_token_id": ids.get("sep"),
    }


_BLOCK = "encoder.layer.*.attention.self"

DEBERTA_V2 = Family(
    name="deberta-v2",
    models=("DebertaV2Model", "DebertaV2ForMaskedLM"),
    prefix=("deberta.", ""),
    sizes=(
        *SIZES,
        Size("type_vocab_size", "frontend.segments", 0),
        ACTIVATION,
        Size("layer_norm_eps", "encoder.norm_epsilon", 1e-7),
        *DROPOUT,
        Size("share_att_key", "encoder.share_position_keys", False),
        Computed(_deberta_distances, _deberta_distances_written),
        Always("relative_attention", True, False, "without distances this is a BERT under another name"),
        Always("position_biased_input", False, True, "a table of positions beside the distances is not built here"),
        Always("conv_kernel_size", 0, 0, "a convolution beside the first block (DeBERTa-v2 xlarge) is not built here"),
        Computed(lambda sizes: _as_wide(sizes), lambda flat, ids: {}),
    ),
    fixed={"encoder.norm_place": "post", "encoder.positions": "disentangled", "encoder.bias": True},
    rows=(
        *weight("frontend.words", "embeddings.word_embeddings"),
        *weight("frontend.segments", "embeddings.token_type_embeddings"),
        *linear("encoder.input_norm", "embeddings.LayerNorm"),
        *weight("encoder.distances.table", "encoder.rel_embeddings"),
        *linear("encoder.distances.norm", "encoder.LayerNorm"),
        *linear("encoder.blocks.*.attention.qkv", f"{_BLOCK}.query_proj", f"{_BLOCK}.key_proj", f"{_BLOCK}.value_proj"),
        *linear("encoder.blocks.*.attention.position_keys", f"{_BLOCK}.pos_key_proj"),
        *linear("encoder.blocks.*.attention.position_queries", f"{_BLOCK}.pos_query_proj"),
        *linear("encoder.blocks.*.attention.outer", "encoder.layer.*.attention.output.dense"),
        *linear("encoder.blocks.*.attention_norm", "encoder.layer.*.attention.output.LayerNorm"),
        *linear("encoder.blocks.*.mlp.inner", "encoder.layer.*.intermediate.dense"),
        *linear("encoder.blocks.*.mlp.outer", "encoder.layer.*.output.dense"),
        *linear("encoder.blocks.*.mlp_norm", "encoder.layer.*.output.LayerNorm"),
    ),
    head_sizes=(HEAD_ACTIVATION, Size("layer_norm_eps", "readout.norm_epsilon", 1e-7), TIED),
    # The second names are those of DeBERTa-v3's files and of `legacy: false`.
    head_rows=(
        *linear("readout.transform", "cls.predictions.transform.dense|lm_predictions.lm_head.dense"),
        *linear("readout.norm", "cls.predictions.transform.LayerNorm|lm_predictions.lm_head.LayerNorm"),
        *vocabulary_rows("cls.predictions.bias|lm_predictions.lm_head.bias", "cls.predictions.decoder"),
    ),
    unused=("*pooler.*", "classifier.*", "qa_outputs.*", "mask_predictions.*"),
    copies=("cls.predictions.decoder.*", "*position_ids"),
)


def _as_wide(sizes: Sizes) -> Flat:
    width = sizes.get("embedding_size", sizes["hidden_size"])
    if width != sizes["hidden_size"]:
        raise WeightsError(
            f"embedding_size of config.json is {width}: its embeddings are widened before their norm, ours behind it",
            expected=f"that of the encoder, {sizes['hidden_size']}",
        )
    return {}


# -- T5 (Raffel et al. 2020; version 1.1: Shazeer 2020) ----------------------------------------------

_FEED_FORWARD = {
    "relu": "relu",
    "gated-gelu": "geglu_tanh",  # T5's gelu is the approximation
    "gated-silu": "swiglu",
    "gated-gelu_python": "geglu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "silu": "silu",
}


def _gated(sizes: Sizes) -> bool:
    return str(sizes.get("feed_forward_proj", "relu")).startswith("gated")


T5 = Family(
    name="t5",
    models=("T5EncoderModel", None),
    prefix=("",),
    sizes=(
        VOCABULARY,
        Size("d_model", "encoder.width"),
        Size("num_layers", "encoder.depth"),
        Size("num_heads", "encoder.heads"),
        Size("d_kv", "encoder.head_width"),
        Size("d_ff", "encoder.mlp_width"),
        Size("n_positions", "encoder.max_length", 512),
        Size("layer_norm_epsilon", "encoder.norm_epsilon", 1e-6),
        Size("relative_attention_num_buckets", "encoder.relative_buckets", 32),
        Size("relative_attention_max_distance", "encoder.relative_reach", 128),
        Size("feed_forward_proj", "encoder.activation", "relu", _FEED_FORWARD),
        Size("dropout_rate", "encoder.drop_rate", 0.1),
        Computed(lambda sizes: {}, lambda flat, ids: {"is_encoder_decoder": False, "eos_token_id": ids["sep"]}),
    ),
    fixed={
        "encoder.norm": "rmsnorm",
        "encoder.norm_place": "pre",
        "encoder.bias": False,
        "encoder.positions": "relative",
        "encoder.score_scale": False,
        "encoder.input_norm": False,
        "frontend.segments": 0,
    },
    rows=(
        *weight("frontend.words", "shared|encoder.embed_tokens"),
        *weight("encoder.distance_bias.table", "encoder.block.0.layer.0.SelfAttention.relative_attention_bias"),
        *weight("encoder.blocks.*.attention.qkv", *(f"encoder.block.*.layer.0.SelfAttention.{part}" for part in "qkv")),
        *weight("encoder.blocks.*.attention.outer", "encoder.block.*.layer.0.SelfAttention.o"),
        *weight("encoder.blocks.*.attention_norm", "encoder.block.*.layer.0.layer_norm"),
        *weight(
            "encoder.blocks.*.mlp.inner", "encoder.block.*.layer.1.DenseReluDense.wi", when=lambda s: not _gated(s)
        ),
        *weight(
            "encoder.blocks.*.mlp.inner",
            "encoder.block.*.layer.1.DenseReluDense.wi_0",
            "encoder.block.*.layer.1.DenseReluDense.wi_1",
            when=_gated,
        ),
        *weight("encoder.blocks.*.mlp.outer", "encoder.block.*.layer.1.DenseReluDense.wo"),
        *weight("encoder.blocks.*.mlp_norm", "encoder.block.*.layer.1.layer_norm"),
        *weight("encoder.output_norm", "encoder.final_layer_norm"),
    ),
    unused=("decoder.*", "lm_head.*", "classification_head.*"),
    copies=("encoder.embed_tokens.weight", "decoder.embed_tokens.weight"),
)
MT5 = replace(T5, name="mt5", models=("MT5EncoderModel", None))
