"""Trained -> a folder that transformers, and sentence-transformers for vectors, open without any code of ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tokenizers
from safetensors.torch import save
from tokenizers import processors
from torch import Tensor

from encodery.data.frames import frame_of
from encodery.data.tokenizers import Tokenizer
from encodery.durable import separate
from encodery.errors import WeightsError
from encodery.heads.options import (
    DenseConfig,
    DocumentReadoutConfig,
    LinkReadoutConfig,
    VectorReadoutConfig,
    WordReadoutConfig,
)
from encodery.interop.huggingface.families import FAMILIES
from encodery.interop.huggingface.folder import json_bytes, write_files
from encodery.interop.huggingface.rewrites import EMPTIED, REWRITES, Weights, without_spare_positions
from encodery.interop.huggingface.sentence import sentence_files
from encodery.interop.huggingface.tables import (
    Family,
    differences,
    parted,
    places,
    shapes_of,
    unplaced,
    write_config,
)
from encodery.model import ModelConfig
from encodery.trained import Trained

MOST_REWRITES = 12
STRUCTURE = {"encoder.kind", "encoder.norm_place", "encoder.norm", "encoder.positions", "frontend.width"}
"""Options that an encoder is built around: others are changed more easily."""


@dataclass(frozen=True)
class Plan:
    """A model as one family expresses it, and what had to be rewritten for that."""

    family: Family
    config: ModelConfig
    weights: Weights
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Obstacle:
    """Why a family cannot express a model: the options that stand in the way, with a line each."""

    family: Family
    lines: dict[str, str]

    @property
    def distance(self) -> tuple[bool, int, int]:
        """How far the family is: it could not even be tried; so many options; so many of them hard to change."""
        return "" in self.lines, len(self.lines), len(STRUCTURE & set(self.lines))


def write_huggingface(trained: Trained, folder: Path, say: Callable[[str], None] = lambda note: None) -> str:
    """Write a new folder that AutoModel and AutoTokenizer open, and SentenceTransformer for what gives vectors or
    answers; returns the family (`model_type`) that it is of.

    A model that was read from a family goes back to it; another goes to the family that can express it with the fewest
    rewrites (rewrites.py), all of them exact; where only families without a head for hidden words can, without its
    head. What was rewritten or left out stands in the folder's README and goes to `say`. Raises WeightsError when no
    family can: it names the nearest one and the options that stand in the way.
    """
    folder = Path(folder)
    ids = {role: trained.tokenizer.inner.token_to_id(token) for role, token in trained.tokenizer.special.items()}
    plan = _planned(trained, ids)
    config, task = plan.config, trained.task
    sizes = write_config(plan.family, config, ids)
    limit = min(config.encoder.max_length, task.max_tokens or config.encoder.max_length)
    notes = list(plan.notes)
    files: dict[str, bytes] = {"config.json": json_bytes(sizes)}
    files["model.safetensors"] = save(separate(_their_weights(plan, ids)), metadata={"format": "pt"})
    files |= _tokenizer_files(trained.tokenizer, limit, pairs=(config.frontend.segments > 1))
    if config.readout.kind != "word":
        vectors, layers, said = _vectors_of(trained)
        notes += said
        files |= sentence_files(
            vectors,
            layers,
            width=config.encoder.width,
            max_tokens=limit,
            prompts=task.prompts,
            prompt=task.prompt,
        )
    if sizes.get("is_causal") is False:
        notes.append("it needs transformers 5 or newer: older versions let a token see only those before it")
    if task.long == "split":
        notes.append("a text longer than the model can hold is cut here; encodery splits it into windows")
    files["README.md"] = _readme(plan.family, sizes, notes, config.readout.kind).encode()
    write_files(folder, files)
    for note in notes:
        say(note)
    return plan.family.name


# -- the family --------------------------------------------------------------------------------------


def _planned(trained: Trained, ids: dict[str, int]) -> Plan:
    config, weights, before = _body(trained)
    plans, obstacles = _tried(trained, config, weights, ids)
    if not plans and config.readout.kind == "word":
        plans, _ = _tried(trained, *_without_head(config, weights), ids)
        before += ("the head that guesses hidden words is left out: no architecture that fits has one like it",)
    if plans:
        plan = min(plans, key=lambda plan: len(plan.notes))
        return replace(plan, notes=(*before, *plan.notes))
    closest = min(obstacles, key=lambda obstacle: obstacle.distance)
    raise WeightsError(
        "no architecture of transformers can express this encoder; the nearest is "
        f"{closest.family.name}, and in the way stand\n  " + "\n  ".join(closest.lines.values()),
        expected=f"an encoder like one of {', '.join(FAMILIES)}",
        fix="pretrain with options that it has, or export to another form",
    )


def _tried(
    trained: Trained, config: ModelConfig, weights: Weights, ids: dict[str, int]
) -> tuple[list[Plan], list[Obstacle]]:
    """Every family that can express the model, and what is in the way of the others."""
    origin = trained.tokenizer.facts().get("model_type")
    plans: list[Plan] = []
    obstacles: list[Obstacle] = []
    for family in sorted(FAMILIES.values(), key=lambda family: family.name != origin):
        found = _expressed(family, config, weights, ids, trained.task.joins_pairs)
        if isinstance(found, Obstacle):
            obstacles.append(found)
            continue
        plans.append(found)
        if not found.notes and family.name == origin:
            break
    return plans, obstacles


def _without_head(config: ModelConfig, weights: Weights) -> tuple[ModelConfig, Weights]:
    bare = config.model_copy(update={"readout": VectorReadoutConfig()})
    return bare, {name: value for name, value in weights.items() if not name.startswith("readout.")}


def _body(trained: Trained) -> tuple[ModelConfig, Weights, tuple[str, ...]]:
    """The model with its masked-word head, or without any: what pools and answers is a matter of other files. Vectors
    of words that are made in some way are written out as a table."""
    config, notes = trained.model.config, ()
    if trained.knowledge is not None:
        notes = ("what encodery writes behind texts or fuses into words, from its knowledge of entities, is left out",)
    weights = {name: value.detach().cpu().float() for name, value in trained.model.state_dict().items()}
    if config.frontend.embedding != "learned":
        frontend = trained.model.frontend
        table = frontend.as_table()
        weights = {name: value for name, value in weights.items() if not name.startswith("frontend.")}
        weights |= {f"frontend.{name}": value.cpu().float() for name, value in table.state_dict().items()}
        config = config.model_copy(update={"frontend": table.config})
        notes += (f"the vectors of all tokens ({frontend.describe()}) are written out as a table",)
    if isinstance(config.readout, LinkReadoutConfig):
        words = {name: getattr(config.readout, name) for name in WordReadoutConfig.model_fields if name != "kind"}
        config = config.model_copy(update={"readout": WordReadoutConfig(**words)})
        weights = {name: weights[name] for name in shapes_of(config)}
        notes += ("the scores of relations between entities are left out",)
    if config.readout.kind != "word":
        config, weights = _without_head(config, weights)
    return config, weights, notes


def _expressed(
    family: Family, config: ModelConfig, weights: Weights, ids: dict[str, int], paired: bool
) -> Plan | Obstacle:
    """The model in this family, rewritten step by step; or what stays in the way."""
    if config.encoder.kind == "transformer":
        config, weights = without_spare_positions(config, weights)
    notes: list[str] = []
    for _ in range(MOST_REWRITES):
        wanted = differences(family, config, ids)
        if not wanted:
            break
        tried = (REWRITES[name](config, weights, wanted[name][1], paired) for name in REWRITES if name in wanted)
        done = next((one for one in tried if one is not None), None)
        if done is None:
            return _obstacle(family, wanted)
        config, weights = done.config, done.weights
        notes.append(done.note)
    try:
        found = places(family, write_config(family, config, ids), config, "")
    except WeightsError as problem:
        return Obstacle(family, {"": problem.given})
    for name in unplaced(found, weights):
        done = EMPTIED[name](config, weights, None, paired) if name in EMPTIED else None
        if done is None:
            return Obstacle(family, {name: f"{name} is not zero, and {family.name} has no such weight"})
        config, weights = done.config, done.weights
        notes.append(done.note)
    return Plan(family, config, weights, tuple(notes))


def _obstacle(family: Family, wanted: dict[str, tuple[Any, Any]]) -> Obstacle:
    lines = {
        name: f"{name}: {_shown(ours)}, {family.name} has {_shown(theirs)}" if name else str(theirs)
        for name, (ours, theirs) in wanted.items()
    }
    return Obstacle(family, lines)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, dict):
        return "given"
    return "none" if value is None else str(value)


def _their_weights(plan: Plan, ids: dict[str, int]) -> dict[str, Tensor]:
    sizes = write_config(plan.family, plan.config, ids)
    head = plan.config.readout.kind == "word"
    prefix = plan.family.prefix[0] if head else ""
    found: dict[str, Tensor] = {}
    for place in places(plan.family, sizes, plan.config, prefix):
        found |= parted(place, plan.weights[place.ours])
    if plan.family.more is not None:
        found |= {prefix + name: value for name, value in plan.family.more(sizes).items()}
    return found


# -- what stands beside the weights ------------------------------------------------------------------


def _tokenizer_files(tokenizer: Tokenizer, limit: int, *, pairs: bool) -> dict[str, bytes]:
    """tokenizer.json and the two files that say to AutoTokenizer what its special tokens are for."""
    inner: Any = tokenizers.Tokenizer.from_str(tokenizer.to_json())
    if frame_of(inner) is None:
        # What stands around texts was known by custom alone.
        cls, sep = (tokenizer.special[role] for role in ("cls", "sep"))
        inner.post_processor = processors.TemplateProcessing(
            single=f"{cls}:0 $A:0 {sep}:0",
            pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
            special_tokens=[(cls, tokenizer.cls_id), (sep, tokenizer.sep_id)],
        )
    named = {f"{role}_token": token for role, token in tokenizer.special.items()}
    also = {"cls_token": "bos_token", "sep_token": "eos_token"}
    named |= {other: named[name] for name, other in also.items() if name in named}
    said = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": limit,
        "model_input_names": ["input_ids", *(["token_type_ids"] if pairs else []), "attention_mask"],
        "clean_up_tokenization_spaces": False,
        "padding_side": "right",
        "truncation_side": "right",
    }
    return {
        "tokenizer.json": inner.to_str(pretty=False).encode(),
        "tokenizer_config.json": json_bytes({**said, **named}),
        "special_tokens_map.json": json_bytes(named),
    }


def _vectors_of(trained: Trained) -> tuple[VectorReadoutConfig, Weights, list[str]]:
    """Pooling and what stands behind it, as linear layers: the answers of a classifier are such a layer too."""
    readout = trained.model.config.readout
    own = {name: value.detach().cpu().float() for name, value in trained.model.readout.state_dict().items()}
    if isinstance(readout, VectorReadoutConfig):
        return readout, {f"readout.{name}": value for name, value in own.items()}, []
    if isinstance(readout, WordReadoutConfig):  # whose head had to be left out
        return VectorReadoutConfig(normalise=False), {}, []
    if not isinstance(readout, DocumentReadoutConfig):
        raise WeightsError(
            f"readout.kind is {readout.kind}: sentence-transformers has no module for it",
            expected="one of word, document, vector",
            fix="export the encoder alone: --to onnx --part encoder",
        )
    bare = VectorReadoutConfig(pooling=readout.pooling, normalise=False)
    if readout.ngrams:
        note = "the answers are left out: a part of them comes from runs of tokens, for which there is no module"
        return bare, {}, [note]
    task, layers, weights = trained.task, [], {}
    if readout.hidden:
        width = trained.model.config.encoder.width
        layers.append(DenseConfig(outputs=width, activation="tanh"))
        weights |= {f"readout.dense.0.{part}": own[f"hidden.{part}"] for part in ("weight", "bias")}
    last = f"readout.dense.{len(layers)}"
    layers.append(DenseConfig(outputs=readout.outputs))
    weights[f"{last}.weight"] = own["answer.weight"] * task.scale / task.temperature
    weights[f"{last}.bias"] = own["answer.bias"] * task.scale / task.temperature + task.center
    labels = ", ".join(task.labels)
    what = {
        "classify": f"encode() gives a logit for each label, and softmax the probabilities: {labels}",
        "multilabel": f"encode() gives a logit for each label, and sigmoid its probability: {labels}",
        "regress": "encode() gives the number",
        "rank": "encode() gives how well the second text of a pair answers the first: the higher the better",
    }
    return bare.model_copy(update={"dense": tuple(layers)}), weights, [what[task.kind]]


def _readme(family: Family, sizes: dict[str, Any], notes: list[str], kind: str) -> str:
    """The card: what the folder is, how it is opened, what was rewritten."""
    library = "transformers" if kind == "word" else "sentence-transformers"
    model = sizes["architectures"][0]
    lines = ["---", f"library_name: {library}", "---", "", f"# A {family.name} model", ""]
    lines += ["Trained with encodery, written for transformers. Nothing in this folder is executed.", "", "```python"]
    if kind == "word":
        lines += ["from transformers import AutoModelForMaskedLM, AutoTokenizer", ""]
        lines += ['model = AutoModelForMaskedLM.from_pretrained("FOLDER")']
        lines += ['tokenizer = AutoTokenizer.from_pretrained("FOLDER")']
    else:
        lines += ["from sentence_transformers import SentenceTransformer", ""]
        lines += ['vectors = SentenceTransformer("FOLDER").encode(["a text", "another"])']
    lines += ["```", "", f"The encoder alone: `transformers.{model}`." if kind != "word" else ""]
    if notes:
        lines += ["", "What is worth knowing:", "", *(f"- {note}" for note in notes)]
    return "\n".join(lines).rstrip() + "\n"
