"""Config files of Hugging Face families as they are published, and those that ask for what is not built here."""

from __future__ import annotations

from typing import Any

import pytest

from encodery.errors import WeightsError
from encodery.interop.huggingface import FAMILIES
from encodery.interop.huggingface.meaning import flattened, meaning
from encodery.interop.huggingface.tables import differences, read_config, taken, write_config

IDS = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
BERT = {
    "vocab_size": 100,
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 96,
}
DEBERTA = {**BERT, "relative_attention": True, "position_biased_input": False, "pos_att_type": "p2c|c2p"}
T5 = {"vocab_size": 100, "d_model": 64, "d_kv": 8, "num_layers": 2, "num_heads": 4, "d_ff": 96}

# Abridged from the config files of published models.
WILD: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (
        "modernbert",
        {
            **BERT,
            "global_attn_every_n_layers": 3,
            "global_rope_theta": 160000.0,
            "local_rope_theta": 10000.0,
            "local_attention": 128,
            "hidden_activation": "gelu",
            "max_position_embeddings": 8192,
            "layer_norm_eps": 1e-05,
            "position_embedding_type": "absolute",
        },
        {
            "pattern": "window",
            "window": 64,
            "global_every": 3,
            "rotary_base": 160000.0,
            "rotary_base_local": 10000.0,
            "max_length": 8192,
            "bias": False,
            "norm_bias": False,
            "activation": "geglu",
        },
    ),
    (
        "nomic_bert",
        {
            "activation_function": "swiglu",
            "n_embd": 64,
            "n_head": 4,
            "n_inner": 96,
            "n_layer": 4,
            "n_positions": 2048,
            "layer_norm_epsilon": 1e-12,
            "rotary_emb_base": 1000,
            "resid_pdrop": 0.0,
            "type_vocab_size": 2,
            "vocab_size": 100,
        },
        {"rotary_base": 1000.0, "activation": "swiglu", "mlp_width": 96, "norm_place": "post", "max_length": 2048},
    ),
    (
        "deberta-v2",
        {
            **DEBERTA,
            "max_position_embeddings": 512,
            "max_relative_positions": -1,
            "position_buckets": 256,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "type_vocab_size": 0,
            "layer_norm_eps": 1e-7,
        },
        {"relative_buckets": 256, "relative_reach": 512, "distance_norm": True, "share_position_keys": True},
    ),
    (
        "roberta",
        {**BERT, "max_position_embeddings": 514, "pad_token_id": 1, "type_vocab_size": 1, "layer_norm_eps": 1e-5},
        {"position_start": 2, "max_length": 512, "norm_epsilon": 1e-5},
    ),
    (
        "t5",
        {**T5, "n_positions": 512, "relative_attention_num_buckets": 32},
        {"activation": "relu", "relative_reach": 128},
    ),
    ("bert", BERT, {"norm_epsilon": 1e-12, "drop_rate": 0.1, "max_length": 512, "positions": "learned"}),
    ("gte", {**BERT, "rope_theta": 20000.0, "max_position_embeddings": 8192}, {"rotary_base": 20000.0}),
]


@pytest.mark.parametrize(("family", "sizes", "wanted"), WILD, ids=[name for name, _, _ in WILD])
def test_published_config_files_are_understood(family: str, sizes: dict[str, Any], wanted: dict[str, Any]) -> None:
    config = read_config(FAMILIES[family], sizes, head=False)
    found = flattened(config)
    assert {name: found[f"encoder.{name}"] for name in wanted} == wanted
    assert differences(FAMILIES[family], config, {**IDS, "pad": sizes.get("pad_token_id", 0)}) == {}


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("deberta-v2", {**DEBERTA, "conv_kernel_size": 3}, r"conv_kernel_size .* is 3: a convolution beside"),
    ("deberta-v2", {**DEBERTA, "position_biased_input": True}, r"position_biased_input .* a table of positions beside"),
    ("deberta-v2", {**DEBERTA, "relative_attention": False}, r"relative_attention .* a BERT under another name"),
    ("deberta-v2", {**DEBERTA, "pos_att_type": "p2p"}, r"pos_att_type of config\.json is 'p2p'[\s\S]*c2p, p2c or both"),
    ("deberta-v2", {**DEBERTA, "pos_att_type": None}, r"pos_att_type"),
    ("deberta-v2", {**DEBERTA, "position_buckets": 600}, r"position_buckets .* 600, max_relative_positions 512"),
    ("deberta-v2", {**DEBERTA, "embedding_size": 32}, r"embedding_size .* is 32: its embeddings are widened before"),
    ("albert", {**BERT, "inner_group_num": 2, "embedding_size": 16}, r"inner_group_num .* is 2"),
    ("albert", {**BERT, "embedding_size": 64}, r"even then ALBERT widens"),
    ("distilbert", {"vocab_size": 9, "dim": 8, "n_layers": 1}, r"no 'n_heads'"),
    ("esm", {**BERT, "token_dropout": True}, r"token_dropout .* scaled by the share of masked words"),
    ("t5", {**T5, "feed_forward_proj": "gated-tanh"}, r"feed_forward_proj .* 'gated-tanh'[\s\S]*gated-gelu"),
    (
        "modernbert",
        {**BERT, "layer_types": ["sliding", "full", "sliding", "full"]},
        r"layer_types[\s\S]*each n-th block",
    ),
    ("modernbert", {**BERT, "layer_types": ["full", "full", "sliding", "full"]}, r"layer_types[\s\S]*each n-th block"),
    ("gte", {**BERT, "rope_scaling": {"type": "ntk", "factor": 8.0}}, r"stretched rotary angles"),
    ("eurobert", {**BERT, "rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, r"stretched rotary angles"),
]


@pytest.mark.parametrize(("family", "sizes", "message"), REFUSED)
def test_what_is_not_built_here_is_refused_with_the_reason(family: str, sizes: dict[str, Any], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        read_config(FAMILIES[family], sizes, head=False)


def test_a_family_goes_back_to_its_own_config_with_a_head_too() -> None:
    for family in FAMILIES.values():
        distil = {"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 96}
        narrow = 64 if family.name == "deberta-v2" else 32
        sizes = {**T5, **BERT, **DEBERTA, **distil, "norm_rel_ebd": "layer_norm", "embedding_size": narrow}
        sizes |= {"is_causal": False, "hidden_act": "gelu"}  # Persimmon's defaults are those of a decoder.
        for head in (False, True) if family.models[1] else (False,):
            config = read_config(family, sizes, head=head)
            pad = max(0, config.encoder.position_start - 1)
            written = write_config(family, config, {**IDS, "pad": pad})
            assert meaning(read_config(family, written, head=head)) == meaning(config), family.name


def test_a_value_may_lie_in_several_places() -> None:
    assert taken({"a": {"b": 3}}, "x|a.b") == 3
    assert taken({"a": None}, "a|b", 7) == 7
    assert taken({"a": None}, "a", None) is None
    with pytest.raises(KeyError, match="a"):
        taken({"a": None}, "a|b")
