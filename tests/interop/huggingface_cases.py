"""Small models of transformers with random weights, one for each family and option, with tokenizers as theirs are."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers as hf
import torch
from tokenizers import pre_tokenizers, processors

from conftest import batch_of
from encodery.batch import Batch
from encodery.trained import Trained

transformers = pytest.importorskip("transformers")

WORDS = [
    *["the", "a", "dog", "cat", "sat", "ran", "on", "under", "mat", "tree", "red", "blue"],
    *["s", "ly", "quick", "over", "lazy", "brown", "fox", "house", "river"],
]
TEXTS = [
    "the dog sat on the mat",
    "a red cat",
    "cat ran quick under the blue tree and the dog sat over a lazy brown fox on the river house under the mat",
    "mat",
    "the fox the fox the fox the fox the dog",
]
SMALL = {
    "vocab_size": 32,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
}
T5_SMALL = {"vocab_size": 40, "d_model": 32, "d_kv": 6, "num_layers": 3, "num_heads": 4, "d_ff": 48}
DEBERTA = {"relative_attention": True, "position_biased_input": False, "pos_att_type": "p2c|c2p"}
DISTIL = {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 48}
IDS = {"bos_token_id": 2, "eos_token_id": 3}
TURNED_IN_PART = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
PERSIMMON = {"is_causal": False, "hidden_act": "gelu", **IDS}


@dataclass(frozen=True)
class Case:
    """`family` with the config class, the class that is made, and the keys of its config that differ."""

    family: str
    config: str
    model: str
    changes: dict[str, Any] = field(default_factory=dict)
    sizes: dict[str, Any] = field(default_factory=lambda: SMALL)
    specials: str = "bert"
    spread: float = 0.12

    def __str__(self) -> str:
        values = (f"{key}={value}" for key, value in self.changes.items() if key not in {**DEBERTA, **IDS, **DISTIL})
        return "-".join([self.model, *values]).replace("[", "").replace("]", "").replace(" ", "").replace("'", "")


def _masked(family: str, name: str, specials: str = "bert", **changes: Any) -> Case:
    return Case(family, f"{name}Config", f"{name}ForMaskedLM", changes, specials=specials)


CASES = [
    _masked("bert", "Bert"),
    _masked("bert", "Bert", hidden_act="gelu_new", layer_norm_eps=1e-5, tie_word_embeddings=False),
    Case("bert", "BertConfig", "BertModel", {"type_vocab_size": 3}),
    _masked("roberta", "Roberta", "roberta", pad_token_id=1, type_vocab_size=1),
    _masked("xlm-roberta", "XLMRoberta", "roberta", pad_token_id=1, hidden_act="relu"),
    _masked("camembert", "Camembert", "roberta", pad_token_id=1),
    _masked("distilbert", "DistilBert", activation="relu", **DISTIL),
    _masked("albert", "Albert", embedding_size=16),
    _masked("albert", "Albert", embedding_size=16, num_hidden_layers=4, num_hidden_groups=2, hidden_act="gelu"),
    _masked("electra", "Electra", embedding_size=16),
    Case("electra", "ElectraConfig", "ElectraForPreTraining", {"embedding_size": 32}),
    _masked("deberta-v2", "DebertaV2", **DEBERTA, norm_rel_ebd="layer_norm", share_att_key=True, position_buckets=8),
    _masked("deberta-v2", "DebertaV2", **DEBERTA, legacy=False, norm_rel_ebd="layer_norm", position_buckets=6),
    _masked("deberta-v2", "DebertaV2", **DEBERTA, type_vocab_size=2, max_relative_positions=7),
    _masked("deberta-v2", "DebertaV2", **{**DEBERTA, "pos_att_type": ["c2p"]}, hidden_act="gelu_new"),
    _masked("modernbert", "ModernBert", local_attention=6, **IDS),
    _masked(
        "modernbert",
        "ModernBert",
        num_hidden_layers=4,
        local_attention=9,
        attention_bias=True,
        norm_bias=True,
        layer_types=["sliding_attention"] * 4,
        hidden_activation="silu",
        classifier_activation="relu",
        **IDS,
    ),
    _masked("modernbert", "ModernBert", mlp_bias=True, classifier_bias=True, layer_types=["full_attention"] * 3, **IDS),
    _masked("modernbert", "ModernBert", decoder_bias=False, tie_word_embeddings=False, **IDS),
    _masked("nomic_bert", "NomicBert"),
    _masked("gte", "Gte"),
    _masked("gte", "Gte", type_vocab_size=0, hidden_act="silu"),
    _masked("jina_embeddings_v3", "JinaEmbeddingsV3", "roberta", pad_token_id=1),
    Case("eurobert", "EuroBertConfig", "EuroBertModel", {**IDS, "mask_token_id": 4, "num_key_value_heads": 2}),
    Case("eurobert", "EuroBertConfig", "EuroBertForMaskedLM", {**IDS, "mask_token_id": 4, "attention_bias": True}),
    Case("persimmon", "PersimmonConfig", "PersimmonModel", {**PERSIMMON, "rope_parameters": TURNED_IN_PART}),
    Case("persimmon", "PersimmonConfig", "PersimmonForCausalLM", {**PERSIMMON, "qk_layernorm": False}),
    Case("t5", "T5Config", "T5EncoderModel", sizes=T5_SMALL, specials="t5", spread=0.04),
    Case("t5", "T5Config", "T5EncoderModel", {"feed_forward_proj": "gated-gelu"}, T5_SMALL, "t5", 0.04),
    Case("t5", "T5Config", "T5ForConditionalGeneration", {"relative_attention_num_buckets": 8}, T5_SMALL, "t5", 0.04),
    Case("mt5", "MT5Config", "MT5EncoderModel", {"feed_forward_proj": "gated-silu"}, T5_SMALL, "t5", 0.04),
    _masked("esm", "Esm", position_embedding_type="rotary", emb_layer_norm_before=True, mask_token_id=4),
    _masked("esm", "Esm", position_embedding_type="absolute", tie_word_embeddings=False, mask_token_id=4),
    _masked("roberta-prelayernorm", "RobertaPreLayerNorm", "roberta", pad_token_id=1),
    _masked("megatron-bert", "MegatronBert"),
    _masked("roberta", "Roberta", "roberta", pad_token_id=1, tie_word_embeddings=False),
    _masked("distilbert", "DistilBert", **DISTIL, tie_word_embeddings=False),
    _masked("albert", "Albert", embedding_size=16, tie_word_embeddings=False),
    _masked("electra", "Electra", embedding_size=16, tie_word_embeddings=False),
    _masked("deberta-v2", "DebertaV2", **DEBERTA, tie_word_embeddings=False),
    _masked("nomic_bert", "NomicBert", tie_word_embeddings=False),
    _masked("gte", "Gte", tie_word_embeddings=False),
    _masked("jina_embeddings_v3", "JinaEmbeddingsV3", "roberta", pad_token_id=1, tie_word_embeddings=False),
]


def tokenizer_files(folder: Path, specials: str) -> None:
    """A tokenizer of whole words with the special tokens, and what stands around texts, of a family."""
    names = {
        "bert": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
        "roberta": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        "t5": ["<pad>", "</s>", "<unk>"],
    }[specials]
    vocabulary = {token: number for number, token in enumerate([*names, *WORDS])}
    unknown = next(name for name in names if "unk" in name.lower())
    inner: Any = hf.Tokenizer(hf.models.WordLevel(vocabulary, unk_token=unknown))  # pyright: ignore
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.add_special_tokens(names)
    roles = {"unk_token": unknown, "pad_token": next(name for name in names if "pad" in name.lower())}
    if specials == "bert":
        inner.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
        roles |= {"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    elif specials == "roberta":
        inner.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
        roles |= {"cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>"}
    else:
        inner.post_processor = processors.TemplateProcessing(
            single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
        )
        roles |= {"eos_token": "</s>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **roles).save_pretrained(folder)


def make_folder(case: Case, folder: Path, seed: int = 0) -> Path:
    """The case as `save_pretrained` writes it; all weights, biases and norms too, are moved from where they start."""
    generator = torch.Generator().manual_seed(seed)
    config = getattr(transformers, case.config)(**{**case.sizes, **case.changes})
    torch.manual_seed(seed)
    model = getattr(transformers, case.model)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * case.spread)
    model.save_pretrained(folder)
    tokenizer_files(folder, case.specials)
    return folder


def their_model(folder: Path, *, head: bool = False) -> Any:
    """AutoModel, or what stands for it where that would make a decoder too; no code of the folder is run."""
    import json

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    encoders = {"t5": "T5EncoderModel", "mt5": "MT5EncoderModel"}
    kind = encoders.get(config["model_type"], "AutoModelForMaskedLM" if head else "AutoModel")
    loaded = getattr(transformers, kind).from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
    return loaded.eval()


def their_ids(folder: Path, texts: list[str] = TEXTS) -> list[np.ndarray]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return [np.asarray(tokenizer(text)["input_ids"]) for text in texts]


def their_states(model: Any, ids: list[np.ndarray], pad_id: int) -> list[torch.Tensor]:
    """Hidden states, or logits, of each text out of one padded batch."""
    length = max(map(len, ids))
    given = torch.full((len(ids), length), pad_id)
    mask = torch.zeros((len(ids), length), dtype=torch.int64)
    for row, document in enumerate(ids):
        given[row, : len(document)] = torch.from_numpy(document)
        mask[row, : len(document)] = 1
    with torch.no_grad():
        found = model(input_ids=given, attention_mask=mask)
    states = found.logits if hasattr(found, "logits") else found.last_hidden_state
    return [row[: len(document)] for row, document in zip(states, ids)]


def in_rows(ids: list[np.ndarray], pad_id: int) -> dict[str, Batch]:
    """The documents padded, one a row, and packed, several a row."""
    length = max(map(len, ids))
    rows: list[list[np.ndarray]] = [[]]
    for document in sorted(ids, key=len):
        if sum(map(len, rows[-1])) + len(document) > length:
            rows.append([])
        rows[-1].append(document)
    assert len(rows) < len(ids)
    return {"padded": batch_of([[one] for one in ids], length, pad_id), "packed": batch_of(rows, length, pad_id)}


def our_states(trained: Trained, batch: Batch, *, logits: bool = False) -> dict[tuple[int, ...], torch.Tensor]:
    """Hidden states, or logits, of each document by its ids."""
    with torch.no_grad():
        states = trained.model.encode(batch)
        vectors = trained.model.readout(states, batch).logits if logits else states.vectors
    layout, found = batch.layout, {}
    for start, size in zip(layout.starts.tolist(), layout.lengths.tolist()):
        found[tuple(batch.values["ids"][start : start + size].tolist())] = vectors[start : start + size]
    return found
