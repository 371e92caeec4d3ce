"""Tables of the Hugging Face families with norms before the branches: kin of BERT, EuroBERT, Persimmon and ESM."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from encodery.interop.huggingface.bert import (
    BERT,
    EMBEDDINGS,
    MATRICES,
    ROBERTA,
)
from encodery.interop.huggingface.lines import (
    ATTENTION_BIAS,
    DROPOUT,
    EPSILON,
    GATED,
    HEAD_EPSILON,
    LINEAR_BIAS,
    MLP_BIAS,
    NO_DECODER,
    PLAIN,
    PRE_NORM,
    SIZES,
    TIED,
    counted_from_padding,
    or_zero,
    rotary,
    without,
)
from encodery.interop.huggingface.meaning import Flat
from encodery.interop.huggingface.tables import (
    Always,
    Computed,
    Family,
    Ids,
    Row,
    Size,
    Sizes,
    linear,
    taken,
    weight,
)

# -- BERT's kin

ROBERTA_PRELAYERNORM = replace(
    ROBERTA,
    name="roberta-prelayernorm",
    models=("RobertaPreLayerNormModel", "RobertaPreLayerNormForMaskedLM"),
    prefix=("roberta_prelayernorm.", ""),
    fixed={**PRE_NORM, "encoder.positions": "learned"},
    rows=(
        *EMBEDDINGS,
        *linear("encoder.input_norm", "embeddings.LayerNorm"),
        *MATRICES,
        *linear("encoder.blocks.*.attention_norm", "encoder.layer.*.attention.LayerNorm"),
        *linear("encoder.blocks.*.mlp_norm", "encoder.layer.*.intermediate.LayerNorm"),
        *linear("encoder.output_norm", "LayerNorm"),
    ),
)

MEGATRON_BERT = replace(
    BERT,
    name="megatron-bert",
    models=("MegatronBertModel", "MegatronBertForMaskedLM"),
    fixed={**PRE_NORM, "encoder.positions": "learned", "encoder.input_norm": False},
    rows=(
        *EMBEDDINGS,
        *MATRICES,
        *linear("encoder.blocks.*.attention_norm", "encoder.layer.*.attention.ln"),
        *linear("encoder.blocks.*.mlp_norm", "encoder.layer.*.ln"),
        *linear("encoder.output_norm", "encoder.ln"),
    ),
)

# -- EuroBERT (Boizard et al. 2025) ------------------------------------------------------------------


def _euro_bias(sizes: Sizes) -> Flat:
    return {"encoder.bias": LINEAR_BIAS(sizes)}


def _euro_bias_written(flat: Flat, ids: Ids) -> Sizes:
    named = {"bos_token_id": ids.get("cls"), "eos_token_id": ids["sep"]}
    named |= {"mask_token_id": ids["mask"]} if "mask" in ids else {}
    return {"attention_bias": flat["encoder.bias"], "mlp_bias": flat["encoder.bias"], **named}


EUROBERT = Family(
    name="eurobert",
    # Its masked-word head is a matrix alone, ours has a layer and a norm before it: only the body goes both ways.
    models=("EuroBertModel", None),
    prefix=("", "model."),
    sizes=(
        *SIZES,
        Size("num_key_value_heads", "encoder.kv_heads", None),
        Size("head_dim", "encoder.head_width", None),
        Size("max_position_embeddings", "encoder.max_length", 8192),
        Size("rms_norm_eps", "encoder.norm_epsilon", 1e-5),
        Size("hidden_act", "encoder.activation", "silu", GATED),
        Size("attention_dropout", "encoder.attention_drop_rate", 0.0),
        Computed(_euro_bias, _euro_bias_written),
        *rotary(10000.0),
    ),
    fixed={
        "encoder.norm": "rmsnorm",
        "encoder.norm_place": "pre",
        "encoder.positions": "rotary",
        "encoder.input_norm": False,
        "frontend.segments": 0,
    },
    rows=(
        *weight("frontend.words", "embed_tokens"),
        *weight(
            "encoder.blocks.*.attention.qkv",
            "layers.*.self_attn.q_proj",
            "layers.*.self_attn.k_proj",
            "layers.*.self_attn.v_proj",
        ),
        Row(
            "encoder.blocks.*.attention.qkv.bias",
            tuple(f"layers.*.self_attn.{part}_proj.bias" for part in "qkv"),
            when=ATTENTION_BIAS,
        ),
        Row("encoder.blocks.*.attention.qkv.bias", (), when=without(ATTENTION_BIAS)),
        *weight("encoder.blocks.*.attention.outer", "layers.*.self_attn.o_proj"),
        *or_zero("encoder.blocks.*.attention.outer", "layers.*.self_attn.o_proj", ATTENTION_BIAS),
        *weight("encoder.blocks.*.attention_norm", "layers.*.input_layernorm"),
        *weight("encoder.blocks.*.mlp.inner", "layers.*.mlp.gate_proj", "layers.*.mlp.up_proj"),
        Row(
            "encoder.blocks.*.mlp.inner.bias",
            ("layers.*.mlp.gate_proj.bias", "layers.*.mlp.up_proj.bias"),
            when=MLP_BIAS,
        ),
        Row("encoder.blocks.*.mlp.inner.bias", (), when=without(MLP_BIAS)),
        *weight("encoder.blocks.*.mlp.outer", "layers.*.mlp.down_proj"),
        *or_zero("encoder.blocks.*.mlp.outer", "layers.*.mlp.down_proj", MLP_BIAS),
        *weight("encoder.blocks.*.mlp_norm", "layers.*.post_attention_layernorm"),
        *weight("encoder.output_norm", "norm"),
    ),
    unused=("lm_head.*", "classifier.*", "score.*", "dense.*"),
    copies=("*inv_freq",),
)

# -- Persimmon (Adept 2023): made to write, and with `is_causal: false` an encoder that norms its queries and keys --


def _persimmon_tokens(flat: Flat, ids: Ids) -> Sizes:
    return {"bos_token_id": ids.get("cls"), "eos_token_id": ids["sep"], "use_cache": False}


PERSIMMON = Family(
    name="persimmon",
    models=("PersimmonModel", None),
    prefix=("", "model."),
    sizes=(
        *SIZES,
        # Versions of transformers before 5 do not know this switch, and would let a token see only those before it.
        Always("is_causal", False, True, "a decoder sees only what stands before, an encoder everything"),
        Size("hidden_act", "encoder.activation", "relu2", PLAIN),
        Size("layer_norm_eps", "encoder.norm_epsilon", 1e-5),
        Size("max_position_embeddings", "encoder.max_length", 16384),
        Size("hidden_dropout", "encoder.drop_rate", 0.0),
        Size("attention_dropout", "encoder.attention_drop_rate", 0.0),
        Size("qk_layernorm", "encoder.qk_norm", True),
        Size("rope_parameters.partial_rotary_factor|partial_rotary_factor", "encoder.rotary_share", 0.5),
        *rotary(10000.0),
        Computed(lambda sizes: {}, _persimmon_tokens),
    ),
    fixed={**PRE_NORM, "encoder.positions": "rotary", "encoder.input_norm": False, "frontend.segments": 0},
    rows=(
        *weight("frontend.words", "embed_tokens"),
        *(
            Row(f"encoder.blocks.*.attention.qkv.{part}", (f"layers.*.self_attn.query_key_value.{part}",), by_head=True)
            for part in ("weight", "bias")
        ),
        *linear("encoder.blocks.*.attention.query_norm", "layers.*.self_attn.q_layernorm"),
        *linear("encoder.blocks.*.attention.key_norm", "layers.*.self_attn.k_layernorm"),
        *linear("encoder.blocks.*.attention.outer", "layers.*.self_attn.dense"),
        *linear("encoder.blocks.*.attention_norm", "layers.*.input_layernorm"),
        *linear("encoder.blocks.*.mlp.inner", "layers.*.mlp.dense_h_to_4h"),
        *linear("encoder.blocks.*.mlp.outer", "layers.*.mlp.dense_4h_to_h"),
        *linear("encoder.blocks.*.mlp_norm", "layers.*.post_attention_layernorm"),
        *linear("encoder.output_norm", "final_layernorm"),
    ),
    unused=("lm_head.*", "score.*", "classifier.*"),
    copies=("*inv_freq",),
)

# -- ESM (Lin et al. 2023): made for proteins, and the one family with norms before, rotary positions and biases --


def _esm_positions(sizes: Sizes) -> Flat:
    if sizes.get("position_embedding_type", "absolute") == "rotary":
        return {
            "encoder.positions": "rotary",
            "encoder.max_length": taken(sizes, "max_position_embeddings", 1026),
            "encoder.rotary_base": taken(sizes, "rope_theta", 10000.0),
        }
    return {"encoder.positions": "learned", **counted_from_padding(sizes)}


def _esm_positions_written(flat: Flat, ids: Ids) -> Sizes:
    found: Sizes = {"mask_token_id": ids.get("mask"), "eos_token_id": ids["sep"], "bos_token_id": ids.get("cls")}
    if flat["encoder.positions"] == "rotary":
        return {
            **found,
            "position_embedding_type": "rotary",
            "max_position_embeddings": flat["encoder.max_length"],
            "rope_theta": flat["encoder.rotary_base"],
        }
    rows = flat["encoder.max_length"] + flat["encoder.position_start"]
    return {**found, "position_embedding_type": "absolute", "max_position_embeddings": rows}


def _esm_angles(sizes: Sizes) -> dict[str, Tensor]:
    """Versions of transformers before 5 keep the speeds of the angles in the file, one set a block."""
    if sizes["position_embedding_type"] != "rotary":
        return {}
    width = sizes["hidden_size"] // sizes["num_attention_heads"]
    speeds = 1.0 / (sizes["rope_theta"] ** (torch.arange(0, width, 2, dtype=torch.float32) / width))
    name = "encoder.layer.{}.attention.self.rotary_embeddings.inv_freq"
    return {name.format(block): speeds.clone() for block in range(sizes["num_hidden_layers"])}


ESM = Family(
    name="esm",
    models=("EsmModel", "EsmForMaskedLM"),
    prefix=("esm.", ""),
    sizes=(
        *SIZES,
        Computed(_esm_positions, _esm_positions_written),
        EPSILON,
        *DROPOUT,
        Size("emb_layer_norm_before", "encoder.input_norm", False),
        Always("token_dropout", False, False, "embeddings that are scaled by the share of masked words"),
        Always("is_folding_model", False, False, "a model that folds proteins"),
        NO_DECODER,
    ),
    fixed={**PRE_NORM, "encoder.activation": "gelu", "frontend.segments": 0},
    rows=(
        *weight("frontend.words", "embeddings.word_embeddings"),
        *weight("encoder.positions.table", "embeddings.position_embeddings"),
        *linear("encoder.input_norm", "embeddings.layer_norm"),
        *linear(
            "encoder.blocks.*.attention.qkv",
            "encoder.layer.*.attention.self.query",
            "encoder.layer.*.attention.self.key",
            "encoder.layer.*.attention.self.value",
        ),
        *linear("encoder.blocks.*.attention.outer", "encoder.layer.*.attention.output.dense"),
        *linear("encoder.blocks.*.attention_norm", "encoder.layer.*.attention.LayerNorm"),
        *linear("encoder.blocks.*.mlp.inner", "encoder.layer.*.intermediate.dense"),
        *linear("encoder.blocks.*.mlp.outer", "encoder.layer.*.output.dense"),
        *linear("encoder.blocks.*.mlp_norm", "encoder.layer.*.LayerNorm"),
        *linear("encoder.output_norm", "encoder.emb_layer_norm_after"),
    ),
    head_sizes=(HEAD_EPSILON, TIED),
    head_fixed={"readout.activation": "gelu"},
    head_rows=(
        *linear("readout.transform", "lm_head.dense"),
        *linear("readout.norm", "lm_head.layer_norm"),
        Row("readout.bias", ("lm_head.bias",)),
        Row("readout.words", ("lm_head.decoder.weight",)),
    ),
    unused=("*pooler.*", "*contact_head.*", "classifier.*"),
    copies=("lm_head.decoder.*", "*inv_freq", "*position_ids", "*position_embeddings.weight"),
    more=_esm_angles,
)
