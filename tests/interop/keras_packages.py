"""Prints what the environment of the Keras tests needs: all that encodery needs but torch, and the extras of Keras."""

from __future__ import annotations

import tomllib
from pathlib import Path

with (Path(__file__).parent.parent.parent / "pyproject.toml").open("rb") as file:
    project = tomllib.load(file)["project"]
wanted = [entry for entry in project["dependencies"] if not entry.startswith("torch")]
for extra in ("keras", "tensorflow", "jax", "demo"):
    wanted += project["optional-dependencies"][extra]
print("\n".join([*wanted, "pytest>=8"]))
