"""What the table of a Hugging Face family is made of: lines that are read both ways, sizes and weights."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from pydantic import ValidationError
from torch import Tensor

from encodery.config import Config
from encodery.encoders.options import TransformerConfig
from encodery.errors import WeightsError
from encodery.heads.options import VectorReadoutConfig
from encodery.interop.huggingface.meaning import Flat, flattened, meaning
from encodery.model import Model, ModelConfig, VisionModel, VisionModelConfig

Sizes = dict[str, Any]
"""A config.json."""
Shape = tuple[int, ...]
AnyConfig = ModelConfig | VisionModelConfig
Ids = Mapping[str, int]
"""Numbers of the special tokens by role: pad, unk, cls, sep, mask."""

NEVER: Flat = {"encoder.qk_norm": False}
"""What no family has but those that say so."""

C = TypeVar("C", bound=Config)

_REQUIRED = object()


# -- sizes -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Size:
    """One value of config.json and one of ours.

    `theirs` is a key, dotted where it lies inside another; behind a `|` stand names it had elsewhere, which are read
    too. `default` is what transformers takes where the key is missing, `values` their values beside ours where these
    differ or where only some are known (of two that mean the same the first is written).
    """

    theirs: str
    ours: str
    default: Any = _REQUIRED
    values: Mapping[Any, Any] | None = None

    def read(self, sizes: Sizes, found: Flat) -> None:
        value = taken(sizes, self.theirs, self.default)
        if self.values is not None:
            if not _known(value, self.values):
                known = ", ".join(str(name) for name in self.values)
                raise WeightsError(
                    f"{self.theirs.split('|')[0]} of config.json is {value!r}", expected=f"one of: {known}"
                )
            value = self.values[value]
        found[self.ours] = value

    def write(self, flat: Flat, ids: Ids, sizes: Sizes) -> None:
        value = flat.get(self.ours)
        if self.values is not None:
            # A value that the family does not know is left out: what is read back then differs, and is reported.
            fitting = [theirs for theirs, ours in self.values.items() if ours == value]
            if not fitting:
                return
            value = fitting[0]
        put(sizes, self.theirs.split("|")[0], value)


@dataclass(frozen=True)
class Always:
    """A value that config.json must have, because of what this family is here; `why` says what another would mean."""

    theirs: str
    value: Any
    default: Any
    why: str

    def read(self, sizes: Sizes, found: Flat) -> None:
        value = taken(sizes, self.theirs, self.default)
        if value != self.value:
            name = self.theirs.split("|")[0]
            raise WeightsError(f"{name} of config.json is {value!r}: {self.why}", expected=f"{self.value!r}")

    def write(self, flat: Flat, ids: Ids, sizes: Sizes) -> None:
        put(sizes, self.theirs.split("|")[0], self.value)


@dataclass(frozen=True)
class Computed:
    """Several values that depend on each other: `reading` gives ours from a config.json, `writing` the other way."""

    reading: Callable[[Sizes], Flat]
    writing: Callable[[Flat, Ids], Sizes]

    def read(self, sizes: Sizes, found: Flat) -> None:
        found |= self.reading(sizes)

    def write(self, flat: Flat, ids: Ids, sizes: Sizes) -> None:
        for name, value in self.writing(flat, ids).items():
            put(sizes, name, value)


Line = Size | Always | Computed


def taken(sizes: Sizes, names: str, default: Any = _REQUIRED) -> Any:
    """The value of the first of `names` (`a|b.c`) that config.json has. KeyError when there is none and no default."""
    for name in names.split("|"):
        value: Any = sizes
        for part in name.split("."):
            value = value.get(part, _REQUIRED) if isinstance(value, Mapping) else _REQUIRED
        if value is not _REQUIRED and (value is not None or default is None):
            return value
    if default is _REQUIRED:
        raise KeyError(names.split("|")[0])
    return default


def put(sizes: Sizes, name: str, value: Any) -> None:
    """Set a dotted key."""
    *outer, last = name.split(".")
    for part in outer:
        sizes = sizes.setdefault(part, {})
    sizes[last] = value


def _known(value: Any, values: Mapping[Any, Any]) -> bool:
    try:
        return value in values
    except TypeError:
        return False


# -- weights -----------------------------------------------------------------------------------------


def _always(sizes: Sizes) -> bool:
    return True


@dataclass(frozen=True)
class Row:
    """One weight of ours and where it is in their file.

    Several of theirs are stacked, row upon row, to make ours; none: theirs has no such weight, which is then zero.
    `*` stands for the number of the block. Behind a `|` stand names it has in other files. `swapped`: the halves stand
    the other way round. `flat`: theirs has other dimensions, `shape` of them. `by_head`: the queries, keys and values
    of one head stand together there, then those of the next. `when` chooses by config.json.
    """

    ours: str
    theirs: tuple[str, ...]
    swapped: bool = False
    by_head: bool = False
    when: Callable[[Sizes], bool] = _always
    shape: Callable[[Sizes, Shape], Shape] | None = None


def linear(ours: str, *theirs: str, when: Callable[[Sizes], bool] = _always) -> tuple[Row, ...]:
    """The two rows of a linear layer or a norm."""
    return tuple(
        Row(f"{ours}.{part}", tuple(_with(name, part) for name in theirs), when=when) for part in ("weight", "bias")
    )


def weight(ours: str, *theirs: str, when: Callable[[Sizes], bool] = _always) -> tuple[Row, ...]:
    """The row of a layer without a bias."""
    return (Row(f"{ours}.weight", tuple(_with(name, "weight") for name in theirs), when=when),)


def _with(names: str, part: str) -> str:
    return "|".join(f"{name}.{part}" for name in names.split("|"))


@dataclass(frozen=True)
class Family:
    """One `model_type`. Everything about it is in its lines and rows, which are read in both directions.

    `models` are the classes of transformers without and with a masked-word head (None: there is none). `prefix` stands
    before the names of the body in a file with a head (more are read). `fixed` is what all models of the family have.
    `unused` are weights of theirs that an encoder does not need, `copies` those that hold nothing of their own.
    `more` makes weights that only their file has.
    """

    name: str
    models: tuple[str, str | None]
    prefix: tuple[str, ...]
    sizes: tuple[Line, ...]
    fixed: Flat
    rows: tuple[Row, ...]
    head_sizes: tuple[Line, ...] = ()
    head_fixed: Flat = field(default_factory=dict)
    head_rows: tuple[Row, ...] = ()
    unused: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()
    more: Callable[[Sizes], dict[str, Tensor]] | None = None


@dataclass(frozen=True)
class Place:
    """Where one weight of ours lies in a file: the names (with those of other files behind `|`) and their shapes.
    `heads` is what `by_head` counts."""

    ours: str
    theirs: tuple[str, ...]
    shapes: tuple[Shape, ...]
    row: Row
    heads: int = 1


def read_config(family: Family, sizes: Sizes, *, head: bool) -> ModelConfig:
    """config.json -> our config; without a head its readout is the mean vector.

    Raises WeightsError for a value that is missing, unknown or impossible.
    """
    readout = {"kind": "word"} if head else {"kind": "vector", "normalise": False}
    return _valid(ModelConfig, _read_values(family, sizes, head=head), {"start": "random"}, readout)


def read_vision_config(family: Family, sizes: Sizes) -> VisionModelConfig:
    """The same for a family of pictures; its readout is the vector of the first position."""
    readout = {"kind": "vector", "pooling": "first", "normalise": False}
    return _valid(VisionModelConfig, _read_values(family, sizes, head=False), {"kind": "vision"}, readout)


def _read_values(family: Family, sizes: Sizes, *, head: bool) -> Flat:
    found: Flat = NEVER | family.fixed | (family.head_fixed if head else {})
    try:
        for line in (*family.sizes, *(family.head_sizes if head else ())):
            line.read(sizes, found)
    except KeyError as missing:
        raise WeightsError(f"config.json has no {missing.args[0]!r}", fix="copy the file from its source") from None
    return found


def _valid(schema: type[C], values: Flat, frontend: dict[str, Any], readout: dict[str, Any]) -> C:
    nested: dict[str, Any] = {"frontend": frontend, "encoder": {"kind": "transformer"}, "readout": readout}
    for name, value in values.items():
        part, key = name.split(".", 1)
        nested[part][key] = value
    try:
        return schema.model_validate(nested)
    except ValidationError as problem:
        first = problem.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part not in ("transformer", "word", "text", "vector"))
        raise WeightsError(f"config.json has sizes that cannot be: {place}: {first['msg']}") from None


def write_config(family: Family, config: AnyConfig, ids: Ids) -> Sizes:
    """Our config -> config.json, without asking whether the family can express it: `differences` does."""
    flat, head = flattened(config), config.readout.kind == "word"
    model = family.models[1] if head and family.models[1] else family.models[0]
    sizes: Sizes = {"architectures": [model], "model_type": family.name, "dtype": "float32"}
    if ids:
        sizes["pad_token_id"] = ids["pad"]
    for line in (*family.sizes, *(family.head_sizes if head else ())):
        line.write(flat, ids, sizes)
    return sizes


def differences(family: Family, config: AnyConfig, ids: Ids) -> dict[str, tuple[Any, Any]]:
    """What the family cannot express of a config: by dotted name, our value and the one that would come back."""
    if not isinstance(config.encoder, TransformerConfig):
        return {"encoder.kind": (config.encoder.kind, "transformer")}
    head = config.readout.kind == "word"
    if head and family.models[1] is None:
        bare = config.model_copy(update={"readout": VectorReadoutConfig()})
        return {"readout.kind": ("word", "no head for masked words"), **differences(family, bare, ids)}
    try:
        sizes = write_config(family, config, ids)
        pictures = isinstance(config, VisionModelConfig)
        back = read_vision_config(family, sizes) if pictures else read_config(family, sizes, head=head)
    except WeightsError as problem:
        return {"": ("", problem.given)}
    ours, theirs = meaning(config), meaning(back)
    return {name: (ours[name], theirs[name]) for name in ours if name in theirs and ours[name] != theirs[name]}


def shapes_of(config: AnyConfig) -> dict[str, Shape]:
    """Our weights by name, without making them."""
    with torch.device("meta"):
        model = VisionModel(config) if isinstance(config, VisionModelConfig) else Model(config)
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def places(family: Family, sizes: Sizes, config: AnyConfig, prefix: str) -> list[Place]:
    """Where each of our weights lies. Raises WeightsError for one that the family has no place for."""
    shapes = shapes_of(config)
    head = config.readout.kind == "word"
    found: dict[str, Place] = {}
    for before, rows in ((prefix, family.rows), ("", family.head_rows if head else ())):
        for row in rows:
            if not row.when(sizes):
                continue
            for number in range(config.encoder.blocks) if "*" in row.ours else (0,):  # type: ignore[union-attr]
                ours = row.ours.replace("*", str(number))
                if ours in shapes:
                    found[ours] = _place(row, ours, shapes[ours], before, number, sizes, config)
    lacking = [name for name in shapes if name not in found and not name.startswith("readout.dense")]
    if lacking:
        raise WeightsError(f"{family.name} has no place for {', '.join(lacking[:10])}")
    return list(found.values())


def _place(row: Row, ours: str, shape: Shape, before: str, number: int, sizes: Sizes, config: AnyConfig) -> Place:
    names = tuple(
        "|".join(before + name.replace("*", str(number)) for name in names.split("|")) for names in row.theirs
    )
    if row.shape is not None:
        return Place(ours, names, (row.shape(sizes, shape),), row)
    parts = [shape[0]]
    encoder = config.encoder
    assert isinstance(encoder, TransformerConfig)
    if len(names) > 1:
        parts = [shape[0] // len(names)] * len(names)
        if ".attention.qkv." in ours:
            groups = encoder.kv_heads or encoder.heads
            value_width = encoder.value_width or encoder.key_width
            parts = [encoder.heads * encoder.key_width, groups * encoder.key_width, groups * value_width]
    return Place(ours, names, tuple((part, *shape[1:]) for part in parts), row, encoder.heads)


def joined(place: Place, parts: Sequence[Tensor], shape: Shape) -> Tensor:
    """Their weights -> ours, in float32."""
    if not parts:
        return torch.zeros(shape)
    found = torch.cat([part.float() for part in parts]) if len(parts) > 1 else parts[0].float()
    if place.row.swapped:
        found = torch.cat(found.chunk(2)[::-1])
    if place.row.by_head:
        found = found.reshape(place.heads, 3, -1).transpose(0, 1)
    return found.reshape(shape)


def parted(place: Place, ours: Tensor) -> dict[str, Tensor]:
    """Our weight -> theirs by name; nothing when theirs has no such weight."""
    if not place.theirs:
        return {}
    if place.row.swapped:
        ours = torch.cat(ours.chunk(2)[::-1])
    if place.row.by_head:
        ours = ours.reshape(3, place.heads, -1).transpose(0, 1).reshape(ours.shape)
    if place.row.shape is not None:
        ours = ours.reshape(place.shapes[0])
    parts = ours.split([shape[0] for shape in place.shapes])
    return {names.split("|")[0]: part for names, part in zip(place.theirs, parts)}


def unplaced(found: Sequence[Place], weights: Mapping[str, Tensor]) -> list[str]:
    """Our weights that are not zero, although theirs has none of the kind."""
    return [place.ours for place in found if not place.theirs and bool(weights[place.ours].any())]


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a weight is one of those named by patterns like `pooler.*`."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
