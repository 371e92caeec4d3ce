"""What is learned without labels, by its config: the objective, its readout, what it is called and what is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from encodery.data.corpus import Reading
from encodery.data.links import Described, describe, read_graph
from encodery.data.sentences import SENTENCE
from encodery.data.store import TokenStore
from encodery.data.tokenizers import Tokenizer
from encodery.errors import ConfigError, DataError
from encodery.heads.decoding.generation_options import GenerationConfig
from encodery.heads.options import ReadoutConfig, SeveralReadoutConfig
from encodery.objectives.causal import Causal, CausalConfig
from encodery.objectives.contrastive import Contrastive
from encodery.objectives.contrastive_options import ContrastConfig
from encodery.objectives.denoise import Denoise, DenoiseConfig
from encodery.objectives.distil import Distil, DistilConfig
from encodery.objectives.knowledge import KnowledgeMasked, KnowledgeMaskedConfig
from encodery.objectives.masked import Masked, MaskedConfig
from encodery.objectives.order import OrderConfig, Ordered
from encodery.objectives.reconstruct import Autoencode, AutoencodeConfig
from encodery.objectives.replaced import Replaced, ReplacedConfig
from encodery.objectives.several import Several, SeveralConfig
from encodery.trained import Task, Trained

WRITING = {
    "metric": "bleu",
    "bleu_tokenizer": "13a",
    "generation": GenerationConfig().model_dump(mode="json"),
    "tried": 0,
    "most_tokens": None,
}
"""How a denoised model writes when it is asked to."""
TITLES = {
    "masked": "masked words",
    "knowledge": "masked words and triples",
    "replaced": "replaced words",
    "order": "masked words and the order of sentences",
    "autoencode": "texts written from one vector",
    "denoise": "texts written from noised ones",
    "distil": "a teacher's vectors",
    "contrast": "texts told apart",
    "causal": "next tokens",
}


def title_of(config: Any) -> str:
    """What is learned, in a few words."""
    if isinstance(config, SeveralConfig):
        return " + ".join(TITLES[part.kind] for part in config.objectives)
    return str(TITLES.get(config.kind, config.kind))


def teacher_of(config: Any, base: Path) -> Trained | None:
    """The teacher that an objective names. Raises WeightsError for a folder that is none of a model."""
    if isinstance(config, SeveralConfig):
        return next((teacher_of(part, base) for part in config.objectives if isinstance(part, DistilConfig)), None)
    return Trained.load(base / config.teacher) if isinstance(config, DistilConfig) else None


def same_tokenizer(config: Any, base: Path, start: Trained | None) -> Trained | None:
    """Whose tokenizer the run takes: that of its starting point, else that of a teacher. Raises ConfigError when the
    two differ: student and teacher must read the same tokens."""
    teacher = teacher_of(config, base)
    if start is not None and teacher is not None and start.tokenizer.hash() != teacher.tokenizer.hash():
        raise ConfigError(
            "the starting point and the teacher have different tokenizers",
            expected="two models that read the same tokens",
            fix="leave start_from out: the student then takes the teacher's tokenizer",
        )
    return start or teacher


def unlabelled_objective(
    config: Any, reading: Reading, tokenizer: Tokenizer, max_length: int
) -> tuple[Any, Described | None]:
    """The objective of a recipe; where triples are learned beside the words, with their entities as texts.

    Raises ConfigError when the recipe names no triples to learn, or a teacher that cannot teach this; DataError and
    WeightsError for files that are missing or damaged.
    """
    if isinstance(config, KnowledgeMaskedConfig):
        return _with_triples(config, reading, tokenizer, max_length)
    if isinstance(config, SeveralConfig):
        parts = [unlabelled_objective(part, reading, tokenizer, max_length)[0] for part in config.objectives]
        weights = config.weights or (1.0,) * len(parts)
        return Several(parts, weights, [part.kind for part in config.objectives]), None
    if isinstance(config, DistilConfig):
        teacher = teacher_of(config, reading.base)
        assert teacher is not None
        held = teacher.model.config.encoder.max_length
        if held < max_length:
            raise ConfigError(
                f"texts have up to {max_length:,} tokens, the teacher {config.teacher} can hold {held:,}",
                fix=f"set encoder.max_length to {held} or less",
            )
        return Distil(config, teacher.model), None
    if isinstance(config, ContrastConfig):
        return Contrastive(config), None
    if isinstance(config, CausalConfig):
        return Causal(config, max_length), None
    return _of_vocabulary(config, tokenizer.vocab_size, tokenizer.mask_id, frozenset(tokenizer.special_ids)), None


def unlabelled_readout(config: Any, base: Path) -> ReadoutConfig:
    """The readout of an objective that has no triples, without data and tokenizer: for its size."""
    if isinstance(config, SeveralConfig):
        parts = tuple(unlabelled_readout(part, base) for part in config.objectives)
        return SeveralReadoutConfig(parts=parts)  # type: ignore[arg-type]
    if isinstance(config, DistilConfig):
        teacher = teacher_of(config, base)
        assert teacher is not None
        return Distil(config, teacher.model).readout()
    if isinstance(config, ContrastConfig):
        return Contrastive(config).readout()
    if isinstance(config, CausalConfig):
        return Causal(config, 0).readout()
    return _of_vocabulary(config, 8, 4, frozenset()).readout()


def asked_share(config: Any) -> float:
    """The share of the positions for which words are asked: what the product with the vocabulary is made for."""
    if isinstance(config, SeveralConfig):
        return sum(asked_share(part) for part in config.objectives)
    if isinstance(config, KnowledgeMaskedConfig):
        return config.share * (1 - config.entity_share)
    if isinstance(config, AutoencodeConfig):
        return config.asked + (config.taken if config.method == "retromae" else 0.0)
    if isinstance(config, MaskedConfig):
        return config.share
    return 0.0 if isinstance(config, DistilConfig | ContrastConfig) else 1.0


def kept_task(config: Any, objective: Any, long: Any) -> Task:
    """What the model that is kept can be asked."""
    if isinstance(config, SeveralConfig):
        return kept_task(config.objectives[0], objective.parts[0], long)
    if isinstance(config, ContrastConfig | CausalConfig):
        return objective.task()
    if isinstance(config, DenoiseConfig):
        return Task("write", long=long, detail=WRITING)
    kinds: dict[str, Any] = {"replaced": "replaced", "autoencode": "vectors", "distil": "vectors"}
    return Task(kinds.get(config.kind, "masked"), long=long)


def check_texts(config: Any, store: TokenStore) -> None:
    """Raises DataError for training texts from which an objective could learn nothing."""
    kinds = [part.kind for part in config.objectives] if isinstance(config, SeveralConfig) else [config.kind]
    if "order" in kinds and not store.facts["fields"][SENTENCE]["texts of several"]:
        raise DataError(
            "no training text has more than one sentence, so there is no order to learn",
            expected="documents of several sentences: a sentence a line with blank lines between documents "
            "(documents: blank), or texts whose sentences end with a stop",
            fix="set documents: blank for the source, or learn with objective.kind: masked",
        )


def _of_vocabulary(config: Any, vocab_size: int, mask_id: int, special_ids: frozenset[int]) -> Any:
    """Objectives that need to know the tokens, and nothing else."""
    kinds: dict[type, Any] = {
        ReplacedConfig: Replaced,
        OrderConfig: Ordered,
        AutoencodeConfig: Autoencode,
        DenoiseConfig: Denoise,
        MaskedConfig: Masked,
    }
    return kinds[type(config)](config, vocab_size=vocab_size, mask_id=mask_id, special_ids=special_ids)


def _with_triples(
    config: KnowledgeMaskedConfig, reading: Reading, tokenizer: Tokenizer, max_length: int
) -> tuple[KnowledgeMasked, Described]:
    known = reading.data.knowledge
    if known is None or known.triples is None:
        raise ConfigError(
            "objective.kind: knowledge learns triples, and the recipe names none",
            expected="data.knowledge.triples: FILE, and data.knowledge.descriptions: FILE",
            fix="name them, or use objective.kind: masked",
        )
    graph = read_graph(known, reading.base)
    described = describe(graph, known, reading.base, tokenizer, most_tokens=config.entity_tokens, frame_room=max_length)
    return KnowledgeMasked.joint(config, tokenizer, graph), described
