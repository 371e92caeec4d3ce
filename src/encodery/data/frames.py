"""The special tokens that a tokenizer puts around a text and between two: read from its file by letting it work."""

from __future__ import annotations

from dataclasses import dataclass

from encodery.data.tokenizer_training import HfTokenizer

_PROBES = ("a", "1", "the", "好", "-")


@dataclass(frozen=True)
class Frame:
    """The special tokens around a text, and between the two of a pair; `second` is the segment of the second text.

    BERT: `[CLS] a [SEP]`, `[CLS] a [SEP] b [SEP]`. RoBERTa: `<s> a </s>`, `<s> a </s> </s> b </s>`. T5: `a </s>`.
    """

    before: tuple[int, ...]
    between: tuple[int, ...]
    after: tuple[int, ...]
    second: int = 1

    @property
    def single_size(self) -> int:
        """Special tokens of a text alone."""
        return len(self.before) + len(self.after)

    @property
    def pair_size(self) -> int:
        """Special tokens of a pair."""
        return self.single_size + len(self.between)


def frame_of(inner: HfTokenizer) -> Frame | None:
    """What the post-processor puts around texts; None when it adds nothing, or when no text comes back whole."""
    probe = next((text for text in _PROBES if inner.encode(text, add_special_tokens=False).ids), None)
    if probe is None:
        return None
    ids, alone = inner.encode(probe, add_special_tokens=False).ids, inner.encode(probe).ids
    begin = _place_in(alone, ids, 0)
    if begin is None or len(alone) == len(ids):
        return None
    both = inner.encode(probe, probe)
    second = _place_in(both.ids, ids, begin + len(ids))
    if second is None:
        return None
    return Frame(
        before=tuple(alone[:begin]),
        between=tuple(both.ids[begin + len(ids) : second]),
        after=tuple(alone[begin + len(ids) :]),
        second=both.type_ids[second],
    )


def _place_in(whole: list[int], part: list[int], begin: int) -> int | None:
    return next((at for at in range(begin, len(whole)) if whole[at : at + len(part)] == part), None)
