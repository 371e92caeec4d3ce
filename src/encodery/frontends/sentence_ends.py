"""Which tokens end a sentence: told once by their spelling, kept with the weights."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from encodery.errors import ConfigError

_END = re.compile(r"""([.!?…。！？｡．।॥؟۔።։][\s"'”’»」』)\]）】》]*|[^\S\n]*\n\s*)\Z""")
"""A stop of some script, with what closes or follows it; or a line break."""


def ends_sentence(token: str) -> bool:
    """Whether a token, as a text has it, is or has at its end what sentences end with: `.`, ` ?`, `。`, `."`, a line
    break. A stop behind an abbreviation or inside a number cannot be told from others and counts as well."""
    return _END.search(token) is not None


class SentenceEnds(nn.Module):
    """(P,) token ids -> (P,) bool, true where a sentence ends.

    `ends` (V,) bool says it of each token; handed in once by `tell` and saved with the weights.
    """

    ends: Tensor

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.register_buffer("ends", torch.zeros(vocab_size, dtype=torch.bool))
        self.told = False
        self.register_load_state_dict_post_hook(lambda module, _: module.derive())

    def tell(self, tokens: Sequence[str | None]) -> None:
        """Set `ends` from the text of each token (`Tokenizer.written`); None stands for one that is no text.

        Raises ConfigError when none ends a sentence, or the tokens are not those of the model.
        """
        if len(tokens) != len(self.ends):
            raise ConfigError(
                f"the spelling of {len(tokens):,} tokens for a model of {len(self.ends):,}",
                fix="take the tokenizer that the model was made for",
            )
        found = [token is not None and ends_sentence(token) for token in tokens]
        if not any(found):
            raise ConfigError(
                "segment_at: sentences, but no token of the tokenizer ends a sentence",
                expected="tokens such as . ! ? 。 or a line break",
                fix="use segment_at: tokens, or a tokenizer that keeps stops apart from words",
            )
        self.ends.copy_(torch.tensor(found))
        self.derive()

    def derive(self) -> None:
        """Whether it has been told which tokens these are."""
        self.told = self.ends.device.type != "meta" and bool(self.ends.any())

    def forward(self, ids_P: Tensor) -> Tensor:
        if not self.told:
            raise ConfigError(
                "the model has not been told which tokens end sentences",
                fix="call model.frontend.spell(tokenizer.written()) once after it is built",
            )
        return self.ends[ids_P]
