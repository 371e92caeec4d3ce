"""The options of the decoder: what writes a text while it looks at the vectors of an encoder."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from encodery.config import Config
from encodery.encoders.hierarchical_options import HierarchicalConfig
from encodery.encoders.options import TransformerConfig
from encodery.encoders.pattern_rules import PatternName
from encodery.encoders.recurrent_options import RecurrentConfig


class CausalTransformerConfig(TransformerConfig):
    """A stack of Transformer blocks that see only what stands before them; all options are those of the encoder."""

    pattern: PatternName = "causal"
    """Always causal: what is still to be written cannot be seen."""

    def _problems(self) -> list[str]:
        found = super()._problems()
        if self.pattern != "causal":
            found.append(f"a decoder sees only what it has written: pattern causal, not {self.pattern}")
        if self.positions in ("grid", "rotary_grid"):
            found.append(f"positions {self.positions} are for pictures; rotary fits a text")
        if self.fusion is not None:
            found.append("a decoder fuses no entities: leave fusion out")
        return found


class ForwardRecurrentConfig(RecurrentConfig):
    """A recurrent stack that asks the source by additive attention; all options are those of the recurrent encoder."""

    directions: Literal["both", "forward"] = "forward"
    """Always forward: what is still to be written cannot be read."""

    @model_validator(mode="after")
    def _reads_forward(self) -> ForwardRecurrentConfig:
        if self.directions != "forward":
            raise ValueError("a decoder reads only what it has written: directions forward, not both")
        return self


StackConfig = Annotated[CausalTransformerConfig | ForwardRecurrentConfig, Field(discriminator="kind")]


class DecoderConfig(Config):
    """A causal stack that looks at the encoder's vectors and writes a text, token by token."""

    kind: Literal["decoder"] = "decoder"
    stack: StackConfig | None = None
    """transformer or recurrent, with the options of the encoders of these kinds; by default like the encoder."""
    vocabulary: Literal["shared", "own"] = "shared"
    """shared: targets have the tokenizer and the embeddings of the sources; own: a tokenizer and a table for them."""
    vocab_size: int | None = Field(default=None, ge=1)
    """Tokens of an own vocabulary. Taken from its tokenizer."""
    tied: bool = True
    """Whether the output matrix is the table of the target's embeddings (Press and Wolf 2017), or one of its own."""
    pointer: bool = False
    """Whether words of the source can be copied: a gate mixes the vocabulary with where the decoder looks
    (See et al. 2017, section 2.2). Needs a shared vocabulary."""
    embedding_std: float = Field(default=0.1, gt=0, le=10)
    """Spread of an own table of embeddings at the start."""

    @model_validator(mode="after")
    def _can_copy(self) -> DecoderConfig:
        if self.pointer and self.vocabulary != "shared":
            raise ValueError("pointer copies tokens of the source, so it needs vocabulary: shared")
        return self

    def like(self, encoder: TransformerConfig | RecurrentConfig | HierarchicalConfig) -> DecoderConfig:
        """With a stack of its own, or one like the encoder's."""
        if self.stack is not None:
            return self
        given = {key: getattr(encoder, key) for key in type(encoder).model_fields if key != "preset"}
        if isinstance(encoder, RecurrentConfig):
            width = {"hidden_width": None if encoder.hidden_width is None else 2 * encoder.hidden_width}
            stack = ForwardRecurrentConfig(**{**given, **width, "directions": "forward"})
        elif isinstance(encoder, TransformerConfig):
            left = ("halve_after", "fusion", "global_tokens", "global_every", "mlp_kernel", "rotary_base_local")
            fitting = {key: value for key, value in given.items() if key not in left}
            if encoder.positions in ("grid", "rotary_grid"):
                fitting["positions"] = "rotary"
            stack = CausalTransformerConfig(**{**fitting, "pattern": "causal"})
        else:
            wanted = set(CausalTransformerConfig.model_fields) & set(type(encoder).model_fields)
            same = {key: given[key] for key in wanted & set(given) if key != "kind"}
            stack = CausalTransformerConfig(**{**same, "pattern": "causal"})
        return self.model_copy(update={"stack": stack})
