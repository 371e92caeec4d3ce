"""Tables of the Hugging Face families with rotary positions: ModernBERT, NomicBERT, GTE and Jina."""

from __future__ import annotations

from encodery.errors import WeightsError
from encodery.interop.huggingface.bert import LM_HEAD
from encodery.interop.huggingface.lines import (
    ACTIVATION,
    ATTENTION_BIAS,
    DROPOUT,
    EPSILON,
    GATED,
    HEAD_BIAS,
    HEAD_EPSILON,
    LENGTH,
    LINEAR_BIAS,
    MLP_BIAS,
    NORM_BIAS,
    PLAIN,
    SEGMENTS,
    SIZES,
    TIED,
    or_zero,
    rotary,
    says,
    vocabulary_rows,
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

# -- ModernBERT (Warner et al. 2024) -----------------------------------------------------------------


def _modern_attention(sizes: Sizes) -> Flat:
    """Which blocks look at the whole document, and the two bases of their angles."""
    every = sizes.get("global_attn_every_n_layers", 3)
    depth = sizes["num_hidden_layers"]
    kinds = sizes.get("layer_types") or ["sliding" if block % every else "full" for block in range(depth)]
    far = [str(kind).startswith("full") for kind in kinds]
    found: Flat = {
        "encoder.rotary_base": taken(sizes, "rope_parameters.full_attention.rope_theta|global_rope_theta", 160000.0),
    }
    if all(far):
        return found
    steps = [n for n in range(1, depth + 1) if far == [block % n == 0 for block in range(depth)]]
    if any(far) and not steps:
        raise WeightsError(
            f"layer_types of config.json: {', '.join(map(str, kinds))}",
            expected="each n-th block, from the first on, looks at the whole text, or none does",
        )
    near = taken(sizes, "rope_parameters.sliding_attention.rope_theta|local_rope_theta", 10000.0)
    window = {"encoder.pattern": "window", "encoder.window": sizes.get("local_attention", 128) // 2}
    return found | window | {"encoder.global_every": steps[0] if any(far) else 0, "encoder.rotary_base_local": near}


def _modern_layers(flat: Flat, ids: Ids) -> Sizes:
    every, full = flat["encoder.global_every"], flat["encoder.pattern"] == "full"
    far = [full or bool(every and block % every == 0) for block in range(flat["encoder.depth"])]
    bases = {"full_attention": flat["encoder.rotary_base"], "sliding_attention": flat["encoder.rotary_base_local"]}
    return {
        "layer_types": ["full_attention" if one else "sliding_attention" for one in far],
        "local_attention": 2 * flat["encoder.window"],
        "rope_parameters": {kind: {"rope_type": "default", "rope_theta": base} for kind, base in bases.items()},
        # What versions of transformers before 5 read.
        "global_attn_every_n_layers": 1 if full else every or 1 + flat["encoder.depth"],
        "global_rope_theta": bases["full_attention"],
        "local_rope_theta": bases["sliding_attention"],
        "cls_token_id": ids.get("cls"),
        "sep_token_id": ids["sep"],
        "bos_token_id": ids.get("cls"),
        "eos_token_id": ids["sep"],
    }


def _modern_biases(sizes: Sizes) -> Flat:
    return {"encoder.bias": LINEAR_BIAS(sizes), "encoder.norm_bias": NORM_BIAS(sizes)}


def _modern_biases_written(flat: Flat, ids: Ids) -> Sizes:
    bias = flat["encoder.bias"]
    return {"attention_bias": bias, "mlp_bias": bias, "norm_bias": flat["encoder.norm_bias"]}


def _modern_head(sizes: Sizes) -> Flat:
    return {"readout.bias": says("classifier_bias", "norm_bias")(sizes)}


def _modern_head_written(flat: Flat, ids: Ids) -> Sizes:
    return {"classifier_bias": flat["readout.bias"], "decoder_bias": True}


def _decoder_bias(sizes: Sizes) -> bool:
    return bool(sizes.get("decoder_bias", True))


MODERNBERT = Family(
    name="modernbert",
    models=("ModernBertModel", "ModernBertForMaskedLM"),
    prefix=("model.", ""),
    sizes=(
        *SIZES,
        LENGTH,
        Size("norm_eps", "encoder.norm_epsilon", 1e-5),
        Size("hidden_activation", "encoder.activation", "gelu", GATED),
        Size("mlp_dropout", "encoder.drop_rate", 0.0),
        Size("attention_dropout", "encoder.attention_drop_rate", 0.0),
        Computed(_modern_attention, _modern_layers),
        Computed(_modern_biases, _modern_biases_written),
        Always("rope_parameters.full_attention.rope_type", "default", "default", "other angles are not built here"),
        Always("rope_parameters.sliding_attention.rope_type", "default", "default", "other angles are not built here"),
    ),
    fixed={
        "encoder.norm_place": "pre",
        "encoder.positions": "rotary",
        "encoder.first_norm": False,
        "frontend.segments": 0,
    },
    rows=(
        *weight("frontend.words", "embeddings.tok_embeddings"),
        *linear("encoder.input_norm", "embeddings.norm"),
        *weight("encoder.blocks.*.attention.qkv", "layers.*.attn.Wqkv"),
        *or_zero("encoder.blocks.*.attention.qkv", "layers.*.attn.Wqkv", ATTENTION_BIAS),
        *weight("encoder.blocks.*.attention.outer", "layers.*.attn.Wo"),
        *or_zero("encoder.blocks.*.attention.outer", "layers.*.attn.Wo", ATTENTION_BIAS),
        *linear("encoder.blocks.*.attention_norm", "layers.*.attn_norm"),
        *weight("encoder.blocks.*.mlp.inner", "layers.*.mlp.Wi"),
        *or_zero("encoder.blocks.*.mlp.inner", "layers.*.mlp.Wi", MLP_BIAS),
        *weight("encoder.blocks.*.mlp.outer", "layers.*.mlp.Wo"),
        *or_zero("encoder.blocks.*.mlp.outer", "layers.*.mlp.Wo", MLP_BIAS),
        *linear("encoder.blocks.*.mlp_norm", "layers.*.mlp_norm"),
        *linear("encoder.output_norm", "final_norm"),
    ),
    head_sizes=(
        Size("classifier_activation", "readout.activation", "gelu", PLAIN),
        Size("norm_eps", "readout.norm_epsilon", 1e-5),
        TIED,
        Computed(_modern_head, _modern_head_written),
    ),
    head_rows=(
        *weight("readout.transform", "head.dense"),
        *or_zero("readout.transform", "head.dense", HEAD_BIAS),
        *weight("readout.norm", "head.norm"),
        *or_zero("readout.norm", "head.norm", NORM_BIAS),
        Row("readout.bias", ("decoder.bias",), when=_decoder_bias),
        Row("readout.bias", (), when=without(_decoder_bias)),
        Row("readout.words", ("decoder.weight",)),
    ),
    unused=("classifier.*", "head.*"),
    copies=("decoder.weight", "*inv_freq"),
)

# -- NomicBERT (Nussbaum et al. 2024) ----------------------------------------------------------------

NOMIC_BERT = Family(
    name="nomic_bert",
    models=("NomicBertModel", "NomicBertForMaskedLM"),
    prefix=("nomic_bert.", "bert.", ""),
    sizes=(
        SIZES[0],
        # The second names are those of the files from before transformers knew the family.
        Size("hidden_size|n_embd", "encoder.width"),
        Size("num_hidden_layers|n_layer", "encoder.depth"),
        Size("num_attention_heads|n_head", "encoder.heads"),
        Size("intermediate_size|n_inner", "encoder.mlp_width"),
        Size("head_dim", "encoder.head_width", None),
        SEGMENTS,
        Size("max_position_embeddings|n_positions", "encoder.max_length", 2048),
        Size("layer_norm_eps|layer_norm_epsilon", "encoder.norm_epsilon", 1e-12),
        Size("hidden_act|activation_function", "encoder.activation", "silu", {**GATED, "swiglu": "swiglu"}),
        Size("hidden_dropout_prob|resid_pdrop", "encoder.drop_rate", 0.0),
        Size("attention_probs_dropout_prob|attn_pdrop", "encoder.attention_drop_rate", 0.0),
        *rotary(1000.0),
    ),
    fixed={
        "encoder.norm_place": "post",
        "encoder.positions": "rotary",
        "encoder.bias": False,
        "encoder.norm_bias": True,
    },
    rows=(
        *weight("frontend.words", "embeddings.word_embeddings"),
        *weight("frontend.segments", "embeddings.token_type_embeddings"),
        *linear("encoder.input_norm", "emb_ln"),
        *weight("encoder.blocks.*.attention.qkv", "encoder.layers.*.attn.Wqkv"),
        *weight("encoder.blocks.*.attention.outer", "encoder.layers.*.attn.out_proj"),
        *linear("encoder.blocks.*.attention_norm", "encoder.layers.*.norm1"),
        *weight("encoder.blocks.*.mlp.inner", "encoder.layers.*.mlp.fc12", "encoder.layers.*.mlp.fc11"),
        *weight("encoder.blocks.*.mlp.outer", "encoder.layers.*.mlp.fc2"),
        *linear("encoder.blocks.*.mlp_norm", "encoder.layers.*.norm2"),
    ),
    head_sizes=(
        Size("hidden_act|activation_function", "readout.activation", "silu", {**PLAIN, "swiglu": "silu"}),
        Size("layer_norm_eps|layer_norm_epsilon", "readout.norm_epsilon", 1e-12),
        TIED,
    ),
    head_rows=(
        *linear("readout.transform", "cls.predictions.transform.dense"),
        *linear("readout.norm", "cls.predictions.transform.layer_norm"),
        *vocabulary_rows("cls.predictions.bias", "cls.predictions.decoder"),
    ),
    unused=("*pooler.*", "classifier.*"),
    copies=("cls.predictions.decoder.*", "*inv_freq", "*position_ids"),
)

# -- GTE (Zhang et al. 2024) and Jina v3 (Sturua et al. 2024) ----------------------------------------

GTE = Family(
    name="gte",
    models=("GteModel", "GteForMaskedLM"),
    prefix=("gte.", "new.", ""),
    sizes=(
        *SIZES,
        Size("type_vocab_size", "frontend.segments", 1),
        Size("max_position_embeddings", "encoder.max_length", 8192),
        EPSILON,
        Size("hidden_act", "encoder.activation", "gelu", GATED),
        Size("hidden_dropout_prob", "encoder.drop_rate", 0.1),
        Size("attention_probs_dropout_prob", "encoder.attention_drop_rate", 0.0),
        *rotary(160000.0),
    ),
    fixed={"encoder.norm_place": "post", "encoder.positions": "rotary", "encoder.bias": True},
    rows=(
        *weight("frontend.words", "embeddings.word_embeddings"),
        *weight("frontend.segments", "embeddings.token_type_embeddings"),
        *linear("encoder.input_norm", "embeddings.LayerNorm"),
        *linear("encoder.blocks.*.attention.qkv", "encoder.layer.*.attention.qkv_proj"),
        *linear("encoder.blocks.*.attention.outer", "encoder.layer.*.attention.o_proj"),
        *linear("encoder.blocks.*.attention_norm", "encoder.layer.*.attn_ln"),
        # Their first half is what is gated, ours what gates it; and only the second layer has a bias.
        Row("encoder.blocks.*.mlp.inner.weight", ("encoder.layer.*.mlp.up_gate_proj.weight",), swapped=True),
        Row("encoder.blocks.*.mlp.inner.bias", ()),
        *linear("encoder.blocks.*.mlp.outer", "encoder.layer.*.mlp.down_proj"),
        *linear("encoder.blocks.*.mlp_norm", "encoder.layer.*.mlp_ln"),
    ),
    head_sizes=(HEAD_EPSILON, TIED),
    head_fixed={"readout.activation": "gelu"},
    head_rows=(
        *linear("readout.transform", "lm_head.dense"),
        *linear("readout.norm", "lm_head.norm|lm_head.layer_norm"),
        Row("readout.bias", ("lm_head.decoder.bias",)),
        Row("readout.words", ("lm_head.decoder.weight",)),
    ),
    unused=("*pooler.*", "classifier.*"),
    copies=("lm_head.decoder.weight", "*inv_freq", "*position_ids"),
)

JINA = Family(
    name="jina_embeddings_v3",
    models=("JinaEmbeddingsV3Model", "JinaEmbeddingsV3ForMaskedLM"),
    prefix=("roberta.", ""),
    sizes=(
        *SIZES,
        Size("type_vocab_size", "frontend.segments", 1),
        Size("max_position_embeddings", "encoder.max_length", 8194),
        Size("layer_norm_eps", "encoder.norm_epsilon", 1e-5),
        ACTIVATION,
        *DROPOUT,
        *rotary(20000.0),
    ),
    fixed={"encoder.norm_place": "post", "encoder.positions": "rotary", "encoder.bias": True},
    rows=(
        *weight("frontend.words", "embeddings.word_embeddings"),
        *weight("frontend.segments", "embeddings.token_type_embeddings"),
        *linear("encoder.input_norm", "emb_ln"),
        *linear("encoder.blocks.*.attention.qkv", "encoder.layers.*.mixer.Wqkv"),
        *linear("encoder.blocks.*.attention.outer", "encoder.layers.*.mixer.out_proj"),
        *linear("encoder.blocks.*.attention_norm", "encoder.layers.*.norm1"),
        *linear("encoder.blocks.*.mlp.inner", "encoder.layers.*.mlp.fc1"),
        *linear("encoder.blocks.*.mlp.outer", "encoder.layers.*.mlp.fc2"),
        *linear("encoder.blocks.*.mlp_norm", "encoder.layers.*.norm2"),
    ),
    head_sizes=(Size("layer_norm_eps", "readout.norm_epsilon", 1e-5), TIED),
    head_fixed={"readout.activation": "gelu"},
    head_rows=LM_HEAD,
    unused=("*pooler.*", "classifier.*"),
    copies=("lm_head.decoder.*", "*inv_freq", "*position_ids"),
)
