"""Model folders of Hugging Face and sentence-transformers <-> Trained: read from a folder or the Hub, and written.

A family is a table of its sizes and of its weight names beside ours (huggingface_bert.py, huggingface_rotary.py,
huggingface_relative.py); the same lines are read in both directions. Nothing of a folder is executed, and only
safetensors are read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import normalizers
from torch import Tensor

from encodery.bundle import check_fit
from encodery.data.tokenizers import Tokenizer
from encodery.errors import WeightsError, nearest
from encodery.interop.huggingface_families import FAMILIES
from encodery.interop.huggingface_folder import opened, read_object, read_weights
from encodery.interop.huggingface_sentence import Sentence, is_sentence, read_sentence
from encodery.interop.huggingface_tables import (
    Family,
    Place,
    Sizes,
    joined,
    matches,
    places,
    read_config,
    shapes_of,
)
from encodery.interop.huggingface_writer import write_huggingface
from encodery.model import Model, ModelConfig
from encodery.trained import Task, Trained

__all__ = ["FAMILIES", "read_huggingface", "write_huggingface"]

MOST_NAMED = 10
"""Weights named in a note."""


def read_huggingface(given: str | Path) -> Trained:
    """Read a folder as `save_pretrained` or sentence-transformers writes it, or the model of this name on the Hub.

    With a masked-word head the model can go on pretraining; without one, or from sentence-transformers, it gives
    vectors: pooled and scaled to length 1 as the folder's modules.json says, else the mean. The `notes` of the result
    name the weights of the file that were not used. Raises WeightsError when the folder is incomplete or damaged, its
    family is not known, or a weight is missing, unknown or has another shape; MissingExtra when a model must be
    fetched and the package for that is not there.
    """
    folder = opened(given)
    sentence = read_sentence(folder)
    body = sentence.body
    sizes = read_object(body / "config.json")
    family = _family_of(sizes, body / "config.json")
    theirs = read_weights(body)
    prefix = _prefix(family, theirs, body)
    said = _has_head(family, sizes, theirs)
    head = said and not is_sentence(folder)
    try:
        config = read_config(family, sizes, head=head)
    except WeightsError as problem:
        raise WeightsError(f"{body}: {problem.given}", expected=problem.expected, fix=problem.fix) from None
    if not head:
        config = config.model_copy(update={"readout": sentence.readout()})
    weights, notes = _taken(family, sizes, config, theirs, prefix)
    weights |= sentence.weights
    check_fit(shapes_of(config), {name: tuple(value.shape) for name, value in weights.items()})
    model = Model(config)
    model.load_state_dict(weights)
    tokenizer = _tokenizer(body, family, config, lowercase=sentence.lowercase, masks=head)
    if said and not head:
        notes.append("the masked-word head is left out: sentence-transformers uses the encoder alone")
    task = Task("masked") if head else _vectors(sentence, config)
    return Trained(model.eval(), tokenizer, task, tuple(notes))


def _vectors(sentence: Sentence, config: ModelConfig) -> Task:
    limit = sentence.max_tokens
    return Task(
        "vectors",
        long="cut",
        max_tokens=limit if limit is not None and limit < config.encoder.max_length else None,
        prompts=sentence.prompts,
        prompt=sentence.prompt,
    )


def _family_of(sizes: Sizes, file: Path) -> Family:
    name = sizes.get("model_type")
    if name not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        near = nearest(str(name), FAMILIES)
        raise WeightsError(f"{file}: model_type {name!r}{near}", expected=f"one of: {known}")
    return FAMILIES[name]


def _prefix(family: Family, theirs: dict[str, Tensor], folder: Path) -> str:
    """What their names begin with: known by the table of the words."""
    words = family.rows[0].theirs[0].split("|")
    found = next((prefix for prefix in family.prefix for name in words if prefix + name in theirs), None)
    if found is None:
        raise WeightsError(
            f"{folder} has no weight {words[0]}", expected=f"the weights of a model of the family {family.name}"
        )
    return found


def _has_head(family: Family, sizes: Sizes, theirs: dict[str, Tensor]) -> bool:
    if family.models[1] is None:
        return False

    def there(ours: str) -> bool:
        rows = [row for row in family.head_rows if row.ours == ours and row.theirs]
        return any(name in theirs for row in rows for name in row.theirs[0].split("|"))

    named = any(str(name).endswith("ForMaskedLM") for name in sizes.get("architectures") or [])
    return there("readout.bias") or (named and there("readout.transform.weight"))


def _taken(
    family: Family, sizes: Sizes, config: ModelConfig, theirs: dict[str, Tensor], prefix: str
) -> tuple[dict[str, Tensor], list[str]]:
    """Our weights out of theirs, and what is worth saying of the others."""
    shapes = shapes_of(config)
    expected: dict[str, tuple[int, ...]] = {}
    chosen: list[tuple[Place, list[str]]] = []
    for place in places(family, sizes, config, prefix):
        names = [_found_name(part, theirs) for part in place.theirs]
        chosen.append((place, names))
        expected |= zip(names, place.shapes)
    left = {name: value for name, value in theirs.items() if name not in expected}
    bare = {name: name.removeprefix(prefix) for name in left}
    copies = {name for name in left if matches(bare[name], family.copies) or matches(name, family.copies)}
    heads = [name for row in family.head_rows for names in row.theirs for name in names.split("|")]
    unused = sorted(
        name
        for name in left
        if name not in copies and (matches(bare[name], (*family.unused, *heads)) or matches(name, family.unused))
    )
    found = {name: value for name, value in theirs.items() if name not in copies and name not in unused}
    check_fit(expected, {name: tuple(value.shape) for name, value in found.items()})
    weights = {
        place.ours: joined(place, [theirs[name] for name in names], shapes[place.ours]) for place, names in chosen
    }
    notes = []
    if unused:
        more = f" and {len(unused) - MOST_NAMED} more" if len(unused) > MOST_NAMED else ""
        notes.append(f"not used, because the encoder has no place for them: {', '.join(unused[:MOST_NAMED])}{more}")
    return weights, notes


def _found_name(names: str, theirs: dict[str, Tensor]) -> str:
    """Of several names the one that the file has; the first, to be missed, when it has none."""
    return next((name for name in names.split("|") if name in theirs), names.split("|")[0])


# -- the tokenizer -----------------------------------------------------------------------------------

_ROLES = {
    "pad": ("pad_token",),
    "unk": ("unk_token",),
    "cls": ("cls_token", "bos_token"),
    "sep": ("sep_token", "eos_token"),
    "mask": ("mask_token",),
}


def _tokenizer(folder: Path, family: Family, config: ModelConfig, *, lowercase: bool, masks: bool) -> Tokenizer:
    """The folder's tokenizer.json, with the special tokens that its maps name. Some models begin with no token (T5),
    and only those with a head for masked words need a mask."""
    if not (folder / "tokenizer.json").exists():
        raise WeightsError(
            f"{folder} has no tokenizer.json",
            fix="make one with transformers: "
            f"AutoTokenizer.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})",
        )
    facts: dict[str, Any] = {"special": _special_tokens(folder), "may_lack": ["cls"] if masks else ["cls", "mask"]}
    tokenizer = Tokenizer.load(folder, facts)
    inner: Any = tokenizer.inner
    if lowercase:
        inner.normalizer = normalizers.Sequence([normalizers.Lowercase(), *filter(None, [inner.normalizer])])
    rows = config.frontend.vocab_size or 0
    if tokenizer.vocab_size > rows:
        raise WeightsError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens, the model {rows}",
            fix="the tokenizer.json is of another model: copy the right one",
        )
    return Tokenizer(inner, {**facts, "rows": rows, "model_type": family.name}, where=str(folder))


def _special_tokens(folder: Path) -> dict[str, str]:
    said: Sizes = {}
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).exists():
            said |= read_object(folder / name)
    found: dict[str, str] = {}
    for role, keys in _ROLES.items():
        tokens = [said[key] for key in keys if said.get(key) is not None]
        if tokens:
            found[role] = str(tokens[0]["content"] if isinstance(tokens[0], dict) else tokens[0])
    return found
