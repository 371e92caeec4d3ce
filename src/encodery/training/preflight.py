"""Before a run begins: everything that would stop it later is looked for now, while nothing is written or computed."""

from __future__ import annotations

from pathlib import Path

from encodery.config import Resolved
from encodery.data.corpus import Reading, require_classes
from encodery.data.knowledge import check_files
from encodery.data.named_splits import splits_of
from encodery.data.packing import rounded_budget
from encodery.data.sources import Split, columns, has_split
from encodery.encoders.kinds import EncoderConfig
from encodery.errors import ConfigError, DataError, nearest
from encodery.trained import Trained
from encodery.training.recipe import Recipe
from encodery.training.word_knowledge import with_file_width

_HELD: tuple[Split, ...] = ("validation", "test")


def reading_of(resolved: Resolved[Recipe]) -> Reading:
    """How the rows of a recipe are read, without a run around it."""
    recipe = resolved.config
    return Reading(
        recipe.data, resolved.base, recipe.seed, recipe.labels, Path(recipe.cache or ".cache"), fields=recipe.fields()
    )


def check_before(resolved: Resolved[Recipe]) -> list[str]:
    """Look at the starting point and the data, and say what differs from what the recipe says.

    A label column with a slip in its name should not be found out after an hour of pretraining. Raises
    WeightsError for a starting point that cannot be opened; ConfigError for more blocks to begin anew than there are;
    DataError for a missing file or column, for labels of one class only, and for validation or test labels that the
    training rows do not have.
    """
    recipe, notes = resolved.config, []
    encoder = recipe.encoder
    if recipe.start_from is not None:
        encoder, notes = taken_sizes(resolved, Trained.load(resolved.base / recipe.start_from))
    else:
        with_file_width(recipe.frontend, resolved.base)
    if recipe.training.reset_blocks > encoder.blocks:
        raise ConfigError(
            f"training.reset_blocks: {recipe.training.reset_blocks}, but the encoder has {encoder.blocks} blocks",
            expected=f"0 to {encoder.blocks}",
        )
    if recipe.data.knowledge is not None:
        check_files(recipe.data.knowledge, resolved.base)
    _check_rows(resolved)
    for source in recipe.data.train:
        inside = splits_of([str(resolved.base / source.path)]) if (resolved.base / source.path).is_dir() else None
        if inside is not None and inside.found:
            names = ", ".join(Path(path).name for path in inside.found)
            notes.append(
                f"data.train {source.path} is a folder: its {names} are learned from too. Name its files to keep them "
                "apart."
            )
    for name, training in (
        ("pretrain.training", recipe.pretrain and recipe.pretrain.training),
        ("training", recipe.training),
    ):
        if (
            training
            and (positions := rounded_budget(training.batch_tokens, encoder.max_length)) > training.batch_tokens
        ):
            notes.append(
                f"{name}.batch_tokens {training.batch_tokens:,} is rounded up to {positions:,}, so that the longest "
                f"text fits (encoder.max_length {encoder.max_length:,})."
            )
    return notes


def _check_rows(resolved: Resolved[Recipe]) -> None:
    recipe, reading = resolved.config, reading_of(resolved)
    for source in recipe.pretrain.data if recipe.pretrain is not None else ():
        columns(source, resolved.base)
    if reading.labels not in ("class", "classes"):
        for split in ("train", *_HELD):
            if has_split(recipe.data, split):
                next(reading.rows(split))
        return
    known: set[str] = set()
    rows = 0
    for row in reading.rows("train"):
        rows += 1
        known.update(_labels(row.label))
    require_classes(reading.labels, sorted(known), rows)
    for split in _HELD:
        if not has_split(recipe.data, split):
            continue
        for row in reading.rows(split):
            for label in _labels(row.label):
                if label not in known:
                    raise DataError(
                        f"{row.where}: the {split} label {label!r} is not among the training "
                        f"labels{nearest(label, known)}",
                        expected=f"one of {', '.join(sorted(known)[:20])}{', ...' if len(known) > 20 else ''}",
                        fix="correct the row, or add rows with this label to the training data",
                    )


def _labels(label: object) -> list[str]:
    return [str(part) for part in label] if isinstance(label, list) else [str(label)]


def taken_sizes(resolved: Resolved[Recipe], start: Trained) -> tuple[EncoderConfig, list[str]]:
    """The encoder of the starting point, and a sentence on the sizes that the recipe asks otherwise for."""
    recipe, config = resolved.config, start.model.config
    free = {"drop_rate", "attention_drop_rate", "preset", "vocab_size", "start", "embedding_std", "vectors"}
    other = [
        f"{section}.{name} is {getattr(found, name, None)} (the recipe says {getattr(asked, name)})"
        for section, asked, found in (
            ("encoder", recipe.encoder, config.encoder),
            ("frontend", recipe.frontend, config.frontend),
        )
        for name in type(asked).model_fields
        if name not in free
        and getattr(found, name, None) != getattr(asked, name)
        and resolved.sources.get(f"{section}.{name}", "default") != "default"
    ]
    if not other:
        return config.encoder, []
    return config.encoder, [f"Sizes come from {resolved.config.start_from}: " + "; ".join(other) + "."]
