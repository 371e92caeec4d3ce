"""Folders of sentence-transformers: pooling, linear layers, normalisation and prompts, read and written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from encodery.bricks.choices import PoolingName
from encodery.errors import WeightsError
from encodery.heads.options import DenseConfig, VectorReadoutConfig
from encodery.interop.huggingface.folder import json_bytes, read_json, read_object, read_weights

_POOLINGS: dict[str, PoolingName] = {"cls": "first", "mean": "mean", "weightedmean": "weighted", "max": "max"}
_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""How a pooling was said before `pooling_mode`: versions of all ages read these."""
_ACTIVATIONS = {
    "torch.nn.modules.linear.Identity": "none",
    "torch.nn.modules.activation.Tanh": "tanh",
    "torch.nn.modules.activation.ReLU": "relu",
    "torch.nn.modules.activation.GELU": "gelu",
    "torch.nn.modules.activation.SiLU": "silu",
    "torch.nn.modules.activation.Sigmoid": "sigmoid",
}
_ORDER = "Transformer, then Pooling, then any number of Dense, then Normalize"


@dataclass
class Sentence:
    """What stands behind the encoder. `body` is the folder of the encoder itself; `lowercase`: texts are made small."""

    body: Path
    pooling: PoolingName = "mean"
    dense: tuple[DenseConfig, ...] = ()
    weights: dict[str, Tensor] = field(default_factory=dict)
    normalise: bool = False
    max_tokens: int | None = None
    lowercase: bool = False
    prompts: dict[str, str] = field(default_factory=dict)
    prompt: str | None = None

    def readout(self) -> VectorReadoutConfig:
        return VectorReadoutConfig(pooling=self.pooling, dense=self.dense, normalise=self.normalise)


def is_sentence(folder: Path) -> bool:
    """Whether sentence-transformers wrote the folder."""
    return (folder / "modules.json").exists()


def read_sentence(folder: Path) -> Sentence:
    """What the folder says; without modules.json the mean, as sentence-transformers does with such a folder.

    Raises WeightsError for a module, a pooling or a layer that is not known here.
    """
    found = Sentence(folder)
    include_prompt = True
    modules = read_json(folder / "modules.json") if is_sentence(folder) else []
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise WeightsError(f"{folder / 'modules.json'} is no list of modules", expected=_ORDER)
    done: list[str] = []
    for module in modules:
        kind, path = str(module.get("type", "")).rsplit(".", 1)[-1], folder / str(module.get("path", ""))
        if kind == "Transformer" and not done:
            found.body = path
        elif kind == "Pooling" and done == ["Transformer"]:
            found.pooling, include_prompt = _read_pooling(path)
        elif kind == "Dense" and "Pooling" in done and "Normalize" not in done:
            layer, weights = _read_dense(path)
            place = f"readout.dense.{len(found.dense)}"
            found.dense = (*found.dense, layer)
            found.weights |= {f"{place}.{name}": value for name, value in weights.items()}
        elif kind == "Normalize" and "Pooling" in done:
            found.normalise = True
        else:
            before = f" behind {', '.join(done)}" if done else ""
            raise WeightsError(f"{folder / 'modules.json'}: a module {kind or module}{before}", expected=_ORDER)
        done.append(kind)
    if modules and "Pooling" not in done:
        raise WeightsError(f"{folder / 'modules.json'} has no Pooling", expected=_ORDER)
    _read_lengths(found)
    _read_prompts(folder, found)
    if found.prompts and not include_prompt:
        raise WeightsError(
            f"{folder}: its pooling leaves the words of the prompt out (include_prompt: false), ours takes them in",
            expected="include_prompt: true, or no prompts",
        )
    return found


def _read_pooling(path: Path) -> tuple[PoolingName, bool]:
    said = read_object(path / "config.json")
    modes = said.get("pooling_mode")
    if modes is None:
        modes = [mode for flag, mode in _FLAGS.items() if said.get(flag)] or ["mean"]
    modes = [modes] if isinstance(modes, str) else list(modes)
    if len(modes) != 1 or modes[0] not in _POOLINGS:
        raise WeightsError(
            f"{path}: the pooling {' and '.join(map(str, modes))} is not known here",
            expected=f"one of {', '.join(_POOLINGS)}",
        )
    return _POOLINGS[modes[0]], bool(said.get("include_prompt", True))


def _read_dense(path: Path) -> tuple[DenseConfig, dict[str, Tensor]]:
    said = read_object(path / "config.json")
    activation = said.get("activation_function", "torch.nn.modules.activation.Tanh")
    if activation not in _ACTIVATIONS:
        raise WeightsError(f"{path}: the activation {activation!r}", expected=f"one of {', '.join(_ACTIVATIONS)}")
    if said.get("use_residual"):
        raise WeightsError(
            f"{path}: a layer whose input is added to its output (use_residual)", expected="a plain layer"
        )
    names = {
        said.get("module_input_name") or "sentence_embedding",
        said.get("module_output_name") or "sentence_embedding",
    }
    if names != {"sentence_embedding"}:
        raise WeightsError(f"{path}: a layer on {', '.join(sorted(names))}", expected="one on sentence_embedding")
    weights = read_weights(path)
    wanted = {"linear.weight", *(["linear.bias"] if said.get("bias", True) else [])}
    if set(weights) != wanted:
        raise WeightsError(f"{path} holds {', '.join(sorted(weights))}", expected=", ".join(sorted(wanted)))
    layer = DenseConfig.model_validate(
        {"outputs": said["out_features"], "bias": "linear.bias" in wanted, "activation": _ACTIVATIONS[activation]}
    )
    return layer, {name.removeprefix("linear."): value.float() for name, value in weights.items()}


def _read_lengths(found: Sentence) -> None:
    said: Mapping[str, Any] = {}
    for file in sorted(found.body.glob("sentence_*_config.json")):
        said = read_object(file)
    found.lowercase = bool(said.get("do_lower_case", False))
    limit = said.get("max_seq_length")
    tokens = found.body / "tokenizer_config.json"
    if limit is None and tokens.exists():
        limit = read_object(tokens).get("model_max_length")
    found.max_tokens = int(limit) if isinstance(limit, int | float) and 0 < limit < 1_000_000 else None


def _read_prompts(folder: Path, found: Sentence) -> None:
    file = folder / "config_sentence_transformers.json"
    said = read_object(file) if file.exists() else {}
    prompts, prompt = said.get("prompts") or {}, said.get("default_prompt_name")
    if not isinstance(prompts, dict) or not all(isinstance(text, str) for text in prompts.values()):
        raise WeightsError(f"{file}: prompts are {prompts!r:.80}", expected="texts by name")
    if prompt is not None and prompt not in prompts:
        raise WeightsError(
            f"{file}: default_prompt_name is {prompt!r}", expected=f"one of {', '.join(prompts) or 'none'}"
        )
    found.prompts, found.prompt = dict(prompts), prompt


def sentence_files(
    config: VectorReadoutConfig,
    weights: Mapping[str, Tensor],
    *,
    width: int,
    max_tokens: int,
    prompts: Mapping[str, str],
    prompt: str | None,
) -> dict[str, bytes]:
    """The files that make a folder one of sentence-transformers, by name. `weights` are those of `readout.dense`.

    Raises WeightsError for attention pooling and for a head of its own for first texts, for which there is no module.
    """
    if config.first_dense is not None:
        raise WeightsError(
            "readout.first_dense: the first text of a row has linear layers of its own, and one folder of "
            "sentence-transformers holds one way to make a vector",
            expected="objective.heads: one",
        )
    theirs = {ours: mode for mode, ours in _POOLINGS.items()}
    if config.pooling not in theirs:
        raise WeightsError(
            f"readout.pooling is {config.pooling}: sentence-transformers has no module for it",
            expected=f"one of {', '.join(theirs)}",
        )
    pooling = {"word_embedding_dimension": width}
    pooling |= {flag: mode == theirs[config.pooling] for flag, mode in _FLAGS.items()}
    names = ["", "1_Pooling"]
    files = {"1_Pooling/config.json": json_bytes({**pooling, "include_prompt": True})}
    classes = {ours: name for name, ours in _ACTIVATIONS.items()}
    for number, layer in enumerate(config.dense):
        name = f"{len(names)}_Dense"
        said = {"in_features": width, "out_features": layer.outputs, "bias": layer.bias}
        files[f"{name}/config.json"] = json_bytes({**said, "activation_function": classes[layer.activation]})
        own = {part: weights.get(f"readout.dense.{number}.{part}") for part in ("weight", "bias")}
        content = {f"linear.{part}": value.contiguous() for part, value in own.items() if value is not None}
        files[f"{name}/model.safetensors"] = save(content, metadata={"format": "pt"})
        names.append(name)
        width = layer.outputs
    if config.normalise:
        names.append(f"{len(names)}_Normalize")
        files[f"{names[-1]}/config.json"] = json_bytes({})
    kinds = ["Transformer", *(name.split("_")[1] for name in names[1:])]
    modules = [
        {"idx": number, "name": str(number), "path": name, "type": f"sentence_transformers.models.{kind}"}
        for number, (name, kind) in enumerate(zip(names, kinds))
    ]
    return {
        **files,
        "modules.json": json_bytes(modules),
        "sentence_bert_config.json": json_bytes({"max_seq_length": max_tokens, "do_lower_case": False}),
        "config_sentence_transformers.json": json_bytes(
            {"prompts": dict(prompts), "default_prompt_name": prompt, "similarity_fn_name": "cosine"}
        ),
    }
