"""Vectors of tokens made from their characters: sums of hashed n-grams, or a convolution with highway layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor, nn

from encodery.bricks.products import Linear
from encodery.errors import ConfigError
from encodery.frontends.fitting import least_squares, whitening
from encodery.frontends.hashing import GOLDEN, mixed, rows_of

MOST_CHARACTERS = 32  # of one token, with the space before it; what stands behind them is left out
NO_TEXT = 0x110000  # behind the last character there is: begins a token without text; digits of its number follow
RESERVED = 12  # vectors of characters for what is no character: the end of a token, NO_TEXT and ten digits
NOTHING = -1  # behind the last character of a token
# Distinct tokens, and windows over their characters, are filled up to a multiple of so many: products keep few shapes.
UNITS_AT_ONCE, WINDOWS_AT_ONCE = 128, 1024
TOKENS_AT_ONCE = 8192
LEAST = -100.0  # below every value of a filter; its tanh is -1


class Spelled(nn.Module):
    """What both kinds share: `spelling` (V, MOST_CHARACTERS) int32 holds the characters of each token.

    It is handed in once by `spell` and saved with the weights, so that a model needs nothing beside its folder.
    """

    spelling: Tensor

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.register_buffer("spelling", torch.full((vocab_size, MOST_CHARACTERS), NOTHING, dtype=torch.int32))
        self.spelled = False
        self.register_load_state_dict_post_hook(lambda module, _: module.derive())

    def spell(self, tokens: Sequence[str | None]) -> None:
        """Set `spelling` from the text of each token (`Tokenizer.written`); None stands for one that is no text."""
        if len(tokens) != self.vocab_size:
            raise ConfigError(
                f"the spelling of {len(tokens):,} tokens for a model of {self.vocab_size:,}",
                fix="take the tokenizer that the model was made for",
            )
        for number, text in enumerate(tokens):
            codes = _numbered(number) if text is None else [ord(char) for char in text[:MOST_CHARACTERS]]
            self.spelling[number, : len(codes)] = torch.tensor(codes, dtype=torch.int32)
            self.spelling[number, len(codes) :] = NOTHING
        self.derive()

    def derive(self) -> None:
        """What follows from the spelling, made once it is known."""
        self.spelled = self.spelling.device.type != "meta" and bool((self.spelling[:, 0] != NOTHING).any())

    def require_spelling(self) -> None:
        if not self.spelled:
            raise ConfigError(
                "this model makes vectors from characters, and was not told those of its tokens",
                fix="call model.frontend.spell(tokenizer.written()) once after it is built",
            )


def _numbered(token: int) -> list[int]:
    return [NO_TEXT, *(NO_TEXT + 1 + int(digit) for digit in str(token))]


class Ngrams(Spelled):
    """A token's vector is the sum of the rows of its runs of characters, and of one for the whole: (P,) -> (P, E).

    e(w) = (T[whole w] + sum_{g in w} T[g]) / sqrt(runs of w + 1)

    (Bojanowski et al. 2017, "Enriching Word Vectors with Subword Information", section 3.2, with the space before a
    word as its boundary mark; the root keeps long tokens as large as short ones.) Runs of `lengths` characters are
    hashed into `rows` rows. `features` holds the rows of all tokens one after the other, `starts` (V + 1,) where each
    begins.
    """

    features: Tensor
    starts: Tensor

    def __init__(self, vocab_size: int, width: int, *, rows: int, lengths: tuple[int, int]) -> None:
        super().__init__(vocab_size)
        self.lengths = lengths
        self.table = nn.Parameter(torch.empty(rows, width))
        self.register_buffer("features", torch.zeros(0, dtype=torch.int64), persistent=False)
        self.register_buffer("starts", torch.zeros(vocab_size + 1, dtype=torch.int64), persistent=False)

    def initialise(self, std: float, generator: torch.Generator) -> None:
        with torch.no_grad():
            self.table.normal_(0.0, std, generator=generator)

    def derive(self) -> None:
        super().derive()
        if not self.spelled:
            return
        codes = self.spelling.to(torch.int64)
        there = codes != NOTHING
        run = mixed(codes + GOLDEN)
        whole, keys, whose = run[:, 0], [], []
        for size in range(1, self.lengths[1] + 1):
            if size > 1:
                run = mixed(run[:, :-1] * 31 + codes[:, size - 1 :])
            if self.lengths[0] <= size:
                inside = there[:, size - 1 :]
                keys.append(run[inside])
                whose.append(inside.nonzero()[:, 0])
        for place in range(1, MOST_CHARACTERS):
            whole = torch.where(there[:, place], mixed(whole * 37 + codes[:, place]), whole)
        keys.append(mixed(whole + 1))
        whose.append(torch.arange(self.vocab_size, device=codes.device))
        owner = torch.cat(whose)
        order = torch.argsort(owner, stable=True)
        self.features = rows_of(torch.cat(keys), self.table.shape[0])[order]
        counts = torch.bincount(owner, minlength=self.vocab_size)
        self.starts = F.pad(torch.cumsum(counts, 0), (1, 0))

    def forward(self, ids_P: Tensor) -> Tensor:
        distinct, place = torch.unique(ids_P, return_inverse=True)
        return F.embedding(place, self._made(distinct))

    def matrix(self) -> Tensor:
        """The vectors of all tokens, (V, E), made anew."""
        self.require_spelling()
        counts = self.starts.diff()
        return self._summed(self.features, self.starts[:-1], counts)

    def _made(self, ids_U: Tensor) -> Tensor:
        self.require_spelling()
        begins = self.starts[ids_U]
        counts = self.starts[ids_U + 1] - begins
        offsets = torch.cumsum(counts, 0) - counts
        # The place of each feature in the long list: that of its token's first, and how many it stands behind it.
        place = torch.repeat_interleave(begins - offsets, counts)
        place += torch.arange(place.numel(), device=place.device)
        return self._summed(self.features[place], offsets, counts)

    def _summed(self, features: Tensor, offsets: Tensor, counts: Tensor) -> Tensor:
        total = F.embedding_bag(features, self.table, offsets, mode="sum")
        return total * counts.to(total.dtype).rsqrt()[:, None]

    @torch.no_grad()
    def start(self, wanted: np.ndarray, weight: np.ndarray) -> None:
        """Begin near the vectors `wanted` (V, E), nearest for tokens of much `weight` (V,)."""
        self.require_spelling()
        starts, features = self.starts.cpu().numpy(), self.features.cpu().numpy()
        counts = np.diff(starts)
        share = np.repeat(1 / np.sqrt(counts), counts).astype(np.float32)
        design = sparse.csr_matrix((share, features, starts), shape=(self.vocab_size, self.table.shape[0]))
        self.table.copy_(torch.from_numpy(least_squares(design, wanted, weight)))


class ConvolvedCharacters(Spelled):
    """A convolution over a token's characters, the largest value of each filter, highway layers: (P,) -> (P, E)
    (Kim et al. 2016, "Character-Aware Neural Language Models", sections 2.2 and 2.3; the last linear layer brings it to
    width E, as in ELMo, Peters et al. 2018).

    `kernels` are the widths of the filters; there are `filters` times the width of each. Characters are hashed into
    `rows` vectors of `character_width` numbers: one for each character of most scripts, shared ones in Chinese.
    `center` and `scale` (F,) are what a filter finds in the tokens of the vocabulary at first, see `spread`.
    """

    center: Tensor
    scale: Tensor

    def __init__(
        self,
        vocab_size: int,
        width: int,
        *,
        rows: int,
        character_width: int,
        kernels: tuple[int, ...],
        filters: int,
        highway_layers: int,
    ) -> None:
        super().__init__(vocab_size)
        self.kernels = kernels
        self.characters = nn.Parameter(torch.empty(rows, character_width))
        self.convolutions = nn.ModuleList(Linear(kernel * character_width, kernel * filters) for kernel in kernels)
        inner = filters * sum(kernels)
        self.register_buffer("center", torch.zeros(inner))
        self.register_buffer("scale", torch.ones(inner))
        self.highway = nn.ModuleList(Linear(inner, 2 * inner) for _ in range(highway_layers))
        self.outer = Linear(inner, width)

    def initialise(self, std: float, generator: torch.Generator) -> None:
        with torch.no_grad():
            self.characters.normal_(0.0, 1.0, generator=generator)
            for layer in (*self.convolutions, *self.highway, self.outer):
                assert isinstance(layer, Linear)
                # Small enough that the largest values of filters are not all at the end of tanh.
                layer.weight.normal_(0.0, 0.5 * layer.in_features**-0.5, generator=generator)
                layer.bias.zero_()
            for layer in self.highway:
                # At first most of each vector passes as it is (Srivastava et al. 2015, section 2.2).
                layer.bias[: layer.in_features] = -2.0  # type: ignore[index]
            # What comes in is half as large as 1, on average.
            self.outer.weight.mul_(4 * std)

    def forward(self, ids_P: Tensor) -> Tensor:
        distinct, place = torch.unique(ids_P, return_inverse=True)
        more = -distinct.numel() % UNITS_AT_ONCE
        return F.embedding(place, self.made(F.pad(distinct, (0, more))))

    def matrix(self) -> Tensor:
        """The vectors of all tokens, (V, E), made anew: for a large vocabulary dearer than a whole encoder."""
        return torch.cat([self.made(ids) for ids in self._all()])

    def _all(self) -> Iterable[Tensor]:
        """The ids of all tokens, some thousand at a time: their windows take a hundred times their room."""
        return torch.arange(self.vocab_size, device=self.spelling.device).split(TOKENS_AT_ONCE)

    def made(self, ids_U: Tensor) -> Tensor:
        """The vectors of the tokens `ids_U` (U,), each made once: (U, E)."""
        return self.outer(self._passed(self._found(ids_U)))

    def _found(self, ids_U: Tensor) -> Tensor:
        """The largest value of each filter over the characters of a token, through tanh: (U,) -> (U, F)."""
        self.require_spelling()
        codes_UT = self.spelling[ids_U].to(torch.int64)
        counts_U = (codes_UT != NOTHING).sum(1)
        # Only characters that are there begin a window: place (N,) of each, whose it is, and where in its token.
        whose_N = torch.repeat_interleave(torch.arange(ids_U.numel(), device=ids_U.device), counts_U)
        within_N = torch.arange(whose_N.numel(), device=ids_U.device) - (torch.cumsum(counts_U, 0) - counts_U)[whose_N]
        more = -whose_N.numel() % WINDOWS_AT_ONCE
        whose_N, within_N = F.pad(whose_N, (0, more), value=ids_U.numel()), F.pad(within_N, (0, more))
        reach = torch.arange(max(self.kernels), device=ids_U.device)
        codes_UT = F.pad(codes_UT, (0, reach.numel() - 1, 0, 1), value=NOTHING)
        codes_NK = codes_UT[whose_N[:, None], within_N[:, None] + reach]
        rows_NK = RESERVED + codes_NK % (self.characters.shape[0] - RESERVED)
        rows_NK = torch.where(codes_NK >= NO_TEXT, 1 + codes_NK - NO_TEXT, rows_NK)
        rows_NK = torch.where(codes_NK == NOTHING, 0, rows_NK)
        x_NKC = F.embedding(rows_NK, self.characters)
        found = []
        for kernel, layer in zip(self.kernels, self.convolutions):
            values = layer(x_NKC[:, :kernel].flatten(1))
            least = values.new_full((ids_U.numel() + 1, values.shape[1]), LEAST)
            index = whose_N[:, None].expand_as(values)
            found.append(least.scatter_reduce(0, index, values, "amax")[:-1])
        # tanh grows with what it is given, so it may as well come after the largest value: there are fewer of these.
        return torch.tanh(torch.cat(found, dim=1))

    def _passed(self, x_UF: Tensor) -> Tensor:
        """Through the highway layers, each value first compared with what it usually is."""
        x_UF = (x_UF - self.center.to(x_UF.dtype)) * self.scale.to(x_UF.dtype)
        for layer in self.highway:
            gate, changed = layer(x_UF).chunk(2, dim=1)
            gate = torch.sigmoid(gate)
            x_UF = gate * torch.relu(changed) + (1 - gate) * x_UF
        return x_UF

    def flops(self) -> float:
        """Forward FLOPs for one distinct token of eight characters."""
        convolutions = 8 * sum(layer.weight.numel() for layer in self.convolutions)  # type: ignore[operator,union-attr]
        dense = sum(layer.weight.numel() for layer in (*self.highway, self.outer))  # type: ignore[operator,union-attr]
        return 2.0 * (convolutions + dense)

    @torch.no_grad()
    def spread(self, std: float, weight: np.ndarray) -> None:
        """Let fresh vectors differ from each other, by `std` in all directions; tokens count by `weight` (V,).

        As filters are drawn, they find nearly the same in every token: a few large values common to all. A step of Adam
        moves these far more than what tells tokens apart, and nothing is learned for thousands of steps (sst2: chance
        after 300, against 76 % with what is common taken off and the last layer whitened).
        """
        found = self._of_all(self._found)
        center = np.average(found, axis=0, weights=weight)
        self.center.copy_(torch.from_numpy(center))
        size = np.sqrt(np.average((found - center) ** 2, axis=0, weights=weight))
        self.scale.copy_(torch.from_numpy(1 / np.maximum(size, 1e-3)))
        features, center = self._centered(weight)
        rng = np.random.default_rng(self.vocab_size)
        directions = rng.normal(0.0, std * features.shape[1] ** -0.5, (features.shape[1], self.outer.out_features))
        self._set_outer(whitening(features, weight, ridge=0.1) @ directions, center)

    def start(self, wanted: np.ndarray, weight: np.ndarray) -> None:
        """Begin spread out as the vectors `wanted` (V, E). What a linear layer or some hundred steps of descent bring
        towards these themselves makes no difference to a training: 100 steps of masked words end at the same loss."""
        self.spread(float(wanted.std()), weight)

    def _of_all(self, what: Callable[[Tensor], Tensor]) -> np.ndarray:
        return np.concatenate([what(ids).float().cpu().numpy() for ids in self._all()])

    def _centered(self, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the last layer gets of all tokens, without its mean (V, F), and the mean (F,)."""
        features = self._of_all(lambda ids: self._passed(self._found(ids)))
        center = np.average(features, axis=0, weights=weight)
        return features - center, center

    def _set_outer(self, matrix_FE: np.ndarray, center: np.ndarray) -> None:
        self.outer.weight.copy_(torch.from_numpy(matrix_FE.T))
        self.outer.bias.copy_(torch.from_numpy(-center @ matrix_FE))
