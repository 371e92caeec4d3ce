"""What can go wrong through a user's hand: one clear message each (what was given, what was expected, what to do)."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable


class EncoderyError(Exception):
    """A problem the user can mend. The command line prints it without a traceback and exits with `exit_code`.

    `given` says what was found and where, `expected` what should have been there, `fix` what to do next.
    """

    exit_code = 1

    def __init__(self, given: str, *, expected: str = "", fix: str = "") -> None:
        self.given = given
        self.expected = expected
        self.fix = fix
        super().__init__(str(self))

    def __str__(self) -> str:
        lines = [self.given]
        if self.expected:
            lines.append(f"  expected: {self.expected}")
        if self.fix:
            lines.append(f"  to do: {self.fix}")
        return "\n".join(lines)


class ConfigError(EncoderyError):
    """A recipe or an override is wrong. All problems of one recipe are gathered into one error."""

    exit_code = 2


class DataError(EncoderyError):
    """A file, a column, a row or a label is not what the recipe says."""

    exit_code = 3


class WeightsError(EncoderyError):
    """A model folder or a checkpoint is damaged, or does not fit the model it is loaded into."""

    exit_code = 4


class TrainingError(EncoderyError):
    """A run cannot go on: it diverged, collapsed, or could not save."""

    exit_code = 5


class MissingExtra(EncoderyError):
    """An optional dependency is not installed."""

    exit_code = 6

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed",
            fix=f"pip install 'encodery[{extra}]'",
        )


class Interrupted(EncoderyError):
    """A signal asked the run to stop; it saved and can go on. Exits as the shell expects, 128 + signal."""

    def __init__(self, given: str, *, signal_number: int, fix: str) -> None:
        super().__init__(given, fix=fix)
        self.exit_code = 128 + signal_number


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `, did you mean 'x'?` for the closest known name, or an empty string when none is close."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f", did you mean '{match[0]}'?" if match else ""


def in_words(error: BaseException) -> tuple[str, int]:
    """What to tell the person about an error, and the exit code."""
    if isinstance(error, EncoderyError):
        return str(error), error.exit_code
    short_of_memory = ("not enough memory", "out of memory", "can't allocate memory", "can't start new thread")
    if isinstance(error, MemoryError) or any(words in str(error).lower() for words in short_of_memory):
        return (
            "there is not enough memory for this\n  to do: lower training.batch_tokens, encoder.preset or "
            "encoder.max_length (encodery inspect model shows what they cost)",
            5,
        )
    if isinstance(error, OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return f"the disk is full: {error}\n  to do: free some space, or write elsewhere (output=FOLDER)", 5
        return f"{error}\n  to do: check the path and its permissions", 5
    return (
        f"{type(error).__name__}: {error}\n  to do: this is a fault in encodery; run it again with --debug and report "
        "what it shows",
        70,
    )
