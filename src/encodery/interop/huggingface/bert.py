"""Tables of the Hugging Face families with a learned table of positions: BERT and its kin."""

from __future__ import annotations

from dataclasses import replace

from encodery.errors import WeightsError
from encodery.interop.huggingface.lines import (
    ABSOLUTE,
    ACTIVATION,
    DROPOUT,
    EPSILON,
    FROM_PADDING,
    HEAD_ACTIVATION,
    HEAD_EPSILON,
    LENGTH,
    NO_DECODER,
    PLAIN,
    POST_NORM,
    SEGMENTS,
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
    Row,
    Size,
    Sizes,
    linear,
    weight,
)

EMBEDDINGS = (
    *weight("frontend.words", "embeddings.word_embeddings"),
    *weight("frontend.segments", "embeddings.token_type_embeddings"),
    *weight("encoder.positions.table", "embeddings.position_embeddings"),
)
_ATTENTION = linear(
    "encoder.blocks.*.attention.qkv",
    "encoder.layer.*.attention.self.query",
    "encoder.layer.*.attention.self.key",
    "encoder.layer.*.attention.self.value",
)
MATRICES = (
    *_ATTENTION,
    *linear("encoder.blocks.*.attention.outer", "encoder.layer.*.attention.output.dense"),
    *linear("encoder.blocks.*.mlp.inner", "encoder.layer.*.intermediate.dense"),
    *linear("encoder.blocks.*.mlp.outer", "encoder.layer.*.output.dense"),
)
_UNUSED = ("*pooler.*", "cls.seq_relationship.*", "classifier.*", "qa_outputs.*")
_COPIES = ("*position_ids", "*token_type_ids")

BERT = Family(
    name="bert",
    models=("BertModel", "BertForMaskedLM"),
    prefix=("bert.", ""),
    sizes=(*SIZES, SEGMENTS, LENGTH, EPSILON, ACTIVATION, *DROPOUT, ABSOLUTE, NO_DECODER),
    fixed=POST_NORM,
    rows=(
        *EMBEDDINGS,
        *linear("encoder.input_norm", "embeddings.LayerNorm"),
        *MATRICES,
        *linear("encoder.blocks.*.attention_norm", "encoder.layer.*.attention.output.LayerNorm"),
        *linear("encoder.blocks.*.mlp_norm", "encoder.layer.*.output.LayerNorm"),
    ),
    head_sizes=(HEAD_ACTIVATION, HEAD_EPSILON, TIED),
    head_rows=(
        *linear("readout.transform", "cls.predictions.transform.dense"),
        *linear("readout.norm", "cls.predictions.transform.LayerNorm"),
        *vocabulary_rows("cls.predictions.bias", "cls.predictions.decoder"),
    ),
    unused=_UNUSED,
    copies=(*_COPIES, "cls.predictions.decoder.*"),
)

LM_HEAD = (
    *linear("readout.transform", "lm_head.dense"),
    *linear("readout.norm", "lm_head.layer_norm"),
    *vocabulary_rows("lm_head.bias", "lm_head.decoder"),
)

ROBERTA = replace(
    BERT,
    name="roberta",
    models=("RobertaModel", "RobertaForMaskedLM"),
    prefix=("roberta.", ""),
    sizes=(*SIZES, SEGMENTS, FROM_PADDING, EPSILON, ACTIVATION, *DROPOUT, ABSOLUTE, NO_DECODER),
    head_sizes=(HEAD_EPSILON, TIED),
    head_fixed={"readout.activation": "gelu"},
    head_rows=LM_HEAD,
    copies=(*_COPIES, "lm_head.decoder.*"),
)
XLM_ROBERTA = replace(ROBERTA, name="xlm-roberta", models=("XLMRobertaModel", "XLMRobertaForMaskedLM"))
CAMEMBERT = replace(ROBERTA, name="camembert", models=("CamembertModel", "CamembertForMaskedLM"))

DISTILBERT = Family(
    name="distilbert",
    models=("DistilBertModel", "DistilBertForMaskedLM"),
    prefix=("distilbert.", ""),
    sizes=(
        VOCABULARY,
        Size("dim|hidden_size", "encoder.width"),
        Size("n_layers|num_hidden_layers", "encoder.depth"),
        Size("n_heads|num_attention_heads", "encoder.heads"),
        Size("hidden_dim", "encoder.mlp_width"),
        LENGTH,
        Size("activation", "encoder.activation", "gelu", PLAIN),
        Size("dropout", "encoder.drop_rate", 0.1),
        Size("attention_dropout", "encoder.attention_drop_rate", 0.1),
        # Sines are only what the table starts from: the file holds it all the same.
        Always("sinusoidal_pos_embds", False, False, "a table that is not learned"),
    ),
    fixed={**POST_NORM, "encoder.norm_epsilon": 1e-12, "frontend.segments": 0},
    rows=(
        *EMBEDDINGS,
        *linear("encoder.input_norm", "embeddings.LayerNorm"),
        *linear(
            "encoder.blocks.*.attention.qkv",
            "transformer.layer.*.attention.q_lin",
            "transformer.layer.*.attention.k_lin",
            "transformer.layer.*.attention.v_lin",
        ),
        *linear("encoder.blocks.*.attention.outer", "transformer.layer.*.attention.out_lin"),
        *linear("encoder.blocks.*.attention_norm", "transformer.layer.*.sa_layer_norm"),
        *linear("encoder.blocks.*.mlp.inner", "transformer.layer.*.ffn.lin1"),
        *linear("encoder.blocks.*.mlp.outer", "transformer.layer.*.ffn.lin2"),
        *linear("encoder.blocks.*.mlp_norm", "transformer.layer.*.output_layer_norm"),
    ),
    head_sizes=(Size("activation", "readout.activation", "gelu", PLAIN), TIED),
    head_fixed={"readout.norm_epsilon": 1e-12},
    head_rows=(
        *linear("readout.transform", "vocab_transform"),
        *linear("readout.norm", "vocab_layer_norm"),
        Row("readout.bias", ("vocab_projector.bias",)),
        Row("readout.words", ("vocab_projector.weight",)),
    ),
    unused=("pre_classifier.*", "classifier.*", "qa_outputs.*"),
    copies=(*_COPIES, "vocab_projector.weight"),
)


def _albert_widths(sizes: Sizes) -> Flat:
    found = _factorised(sizes)
    if found["frontend.width"] is None:
        raise WeightsError(
            f"embedding_size and hidden_size of config.json are {sizes['hidden_size']}: even then ALBERT widens",
            expected="embeddings of another width than the encoder's",
        )
    return found


def _factorised(sizes: Sizes) -> Flat:
    """The width of the embeddings, where it is not the encoder's."""
    width = sizes.get("embedding_size", 128)
    return {"frontend.width": None if width == sizes["hidden_size"] else width}


def _embedding_size(flat: Flat, ids: Ids) -> Sizes:
    return {"embedding_size": flat["frontend.width"]}


_ALBERT_BLOCK = "encoder.albert_layer_groups.*.albert_layers.0"

ALBERT = Family(
    name="albert",
    models=("AlbertModel", "AlbertForMaskedLM"),
    prefix=("albert.", ""),
    sizes=(
        *SIZES,
        SEGMENTS,
        LENGTH,
        EPSILON,
        Size("hidden_act", "encoder.activation", "gelu_new", PLAIN),
        Size("hidden_dropout_prob", "encoder.drop_rate", 0.0),
        Size("attention_probs_dropout_prob", "encoder.attention_drop_rate", 0.0),
        Size("num_hidden_groups", "encoder.distinct_blocks", 1),
        Computed(_albert_widths, _embedding_size),
        Always("inner_group_num", 1, 1, "groups of several blocks that repeat together are not built here"),
        ABSOLUTE,
    ),
    fixed=POST_NORM,
    rows=(
        *EMBEDDINGS,
        *linear("encoder.input_norm", "embeddings.LayerNorm"),
        *linear("encoder.widen", "encoder.embedding_hidden_mapping_in"),
        *(
            Row(
                row.ours,
                tuple(name.replace("@", _ALBERT_BLOCK) for name in row.theirs),
            )
            for row in (
                *linear("encoder.blocks.*.attention.qkv", "@.attention.query", "@.attention.key", "@.attention.value"),
                *linear("encoder.blocks.*.attention.outer", "@.attention.dense"),
                *linear("encoder.blocks.*.attention_norm", "@.attention.LayerNorm"),
                *linear("encoder.blocks.*.mlp.inner", "@.ffn"),
                *linear("encoder.blocks.*.mlp.outer", "@.ffn_output"),
                *linear("encoder.blocks.*.mlp_norm", "@.full_layer_layer_norm"),
            )
        ),
    ),
    head_sizes=(Size("hidden_act", "readout.activation", "gelu_new", PLAIN), HEAD_EPSILON, TIED),
    head_rows=(
        *linear("readout.transform", "predictions.dense"),
        *linear("readout.norm", "predictions.LayerNorm"),
        *vocabulary_rows("predictions.bias", "predictions.decoder"),
    ),
    unused=("*pooler.*", "sop_classifier.*", "classifier.*", "qa_outputs.*"),
    copies=(*_COPIES, "predictions.decoder.*"),
)

ELECTRA = replace(
    BERT,
    name="electra",
    models=("ElectraModel", "ElectraForMaskedLM"),
    prefix=("electra.", ""),
    sizes=(*BERT.sizes, Computed(_factorised, _embedding_size)),
    rows=(*BERT.rows, *linear("encoder.widen", "embeddings_project")),
    head_sizes=(HEAD_EPSILON, TIED),
    head_fixed={"readout.activation": "gelu"},
    head_rows=(
        *linear("readout.transform", "generator_predictions.dense"),
        *linear("readout.norm", "generator_predictions.LayerNorm"),
        Row("readout.bias", ("generator_lm_head.bias",)),
        Row("readout.words", ("generator_lm_head.weight",)),
    ),
    unused=("discriminator_predictions.*", "classifier.*", "qa_outputs.*"),
    copies=(*_COPIES, "generator_lm_head.weight"),
)
