"""Model folders of Hugging Face and sentence-transformers -> Trained: sizes, weights by a table of names, tokenizer.

A family is two things: how its config.json names the sizes, and a table of its weight names beside ours. Nothing of
the folder is executed, and only safetensors are read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from encodery.bundle import check_fit
from encodery.data.tokenizers import Tokenizer
from encodery.encoders.transformer import TransformerConfig
from encodery.errors import WeightsError
from encodery.frontends.options import TextConfig
from encodery.heads.options import VectorReadoutConfig, WordReadoutConfig
from encodery.model import Model, ModelConfig
from encodery.trained import Task, Trained

Sizes = Mapping[str, Any]
Names = tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class Family:
    """One `model_type`: `encoder` reads its config.json, the tables say where each of our weights comes from.

    A table has (our name, their names): several of theirs are stacked row upon row. `*` stands for the number of the
    block. `prefixes` are what their names may begin with.
    """

    encoder: Callable[[Sizes], TransformerConfig]
    prefixes: tuple[str, ...]
    body: Names
    blocks: Names
    words: Names


def _bert_encoder(sizes: Sizes) -> TransformerConfig:
    kind = sizes.get("position_embedding_type", "absolute")
    if kind != "absolute":
        raise WeightsError(f"position_embedding_type is {kind!r}", expected="absolute: a learned table")
    return TransformerConfig(
        width=sizes["hidden_size"],
        depth=sizes["num_hidden_layers"],
        heads=sizes["num_attention_heads"],
        mlp_width=sizes["intermediate_size"],
        norm_place="post",
        norm_epsilon=sizes.get("layer_norm_eps", 1e-12),
        activation=_activation(sizes.get("hidden_act", "gelu")),
        positions="learned",
        max_length=sizes["max_position_embeddings"],
        drop_rate=sizes.get("hidden_dropout_prob", 0.1),
        attention_drop_rate=sizes.get("attention_probs_dropout_prob", 0.1),
    )


def _linear(ours: str, *theirs: str) -> Names:
    """The two rows of a linear layer or a norm."""
    return tuple((f"{ours}.{part}", tuple(f"{name}.{part}" for name in theirs)) for part in ("weight", "bias"))


_BERT = Family(
    encoder=_bert_encoder,
    prefixes=("", "bert."),
    body=(
        ("frontend.words.weight", ("embeddings.word_embeddings.weight",)),
        ("frontend.segments.weight", ("embeddings.token_type_embeddings.weight",)),
        ("encoder.positions.table.weight", ("embeddings.position_embeddings.weight",)),
        *_linear("encoder.input_norm", "embeddings.LayerNorm"),
    ),
    blocks=(
        *_linear(
            "encoder.blocks.*.attention.qkv",
            "encoder.layer.*.attention.self.query",
            "encoder.layer.*.attention.self.key",
            "encoder.layer.*.attention.self.value",
        ),
        *_linear("encoder.blocks.*.attention.outer", "encoder.layer.*.attention.output.dense"),
        *_linear("encoder.blocks.*.attention_norm", "encoder.layer.*.attention.output.LayerNorm"),
        *_linear("encoder.blocks.*.mlp.inner", "encoder.layer.*.intermediate.dense"),
        *_linear("encoder.blocks.*.mlp.outer", "encoder.layer.*.output.dense"),
        *_linear("encoder.blocks.*.mlp_norm", "encoder.layer.*.output.LayerNorm"),
    ),
    words=(
        *_linear("readout.transform", "cls.predictions.transform.dense"),
        *_linear("readout.norm", "cls.predictions.transform.LayerNorm"),
        ("readout.bias", ("cls.predictions.bias",)),
    ),
)

FAMILIES: dict[str, Family] = {"bert": _BERT}


def read_huggingface(folder: str | Path) -> Trained:
    """Read a folder as `save_pretrained` or sentence-transformers writes it.

    With a masked-word head the model can go on pretraining; without one it gives vectors: pooled and scaled to length
    1 as the folder's modules.json says, else the mean. Raises WeightsError when the folder is incomplete, its family
    is not known, or a weight is missing or has another shape.
    """
    folder = Path(folder)
    sizes = _json(folder / "config.json")
    name = sizes.get("model_type")
    if name not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise WeightsError(f"{folder / 'config.json'}: model_type {name!r}", expected=f"one of: {known}")
    family = FAMILIES[name]
    try:
        encoder = family.encoder(sizes)
    except ValidationError as problem:
        raise WeightsError(f"{folder / 'config.json'} has sizes that cannot be: {problem.errors()[0]['msg']}") from None
    except KeyError as missing:
        raise WeightsError(f"{folder / 'config.json'} has no {missing}", fix="copy the file from its source") from None
    theirs = _weights(folder)
    prefix = next((p for p in family.prefixes if p + family.body[0][1][0] in theirs), None)
    if prefix is None:
        raise WeightsError(
            f"{folder / 'model.safetensors'} has no {family.body[0][1][0]}",
            expected=f"the weights of a {name} model",
        )
    has_words = all(part in theirs for _, parts in family.words for part in parts)
    pooling, normalise = _pooling(folder)
    readout = (
        WordReadoutConfig(norm_epsilon=encoder.norm_epsilon)
        if has_words
        else VectorReadoutConfig(pooling=pooling, normalise=normalise)
    )
    frontend = TextConfig(vocab_size=theirs[prefix + family.body[0][1][0]].shape[0], start="random")
    config = ModelConfig(frontend=frontend, encoder=encoder, readout=readout)
    weights: dict[str, Tensor] = {}
    tables = [(family.body, prefix, None), *((family.blocks, prefix, block) for block in range(encoder.depth))]
    if has_words:
        tables.append((family.words, "", None))
    for table, before, block in tables:
        for our_name, their_names in table:
            found = [_take(theirs, before + _numbered(part, block), folder) for part in their_names]
            weights[_numbered(our_name, block)] = found[0] if len(found) == 1 else torch.cat(found)
    with torch.device("meta"):
        expected = {key: tuple(value.shape) for key, value in Model(config).state_dict().items()}
    check_fit(expected, {key: tuple(value.shape) for key, value in weights.items()})
    model = Model(config)
    model.load_state_dict({key: value.float() for key, value in weights.items()})
    tokenizer = Tokenizer.load(folder)
    if tokenizer.vocab_size > frontend.vocab_size:  # type: ignore[operator]
        raise WeightsError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens, the model {frontend.vocab_size}",
            fix="the tokenizer.json is of another model: copy the right one",
        )
    if has_words:
        return Trained(model.eval(), tokenizer, Task("masked"))
    return Trained(model.eval(), tokenizer, Task("vectors", long="cut", max_tokens=_most_tokens(folder)))


def _most_tokens(folder: Path) -> int | None:
    """Where sentence-transformers cuts texts, special tokens included; None: at the model's own limit."""
    file = folder / "sentence_bert_config.json"
    return _json(file).get("max_seq_length") if file.exists() else None


def _pooling(folder: Path) -> tuple[Any, bool]:
    """How sentence-transformers makes one vector: (pooling, whether it is scaled to length 1)."""
    file = folder / "modules.json"
    if not file.exists():
        return "mean", False
    pooling, normalise = "mean", False
    for module in _json(file):
        kind = str(module.get("type", "")).rsplit(".", 1)[-1]
        if kind == "Pooling":
            said = _json(folder / module["path"] / "config.json")
            ways = {"cls": "first", "mean": "mean", "max": "max"}
            chosen = [ours for key, ours in ways.items() if said.get(f"pooling_mode_{key}_token{'s' * (key != 'cls')}")]
            if len(chosen) != 1:
                raise WeightsError(
                    f"{folder / module['path']}: a pooling that is not known here", expected="one of cls, mean, max"
                )
            pooling = chosen[0]
        elif kind == "Normalize":
            normalise = True
        elif kind != "Transformer":
            raise WeightsError(f"{file}: a module {kind}", expected="Transformer, Pooling, Normalize")
    return pooling, normalise


def _activation(name: str) -> Any:
    if name not in ("relu", "gelu", "silu"):
        raise WeightsError(f"the activation {name!r} of config.json", expected="gelu, relu or silu")
    return name


def _numbered(name: str, block: int | None) -> str:
    return name if block is None else name.replace("*", str(block))


def _take(theirs: Mapping[str, Tensor], name: str, folder: Path) -> Tensor:
    if name not in theirs:
        raise WeightsError(f"{folder / 'model.safetensors'} has no weight {name}", fix="copy the file from its source")
    return theirs[name]


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(f"no file {file}", expected="a folder as `save_pretrained` writes it") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as problem:
        raise WeightsError(f"{file} cannot be read: {problem}", fix="copy the file from its source") from problem


def _weights(folder: Path) -> dict[str, Tensor]:
    file = folder / "model.safetensors"
    if not file.exists():
        others = sorted(path.name for path in folder.glob("*.bin"))
        raise WeightsError(
            f"{folder} has no model.safetensors" + (f", only {', '.join(others)}" if others else ""),
            fix="save the model as safetensors: files of pickle can run code, and are not read" if others else "",
        )
    try:
        return load_file(file)
    except SafetensorError as problem:
        raise WeightsError(f"{file} is damaged: {problem}", fix="copy the file from its source") from problem
