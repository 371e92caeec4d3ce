"""What an objective asks of rows that needs nothing but their texts."""

from __future__ import annotations

from typing import ClassVar

from encodery.config import Config
from encodery.data.fields import Field
from encodery.data.sources import DataConfig, Labels


class TextsAlone(Config):
    """No labels, no fields, each text by itself."""

    compose: ClassVar[str] = "joined"

    @property
    def labels(self) -> Labels:
        """What the rows need as their label."""
        return "none"

    def fields(self, data: DataConfig) -> tuple[Field, ...]:
        """What the rows need beside their text."""
        del data
        return ()
