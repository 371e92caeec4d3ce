"""Model folders of Hugging Face and sentence-transformers -> Trained, from a folder or the Hub.

A family is a table of its sizes and of its weight names beside ours (bert.py, rotary.py, relative.py); the same lines
are read in both directions (writer.py). Nothing of a folder is executed, and only safetensors are read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import normalizers
from torch import Tensor

from encodery.bundle import check_fit
from encodery.data.tokenizers import Tokenizer
from encodery.errors import WeightsError, nearest
from encodery.interop.huggingface.families import FAMILIES, VISION_FAMILIES
from encodery.interop.huggingface.folder import opened, read_object, read_weights
from encodery.interop.huggingface.sentence import Sentence, is_sentence, read_sentence
from encodery.interop.huggingface.tables import Family, Sizes, read_config, shapes_of
from encodery.interop.huggingface.weights import prefix_of, weights_of
from encodery.model import Model, ModelConfig
from encodery.trained import Task, Trained


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
    prefix = prefix_of(family, theirs, body)
    said = _has_head(family, sizes, theirs)
    head = said and not is_sentence(folder)
    try:
        config = read_config(family, sizes, head=head)
        if not head:
            config = config.model_copy(update={"readout": sentence.readout()})
        weights, notes = weights_of(family, sizes, config, theirs, prefix)
        weights |= sentence.weights
        check_fit(shapes_of(config), {name: tuple(value.shape) for name, value in weights.items()})
    except WeightsError as problem:
        raise WeightsError(f"{body}: {problem.given}", expected=problem.expected, fix=problem.fix) from None
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
    if name in VISION_FAMILIES:
        raise WeightsError(
            f"{file}: model_type {name!r} is a model of pictures",
            fix="encodery.interop.huggingface.read_vision opens it",
        )
    if name not in FAMILIES:
        if name is None and "model" in sizes and "task" in sizes:
            raise WeightsError(
                f"{file.parent} is a model folder of encodery",
                fix="use it as it is: encodery predict, start_from in a recipe, or encodery export for other programs",
            )
        raise WeightsError(
            f"{file}: the family model_type {name!r} is not known here{nearest(str(name), FAMILIES)}",
            expected=f"one of: {', '.join(sorted(FAMILIES))}",
            fix="take a model of one of these families, or train an encoder of your own on the same texts",
        )
    return FAMILIES[name]


def _has_head(family: Family, sizes: Sizes, theirs: dict[str, Tensor]) -> bool:
    if family.models[1] is None:
        return False

    def there(ours: str) -> bool:
        rows = [row for row in family.head_rows if row.ours == ours and row.theirs]
        return any(name in theirs for row in rows for name in row.theirs[0].split("|"))

    named = any(str(name).endswith("ForMaskedLM") for name in sizes.get("architectures") or [])
    return there("readout.bias") or (named and there("readout.transform.weight"))


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
