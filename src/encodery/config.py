"""Recipes as strict typed trees: YAML + `key=value` -> one validated Config, with the source of every value."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """Parent of every config class: frozen, and an unknown key is an error. A field's docstring is its help."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)
