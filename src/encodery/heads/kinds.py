"""Every kind of readout by its config."""

from __future__ import annotations

from encodery.encoders.kinds import EncoderConfig
from encodery.frontends.text import TextFrontend
from encodery.heads.autoencode import AutoencodeReadout
from encodery.heads.decoding.decoder import Decoder
from encodery.heads.decoding.options import DecoderConfig
from encodery.heads.distil import DistilReadout
from encodery.heads.late_interaction import TokenReadout
from encodery.heads.links import LinkReadout
from encodery.heads.options import (
    AutoencodeReadoutConfig,
    DistilReadoutConfig,
    DocumentReadoutConfig,
    LinkReadoutConfig,
    OrderReadoutConfig,
    OrdinalReadoutConfig,
    ReadoutConfig,
    ReplacedReadoutConfig,
    SeveralReadoutConfig,
    SpanReadoutConfig,
    WordReadoutConfig,
)
from encodery.heads.order import OrderReadout
from encodery.heads.ordinal import OrdinalReadout
from encodery.heads.passes import OwnPass
from encodery.heads.readouts import DocumentReadout, VectorReadout, WordReadout
from encodery.heads.replaced import ReplacedReadout
from encodery.heads.several import SeveralReadout
from encodery.heads.spans import SpanReadout
from encodery.heads.tagging.options import TagReadoutConfig
from encodery.heads.tagging.tags import TagReadout
from encodery.heads.vector_options import TokenReadoutConfig

Readout = (
    WordReadout
    | Decoder
    | DocumentReadout
    | VectorReadout
    | TokenReadout
    | TagReadout
    | SpanReadout
    | OrdinalReadout
    | OwnPass
)
"""States -> Output, given the batch: all have `initialise(generator)`."""


def make_readout(config: ReadoutConfig, encoder: EncoderConfig, frontend: TextFrontend) -> Readout:
    """The readout that `config` describes, on the vectors of `encoder`."""
    width = encoder.width
    if isinstance(config, DecoderConfig):
        return Decoder(config.like(encoder), width, frontend)
    if isinstance(config, ReplacedReadoutConfig):
        return ReplacedReadout(config, encoder, frontend)
    if isinstance(config, AutoencodeReadoutConfig):
        return AutoencodeReadout(config, encoder, frontend)
    if isinstance(config, DistilReadoutConfig):
        return DistilReadout(config, encoder)
    if isinstance(config, SeveralReadoutConfig):
        return SeveralReadout([make_readout(part, encoder, frontend) for part in config.parts])
    if isinstance(config, OrderReadoutConfig):
        return OrderReadout(config, width, frontend)
    if isinstance(config, LinkReadoutConfig):
        return LinkReadout(config, width, frontend)
    if isinstance(config, WordReadoutConfig):
        return WordReadout(config, width, frontend)
    if isinstance(config, SpanReadoutConfig):
        return SpanReadout(config, width)
    if isinstance(config, OrdinalReadoutConfig):
        return OrdinalReadout(config, width)
    if isinstance(config, DocumentReadoutConfig):
        return DocumentReadout(config, width, frontend.vocab_size)
    if isinstance(config, TokenReadoutConfig):
        return TokenReadout(config, width)
    if isinstance(config, TagReadoutConfig):
        return TagReadout(config, width, frontend.vocab_size)
    return VectorReadout(config, width)
