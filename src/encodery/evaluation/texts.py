"""What written texts are worth beside their references: BLEU, chrF, ROUGE, exact match, perplexity, bits per byte.

Counted by the field's own packages (sacrebleu, rouge-score), row by row, so that intervals come from the same counts.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from encodery.errors import MissingExtra
from encodery.evaluation.baselines import UNSPACED_SCRIPTS, mostly_unspaced
from encodery.evaluation.intervals import RESAMPLES, Metric, from_resamples, resampled_sums

BleuTokenizer = Literal["13a", "zh", "char"]
ROUGE = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL"}
"""Our names and those of rouge-score."""
SIGNED = ("bleu", "chrf")


def require_scorers() -> None:
    """Raise MissingExtra when what written texts are scored with is not installed."""
    _sacrebleu()
    _rouge_scorer("13a")


def bleu_tokenizer(references: Sequence[str]) -> BleuTokenizer:
    """How BLEU cuts these texts: zh for Chinese, single characters for other scripts without spaces, else 13a."""
    if not mostly_unspaced(references):
        return "13a"
    letters = [unicodedata.name(char, "") for text in references[:500] for char in text[:1000] if char.isalpha()]
    chinese = sum(name.startswith("CJK") for name in letters)
    others = sum(name.startswith(UNSPACED_SCRIPTS[1:]) for name in letters)
    return "zh" if chinese > 4 * others else "char"


@dataclass(frozen=True)
class TextCounts:
    """For each row what its texts add to the scores: the counts of BLEU (N, 10) and chrF (N, 18), ROUGE (N, 3), and
    whether the text is one of the references (N,). `signatures` say how BLEU and chrF were counted."""

    bleu: np.ndarray
    chrf: np.ndarray
    rouge: np.ndarray
    exact: np.ndarray
    signatures: dict[str, str]

    def each(self, metric: str) -> np.ndarray:
        """The metric of every row alone, (N,): BLEU and chrF of single sentences are not what the corpus has."""
        if metric == "bleu":
            scorer = _sacrebleu().BLEU(effective_order=True, force=True)
            return np.array([scorer._compute_score_from_stats(row.tolist()).score for row in self.bleu])
        if metric == "chrf":
            scorer = _sacrebleu().CHRF()
            return np.array([scorer._compute_score_from_stats(row.tolist()).score for row in self.chrf])
        return self.exact if metric == "written_exactly" else self.rouge[:, list(ROUGE).index(metric)]


def count_texts(
    written: Sequence[str], references: Sequence[Sequence[str]], tokenizer: BleuTokenizer = "13a"
) -> TextCounts:
    """Count each text against its references (of several, as each metric does). Raises MissingExtra."""
    metrics = _sacrebleu()
    most = max(map(len, references))
    streams = [[row[number] if number < len(row) else None for row in references] for number in range(most)]
    found, signatures = [], {}
    for name, scorer in (("bleu", metrics.BLEU(tokenize=tokenizer, force=True)), ("chrf", metrics.CHRF())):
        found.append(np.array(scorer._extract_corpus_statistics(list(written), streams), dtype=np.float64))
        signatures[name] = str(scorer.get_signature())
    rouge = _rouge_scorer(tokenizer)
    shares = np.zeros((len(written), len(ROUGE)))
    for row, (text, right) in enumerate(zip(written, references)):
        best = rouge.score_multi(list(right), text)
        shares[row] = [best[name].fmeasure for name in ROUGE.values()]
    folded = [" ".join(text.split()) for text in written]
    exact = [text in {" ".join(one.split()) for one in right} for text, right in zip(folded, references)]
    return TextCounts(found[0], found[1], shares, np.array(exact, dtype=np.float64), signatures)


def score_texts(counts: TextCounts, *, rng: np.random.Generator, resamples: int = RESAMPLES) -> dict[str, Metric]:
    """BLEU and chrF of the corpus (0 to 100, their signatures as notes), mean ROUGE F, share written exactly."""
    parts = [counts.bleu, counts.chrf, counts.rouge, counts.exact[:, None]]
    sums, _ = resampled_sums(np.concatenate(parts, axis=1), rng, resamples)
    edges = np.cumsum([part.shape[1] for part in parts])[:-1]
    bleu, chrf, rouge, exact = np.split(sums, edges, axis=1)
    metrics, rows = _sacrebleu(), len(counts.exact)
    found = {}
    for name, scorer, stats in (("bleu", metrics.BLEU(force=True), bleu), ("chrf", metrics.CHRF(), chrf)):
        values = np.array([scorer._compute_score_from_stats(row.tolist()).score for row in stats])
        found[name] = from_resamples(values, note=counts.signatures[name], bounds=(0.0, 100.0))
    for place, name in enumerate(ROUGE):
        found[name] = from_resamples(rouge[:, place] / rows, bounds=(0.0, 1.0))
    return {**found, "written_exactly": from_resamples(exact[:, 0] / rows, bounds=(0.0, 1.0))}


def score_surprise(
    nats: np.ndarray, tokens: np.ndarray, sizes: np.ndarray, *, rng: np.random.Generator, resamples: int = RESAMPLES
) -> dict[str, Metric]:
    """Perplexity, exp(nats a token), and bits per byte from the surprise of each row, its tokens and its bytes of UTF-8
    ((N,) each). The end of a text counts as a token and as a byte: that is how a file tells it."""
    sums, _ = resampled_sums(np.stack([nats, tokens, sizes], axis=1), rng, resamples)
    with np.errstate(over="ignore"):
        perplexity = np.exp(np.minimum(sums[:, 0] / sums[:, 1], 700.0))
    return {
        "perplexity": from_resamples(perplexity),
        "bits_per_byte": from_resamples(sums[:, 0] / math.log(2) / sums[:, 2]),
    }


def utf8_sizes(texts: Sequence[str]) -> np.ndarray:
    """Bytes of each text and its end, (N,)."""
    return np.array([len(text.encode("utf-8", "replace")) + 1 for text in texts], dtype=np.float64)


def _sacrebleu() -> Any:
    try:
        from sacrebleu import metrics
    except ImportError as error:
        raise MissingExtra("sacrebleu", "writing", "scoring what was written") from error
    return metrics


def _rouge_scorer(tokenizer: BleuTokenizer) -> Any:
    """Words as rouge-score cuts them, stemmed; of scripts without spaces single characters."""
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise MissingExtra("rouge-score", "writing", "scoring what was written") from error
    names = list(ROUGE.values())
    return RougeScorer(names, use_stemmer=True) if tokenizer == "13a" else RougeScorer(names, tokenizer=_Characters())


class _Characters:
    def tokenize(self, text: str) -> list[str]:
        return [char for char in text.lower() if not char.isspace()]
