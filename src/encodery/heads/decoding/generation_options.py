"""How a text is written: greedily, by beam search or by sampling, and what is kept from it. Read without torch."""

from __future__ import annotations

from pydantic import Field, model_validator

from encodery.config import Config


class GenerationConfig(Config):
    """How the next token is chosen, and when a text ends. Without beam and sample it is always the likeliest one."""

    beam: int = Field(default=1, ge=1, le=256)
    """Texts in the making that are kept at each step; 1 is greedy."""
    length_penalty: float = Field(default=1.0, ge=0, le=10)
    """For a beam: finished texts are ranked by log p / ((5 + n) / 6)^length_penalty (Wu et al. 2016, equation 14); 0
    ranks by their probability alone, which favours short ones."""
    sample: bool = False
    """Draw each token from the distribution instead of taking the likeliest."""
    temperature: float = Field(default=1.0, gt=0, le=100)
    """For samples: what logits are divided by; below 1 the likely becomes likelier."""
    top_k: int = Field(default=0, ge=0)
    """For samples: draw from the so many likeliest tokens alone (Fan et al. 2018); 0: from all."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """For samples: draw from the likeliest tokens that together have this probability (Holtzman et al. 2020)."""
    seed: int = Field(default=1, ge=0, lt=2**31)
    """For samples: the same seed draws the same text for the same place in the list of sources."""
    repetition_penalty: float = Field(default=1.0, ge=1, le=100)
    """Log-probabilities of tokens that stand in the text already are multiplied by this; 1: as they are (after Keskar
    et al. 2019, section 4.1)."""
    no_repeat_ngram: int = Field(default=0, ge=0, le=100)
    """No run of so many tokens comes twice (Paulus et al. 2018, section 2.5); 0: they may."""
    min_tokens: int = Field(default=0, ge=0)
    """A text does not end before it has so many tokens."""
    max_tokens: int | None = Field(default=None, ge=1)
    """A text ends when it has so many tokens; by default 2 for each token of the source and 20 more, or what the model
    can hold."""

    @model_validator(mode="after")
    def _possible(self) -> GenerationConfig:
        if self.sample and self.beam > 1:
            raise ValueError(f"sample draws one text, a beam of {self.beam} keeps the likeliest: choose one of them")
        own = ("temperature", "top_k", "top_p")
        changed = [name for name in own if getattr(self, name) != type(self).model_fields[name].default]
        if changed and not self.sample:
            raise ValueError(f"{changed[0]} is for samples: add sample, or leave it out")
        if self.max_tokens is not None and self.max_tokens < self.min_tokens:
            raise ValueError(f"min_tokens {self.min_tokens} is more than max_tokens {self.max_tokens}")
        return self
