"""Whether an ONNX file gives a model's own answers: both are asked the same, and the difference is measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch

from encodery.batch import Sample
from encodery.data.packing import BatchPlan, pack
from encodery.data.samples import LengthCounts, SampleMaker
from encodery.errors import DataError, WeightsError
from encodery.interop.onnx.graph import PaddedRows, answer
from encodery.trained import Trained

ALLOWED = 1e-4
"""Largest difference of two numbers in float32; where answers are larger than 1, this share of the largest."""
LONGEST_ASKED = 700
"""Tokens of the longest text that is compared: long enough for every kernel of attention."""
TEXTS = (
    "",
    "?",
    "Thank you!",
    "The parcel arrived two days late, but the driver was kind.",
    "I would not buy this again: it broke after a week, and nobody answered my letters.",
    "Shares fell by 3.5 % on Tuesday after the bank said that profits would be lower than expected.",
    "The gene is expressed in the liver; its product binds calcium (see Table 2, p < 0.01).",
    "In 1905 four papers changed how physicists think about light, matter, space and time.",
    "the cat sat on the mat and the dog sat under the table and nothing else happened all day long",
    "Das Wetter war schön, aber die Straße nach Köln blieb wegen der Bauarbeiten gesperrt.",
    "Ça va? On se retrouve à l'école après le déjeuner, n'oublie pas ton cahier.",
    "El tren de las ocho llegó tarde otra vez y perdí la reunión.",
    "Поезд опоздал на десять минут, и мы решили идти пешком.",
    "这家酒店的位置很好，房间也很干净，就是早餐太贵了。",
    "今日はとても暑いので、家で本を読んでいます。",
    "القطار تأخر ساعة كاملة هذا الصباح",
    "बारिश के बाद हवा ठंडी हो गई।",
    "def mean(values): return sum(values) / len(values)  # raises ZeroDivisionError for []",
    "Visit https://example.org/a?b=c&d=1 or write to someone@example.org \U0001f642",
    "WARNING: DO NOT OPEN!!! 100% free $$$",
    "e\u0301te\u0301 \u200b nai\u0308ve   spaces\tand\ttabs",
)
"""What every model is asked, whatever it was trained on; as pairs, each with the next one."""


class Session(Protocol):
    """What is asked of an `onnxruntime.InferenceSession`."""

    def run(self, output_names: Any, input_feed: dict[str, np.ndarray]) -> list[np.ndarray]: ...


@dataclass(frozen=True)
class Question:
    """The same texts in both forms: `samples` for the model, `feed` by name of input for the file."""

    name: str
    samples: list[Sample]
    feed: dict[str, np.ndarray]


@dataclass(frozen=True)
class Parity:
    """What was compared: so many texts, the largest difference found, and where."""

    texts: int
    largest: float
    where: str


@dataclass(frozen=True)
class RoundingLoss:
    """What int8 costs on the texts: cosine to the float32 answers, on average and at least, and the share of answers
    (best label, side of 0, or best word) that stay the same; None where there are no logits to decide."""

    texts: int
    cosine: float
    least_cosine: float
    same: float | None


def text_questions(trained: Trained, tokenizer: Any, texts: Sequence[str]) -> list[Question]:
    """Texts as the model's own sampler and as the `tokenizers.Tokenizer` of the export read them. Raises WeightsError
    when the two read one differently."""
    given = [*(text for text in TEXTS if _can_read(trained, text)), *texts]
    maker = replace(trained.maker(), long="cut")
    encoded = trained.tokenizer.encode_batch(given, with_offsets=False)
    pairs = [(number, (number + 1) % len(given)) for number in range(len(given))]
    samples, kept, counts = [], [], LengthCounts()
    for first, second in pairs:
        one, two = ((encoded[number].ids, encoded[number].starts_word) for number in (first, second))
        if not trained.task.joins_pairs:
            samples += maker.single(*one, first, counts)
            kept.append(given[first])
        elif one[0].size + two[0].size + maker.around.pair_size <= maker.max_length:
            # Of a pair that is too long the library may cut a token more of one text, and one less of the other.
            samples += maker.pair(one, two, first, counts)
            kept.append((given[first], given[second]))
    questions = []
    for begin in range(0, len(kept), 32):
        part, feed = samples[begin : begin + 32], feed_of(tokenizer.encode_batch(kept[begin : begin + 32]))
        for row, sample in enumerate(part):
            read = feed["input_ids"][row][feed["attention_mask"][row] > 0]
            if not np.array_equal(read, sample.ids):
                raise WeightsError(
                    f"the tokenizer reads {kept[begin + row]!r:.80} in another way once it is exported: "
                    f"{read.tolist()[:20]} instead of {sample.ids.tolist()[:20]}",
                    fix="make the model folder with a tokenizer of encodery, or one whose post_processor is a template",
                )
        questions.append(Question(f"texts {begin + 1} to {begin + len(part)}", part, feed))
    return questions


def _can_read(trained: Trained, text: str) -> bool:
    """Whether the tokenizer knows the characters of the text, or has a token for what it does not know."""
    try:
        trained.tokenizer.encode_batch([text], with_offsets=False)
    except DataError:
        return False
    return True


def feed_of(encodings: Sequence[Any]) -> dict[str, np.ndarray]:
    """What the `tokenizers` library gives for a padded batch, as the inputs of the file."""
    words = [[-1 if word is None else word for word in encoding.word_ids] for encoding in encodings]
    return {
        "input_ids": np.array([encoding.ids for encoding in encodings], dtype=np.int64),
        "attention_mask": np.array([encoding.attention_mask for encoding in encodings], dtype=np.int64),
        "token_type_ids": np.array([encoding.type_ids for encoding in encodings], dtype=np.int64),
        "word_ids": np.array(words, dtype=np.int64),
    }


def made_questions(trained: Trained, seed: int = 1) -> Iterator[Question]:
    """Random tokens in batches of other shapes: one token, one text, a long one beside short ones, padding in front."""
    rng = np.random.default_rng(seed)
    tokenizer, maker = trained.tokenizer, replace(trained.maker(), long="cut")
    unfit = {*tokenizer.special_ids, *np.flatnonzero(tokenizer.blank).tolist()}
    ids = np.array([number for number in range(tokenizer.vocab_size) if number not in unfit] or [tokenizer.pad_id])
    longest = min(maker.max_length, LONGEST_ASKED)
    for name, sizes, behind in (
        ("one token", [1], True),
        ("one text", [min(longest, 24)], True),
        ("texts of many lengths", [7, 1, 3, min(longest, 30), 2, 12], True),
        ("padding in front", [3, min(longest, 17), 1], False),
        ("a long text", [longest, 1, 5], True),
    ):
        drawn = [(rng.choice(ids, size), rng.random(size) < 0.6) for size in sizes]
        samples = [_made(*one, maker, number) for number, one in enumerate(drawn)]
        yield Question(name, samples, _fed(samples, tokenizer.pad_id, behind))


def _made(ids: np.ndarray, starts_word: np.ndarray, maker: SampleMaker, uid: int) -> Sample:
    """A sample of exactly these tokens but for the special ones around them, where they fit."""
    frame = maker.around
    content = ids.size - frame.single_size
    if content < 1:
        return Sample(ids.astype(np.int64), np.ones(ids.size, dtype=bool), np.zeros(ids.size, dtype=np.int64), uid)
    starts_word[0] = True
    (sample,) = maker.single(ids[:content], starts_word[:content], uid, LengthCounts())
    return sample


def _fed(samples: Sequence[Sample], pad_id: int, behind: bool) -> dict[str, np.ndarray]:
    """Samples as rows of equal length, with the padding behind or in front of them."""
    longest = max(sample.ids.size for sample in samples)

    def rows(values: list[np.ndarray], padding: int) -> np.ndarray:
        made = np.full((len(values), longest), padding, dtype=np.int64)
        for row, value in zip(made, values):
            row[slice(0, value.size) if behind else slice(longest - value.size, longest)] = value
        return made

    return {
        "input_ids": rows([sample.ids for sample in samples], pad_id),
        "attention_mask": rows([np.ones(sample.ids.size) for sample in samples], 0),
        "token_type_ids": rows([sample.segment for sample in samples], 0),
        "word_ids": rows([np.cumsum(sample.starts_word) for sample in samples], -1),
    }


def own_answers(trained: Trained, rows: PaddedRows, question: Question) -> list[np.ndarray]:
    """What the model says of each text, by the way it takes in use: (n, D or V) or (D or C) each."""
    samples = question.samples
    length = max(sample.ids.size for sample in samples)
    plan = BatchPlan(length, [[number] for number in range(len(samples))])
    batch = pack(samples, plan, length * len(samples), trained.tokenizer.pad_id).to(trained.model.device)
    with torch.inference_mode():
        found = answer(trained.model.eval(), rows.part, batch).float().cpu().numpy()
    if not rows.by_token:
        return list(found)
    return [row[: sample.ids.size] for row, sample in zip(found.reshape(len(samples), length, -1), samples)]


def given_answers(session: Session, rows: PaddedRows, question: Question) -> list[np.ndarray]:
    """What the file says of each text, in the same form."""
    (found,) = session.run(None, {name: question.feed[name] for name in rows.inputs})
    if not rows.by_token:
        return list(found)
    masks = question.feed["attention_mask"]
    if found.shape[:2] != masks.shape:
        raise ValueError(f"answers of shape {found.shape} to rows of shape {masks.shape}")
    return [row[mask > 0] for row, mask in zip(found, masks)]


def compare(trained: Trained, rows: PaddedRows, session: Session, questions: Sequence[Question]) -> Parity:
    """The largest difference between the answers of the model and those of the file."""
    worst, where, texts = 0.0, "", 0
    for question in questions:
        wanted, found = own_answers(trained, rows, question), given_answers(session, rows, question)
        for number, (one, other) in enumerate(zip(wanted, found)):
            texts += 1
            difference = _difference(one, other)
            if worst < difference:
                worst = difference
                tokens = question.samples[number].ids.size
                where = f"{question.name}: number {number + 1} of {len(wanted)}, of {tokens} tokens"
    return Parity(texts, worst, where)


def _difference(one: np.ndarray, other: np.ndarray) -> float:
    """The largest of two numbers; infinite where shapes differ or a number is none."""
    if one.shape != other.shape or not (np.isfinite(one).all() and np.isfinite(other).all()):
        return float("inf")
    return float(np.abs(one - other).max(initial=0.0) / max(1.0, np.abs(one).max(initial=0.0)))


def rounding_loss(rows: PaddedRows, exact: Session, rounded: Session, questions: Sequence[Question]) -> RoundingLoss:
    """What a file in int8 says beside the one in float32."""
    wanted = [one for question in questions for one in given_answers(exact, rows, question)]
    found = [one for question in questions for one in given_answers(rounded, rows, question)]
    one, other = (np.concatenate([x.reshape(-1, x.shape[-1]) for x in answers]) for answers in (wanted, found))
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    cosine = (one * other).sum(1) / np.maximum(lengths, 1e-12)
    return RoundingLoss(len(wanted), float(cosine.mean()), float(cosine.min()), _same(rows, one, other))


def _same(rows: PaddedRows, one: np.ndarray, other: np.ndarray) -> float | None:
    if rows.output != "logits" or rows.task == "regress":
        return None
    if rows.task == "multilabel":
        return float(((one > 0) == (other > 0)).mean())
    return float((one.argmax(1) == other.argmax(1)).mean())
