"""The nested state of optimizers and random generators as tensors and JSON, and back, bit for bit."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

Generators = Mapping[str, "np.random.Generator | torch.Generator"]


def pack_state(nested: Any) -> tuple[dict[str, Tensor], Any]:
    """Split a nest of dicts, lists and tuples into tensors, by name, and a JSON value that refers to them.

    Leaves: None, bool, int (of any size), float (infinities and the bits of a nan are kept), str, tensors,
    numpy arrays; keys: int or str. Raises TypeError that names the place for anything else.
    """
    tensors: dict[str, Tensor] = {}
    return tensors, _pack(nested, "", tensors)


def unpack_state(tensors: Mapping[str, Tensor], packed: Any) -> Any:
    """The nest that `pack_state` took apart. Raises KeyError when a tensor it refers to is not there."""
    if isinstance(packed, list):
        return [unpack_state(tensors, item) for item in packed]
    if not isinstance(packed, dict):
        return packed
    ((kind, value),) = packed.items()
    if kind == "dict":
        return {key: unpack_state(tensors, item) for key, item in value}
    if kind == "tuple":
        return tuple(unpack_state(tensors, item) for item in value)
    if kind == "float":
        return struct.unpack(">d", bytes.fromhex(value))[0]
    if kind == "tensor":
        return tensors[value]
    if kind == "array":
        raw = tensors[value["bytes"]].numpy().tobytes()
        return np.frombuffer(raw, dtype=value["dtype"]).reshape(value["shape"]).copy()
    raise ValueError(f"packed state of an unknown kind: {kind!r}")


def _pack(value: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    if value is None or type(value) in (bool, int, str):
        return value
    if isinstance(value, float):  # JSON keeps finite floats exactly in Python, and has no others
        return float(value) if math.isfinite(value) else {"float": struct.pack(">d", value).hex()}
    if isinstance(value, Tensor):
        return {"tensor": _named(value.detach(), place, tensors)}
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        # Raw bytes, because torch lacks some of numpy's types.
        raw = torch.frombuffer(bytearray(value.tobytes()), dtype=torch.uint8) if value.size else torch.empty(0)
        name = _named(raw.to(torch.uint8), place, tensors)
        return {"array": {"bytes": name, "dtype": value.dtype.str, "shape": list(value.shape)}}
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        items = [_pack(item, f"{place}/{index}", tensors) for index, item in enumerate(value)]
        return items if isinstance(value, list) else {"tuple": items}
    if isinstance(value, Mapping):
        for key in value:
            if type(key) not in (int, str):
                raise TypeError(f"state at '{place or '/'}' has the key {key!r}; keys are int or str")
        return {"dict": [[key, _pack(item, f"{place}/{key}", tensors)] for key, item in value.items()]}
    raise TypeError(f"state at '{place or '/'}' is a {type(value).__name__}, which cannot be saved")


def _named(tensor: Tensor, place: str, tensors: dict[str, Tensor]) -> str:
    base = place.strip("/") or "value"
    name, count = base, 1
    while name in tensors:  # the keys 1 and "1" share a place
        count += 1
        name = f"{base}~{count}"
    tensors[name] = tensor
    return name


def rng_state(generators: Generators) -> dict[str, Any]:
    """Where each random generator stands, as a nest for `pack_state`."""
    return {
        name: generator.get_state() if isinstance(generator, torch.Generator) else generator.bit_generator.state
        for name, generator in generators.items()
    }


def restore_rng(generators: Generators, state: Mapping[str, Any]) -> None:
    """Set each generator to where `rng_state` found it.

    Raises ValueError when the names differ, or a generator is of another kind than the saved one.
    """
    if set(generators) != set(state):
        raise ValueError(f"random states saved for {sorted(state)}, wanted for {sorted(generators)}")
    for name, generator in generators.items():
        if isinstance(generator, torch.Generator):
            generator.set_state(state[name])
        else:
            generator.bit_generator.state = state[name]
