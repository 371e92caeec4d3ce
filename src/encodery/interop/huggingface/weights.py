"""The weights of a Hugging Face file, taken by the table of their family; what is missing or left over is named."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from encodery.bundle import check_fit
from encodery.errors import WeightsError
from encodery.interop.huggingface.tables import AnyConfig, Family, Place, Sizes, joined, matches, places, shapes_of

MOST_NAMED = 10
"""Weights named in a note."""


def prefix_of(family: Family, theirs: dict[str, Tensor], folder: Path) -> str:
    """What their names begin with: known by the table of the words."""
    words = family.rows[0].theirs[0].split("|")
    found = next((prefix for prefix in family.prefix for name in words if prefix + name in theirs), None)
    if found is None:
        raise WeightsError(
            f"{folder} has no weight {words[0]}", expected=f"the weights of a model of the family {family.name}"
        )
    return found


def weights_of(
    family: Family, sizes: Sizes, config: AnyConfig, theirs: dict[str, Tensor], prefix: str
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
