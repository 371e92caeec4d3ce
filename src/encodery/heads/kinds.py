"""Every kind of readout by its config."""

from __future__ import annotations

from encodery.frontends.text import TextFrontend
from encodery.heads.links import LinkReadout
from encodery.heads.options import DocumentReadoutConfig, LinkReadoutConfig, ReadoutConfig, WordReadoutConfig
from encodery.heads.readouts import DocumentReadout, VectorReadout, WordReadout

Readout = WordReadout | DocumentReadout | VectorReadout
"""States -> Output, given the batch: all have `initialise(generator)`."""


def make_readout(config: ReadoutConfig, width: int, frontend: TextFrontend) -> Readout:
    """The readout that `config` describes, on vectors of `width` (D)."""
    if isinstance(config, LinkReadoutConfig):
        return LinkReadout(config, width, frontend)
    if isinstance(config, WordReadoutConfig):
        return WordReadout(config, width, frontend)
    if isinstance(config, DocumentReadoutConfig):
        return DocumentReadout(config, width, frontend.vocab_size)
    return VectorReadout(config, width)
