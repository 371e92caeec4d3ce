"""Models as ONNX graphs for other programs, written only when the answers stay the same."""

from __future__ import annotations

from encodery.interop.onnx.graph import why_not
from encodery.interop.onnx.writer import write_onnx

__all__ = ["why_not", "write_onnx"]
