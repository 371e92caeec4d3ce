"""Every Hugging Face family that is read and written, by its `model_type`; the first that fits is written."""

from __future__ import annotations

from encodery.interop.huggingface import bert as learned
from encodery.interop.huggingface import prenorm as prenorm
from encodery.interop.huggingface import relative as relative
from encodery.interop.huggingface import rotary as turning
from encodery.interop.huggingface.tables import Family
from encodery.interop.huggingface.vit import VIT

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        learned.BERT,
        turning.MODERNBERT,
        learned.ROBERTA,
        learned.XLM_ROBERTA,
        learned.CAMEMBERT,
        learned.DISTILBERT,
        learned.ELECTRA,
        learned.ALBERT,
        relative.DEBERTA_V2,
        turning.NOMIC_BERT,
        turning.GTE,
        turning.JINA,
        prenorm.EUROBERT,
        relative.T5,
        relative.MT5,
        prenorm.ROBERTA_PRELAYERNORM,
        prenorm.MEGATRON_BERT,
        prenorm.ESM,
        prenorm.PERSIMMON,
    )
}
VISION_FAMILIES: dict[str, Family] = {"vit": VIT}
