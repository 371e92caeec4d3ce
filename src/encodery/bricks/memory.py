"""Memory that the process keeps instead of asking the system for it again at every step."""

from __future__ import annotations

import ctypes
import functools
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of glibc's malloc.h


@functools.cache
def keep_memory() -> bool:
    """Tell the C library's allocator to keep freed blocks, however large; False where it cannot be told.

    A training step allocates and frees hundreds of megabytes of activations. By default each large block goes back to
    the system, and every page of the next one must be fetched and cleared again: a fifth of a step on a CPU. The
    process then holds what its largest step needed, which it would need again anyway.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library (musl)
        return False
    wanted = {_MMAP_THRESHOLD: 1 << 30, _TRIM_THRESHOLD: (1 << 31) - 1, _TOP_PAD: 64 << 20}
    return all(set_option(option, value) == 1 for option, value in wanted.items())
