"""Model folders of Hugging Face and sentence-transformers, read and written."""

from __future__ import annotations

from encodery.interop.huggingface.families import FAMILIES
from encodery.interop.huggingface.reader import read_huggingface
from encodery.interop.huggingface.vision import TrainedVision, read_vision, write_vision
from encodery.interop.huggingface.writer import write_huggingface

__all__ = ["FAMILIES", "TrainedVision", "read_huggingface", "read_vision", "write_huggingface", "write_vision"]
