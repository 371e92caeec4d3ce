"""The book of rows: how many were good, which were bad, where, and when there are too many of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal

from encodery.errors import DataError

PLACES_KEPT: Final = 20
"""How many locations of one kind of problem are remembered."""

ROWS_BEFORE_JUDGING: Final = 1000
"""Before the end of the data, the share of bad rows is judged only after this many rows."""

BAD_ROWS_BEFORE_JUDGING: Final = 20
"""Before the end of the data, this many bad rows are never too many."""

BROKEN_JSON: Final = "broken JSON"
NOT_AN_OBJECT: Final = "not a JSON object"
WRONG_ENCODING: Final = "wrong encoding"
EMPTY_TEXT: Final = "empty text"
NOT_TEXT: Final = "text is not a string"
MISSING_TEXT: Final = "missing text column"
EMPTY_PAIR: Final = "empty pair"
MISSING_PAIR: Final = "missing pair column"
MISSING_LABEL: Final = "missing label"
NOT_ONE_LABEL: Final = "label is not a single value"
NOT_A_LABEL_LIST: Final = "label is not a list"
NOT_A_NUMBER: Final = "not a number"
MISSING_GROUP: Final = "missing group"
NOT_A_GROUP: Final = "group is not a single value"
BAD_MENTIONS: Final = "broken mentions"
MISSING_TAGS: Final = "missing tags column"
BAD_TAGS: Final = "tags that do not fit"
BAD_SPANS: Final = "spans that do not fit their text"
MISSING_ANSWERS: Final = "missing answers column"
BAD_ANSWERS: Final = "answers that cannot be read"
ANSWER_ELSEWHERE: Final = "an answer does not stand where its offset says"
BAD_NEGATIVES: Final = "the wrong answers of a row cannot be read"
MISSING_CHOICES: Final = "missing choices column"
BAD_CHOICES: Final = "the options of a choice cannot be read"
NO_SUCH_CHOICE: Final = "the label names none of the options"
MISSING_TARGET: Final = "missing target column"
EMPTY_TARGET: Final = "empty target"
BAD_TARGET: Final = "target is neither a text nor a list of texts"
WRONG_FIELDS: Final = "wrong number of fields"
BROKEN_QUOTES: Final = "broken quotes"
LINE_TOO_LONG: Final = "line too long"
EMPTY_FILE: Final = "empty file"
BLANK_LINE: Final = "blank line"
BINARY_FILE: Final = "binary file"
NOT_UTF8: Final = "not UTF-8"
NO_WORD: Final = "no word before the numbers"
WRONG_NUMBERS: Final = "wrong number of numbers"
BROKEN_NUMBERS: Final = "something that is no number"
NOT_FINITE: Final = "a number that is not finite"

FIXES: Final[dict[str, str]] = {
    BROKEN_JSON: "mend the line: every line of a JSON Lines file is one complete JSON object",
    NOT_AN_OBJECT: 'write the line as an object, for example {"text": "...", "label": "..."}',
    WRONG_ENCODING: "say the encoding (`encoding: gb18030`, `encoding: latin-1`, ...), or save as UTF-8",
    EMPTY_TEXT: "give the row a text, or remove it",
    NOT_TEXT: "write the text as one string",
    MISSING_TEXT: "give the row its text column, or correct `text:` in the recipe",
    EMPTY_PAIR: "give the row its second text, or remove it",
    MISSING_PAIR: "give the row its second text, or correct `pair:` in the recipe",
    MISSING_LABEL: "give the row a label, or remove it",
    NOT_ONE_LABEL: "write one label a row, or train with several labels a row (multi-label)",
    NOT_A_LABEL_LIST: "write the labels as a list, or as one string with `label_separator` between them",
    MISSING_GROUP: "give the row its group, or correct `group:` in the recipe",
    NOT_A_GROUP: "write one name or number a row: what stands in the same group has the same value",
    NOT_A_NUMBER: "write the label as a plain finite number with a decimal point, such as 3.5",
    BAD_MENTIONS: 'write the mentions as a list such as [[0, 5, "Q90"]]: first character, end, and entity of each',
    MISSING_TAGS: "give the row its tags, or correct `tags:` in the recipe",
    BAD_TAGS: "write one tag a word, all in one scheme (encodery reads IOB1, BIO, BIOES and BMES); "
    "`objective.scheme: auto` mends tags that do not fit and counts them",
    BAD_SPANS: 'write the spans as a list such as [[0, 5, "PER"]]: first character, the one behind the last, and label '
    "of each; they must lie inside of the text and not overlap",
    MISSING_TARGET: "give the row the text that is to be written, or correct `target:` in the recipe",
    EMPTY_TARGET: "give the row the text that is to be written, or remove it",
    BAD_TARGET: "write the target as one string, or as a list of strings where several are right",
    MISSING_ANSWERS: "give the row its answers ([] for none), or correct `answers:` in the recipe",
    BAD_ANSWERS: 'write the answers as [{"text": "...", "start": 0}], and [] where the text has none',
    ANSWER_ELSEWHERE: "give the offset in characters, from 0, at which the answer begins, or correct its text; answers "
    "stand in `data.text`, the question is `data.pair`",
    BAD_NEGATIVES: "give the row its wrong answers: a text, a list of texts, or [] for none; or correct `negatives:`",
    MISSING_CHOICES: "give the row its options, or correct `choices:` in the recipe",
    BAD_CHOICES: 'write the options as a list of texts, such as ["...", "..."]',
    NO_SUCH_CHOICE: "write the label as the number of the right option from 0, as its letter, or as its text",
    WRONG_FIELDS: "put fields that hold the separator in double quotes, or correct `delimiter:`",
    BROKEN_QUOTES: 'close the double quote, write a quote inside a field twice (""), or set `quotes: "no"`',
    LINE_TOO_LONG: "break the document into several lines, or read it with `documents: blank` or `file`",
    EMPTY_FILE: "remove the file or fill it",
    BINARY_FILE: "remove the file from the folder, or name the wanted files by a glob such as data/*.txt",
    NOT_UTF8: "save the file as UTF-8 (iconv -f ENCODING -t utf-8)",
    NO_WORD: "remove the line, or give it its word",
    WRONG_NUMBERS: "fetch the file again (a line broke off, or two became one), or remove the line",
    BROKEN_NUMBERS: "write numbers with a decimal point and spaces between them, or remove the line",
    NOT_FINITE: "remove the word from the file, or make its vector again",
}
"""What to do about each kind of bad row."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One kind of bad row (or of remark): how often it came, and the first places it came at."""

    kind: str
    count: int
    places: tuple[str, ...]
    detail: str

    def line(self, shown: int = 5) -> str:
        """One line for people: `broken JSON: 3 (train.jsonl:4, train.jsonl:9, train.jsonl:17)`."""
        places = ", ".join(self.places[:shown])
        more = self.count - min(shown, len(self.places))
        return f"{self.kind}: {self.count:,} ({places}{f', and {more:,} more' if more > 0 else ''})"


@dataclass
class _Tally:
    """A count with its first places; the detail is that of the first one."""

    count: int = 0
    places: list[str] = field(default_factory=list)
    detail: str = ""

    def add(self, where: str, detail: str) -> None:
        if self.count == 0:
            self.detail = detail
        self.count += 1
        if len(self.places) < PLACES_KEPT:
            self.places.append(where)


@dataclass
class Ledger:
    """Counts of everything that was read. Hand one to `read_rows`, show `summary()` when it is done.

    Attributes:
        good: rows that were read and are usable, including those of the other side of a split.
        set_aside: good rows that were not given out, because they belong to the other side of a split, or
            by the weight of their source.
    """

    good: int = 0
    set_aside: int = 0
    _bad: dict[str, _Tally] = field(default_factory=dict)
    _notes: dict[str, _Tally] = field(default_factory=dict)

    @property
    def bad(self) -> int:
        """Number of bad rows of all kinds."""
        return sum(tally.count for tally in self._bad.values())

    def count(self, kind: str) -> int:
        """Number of bad rows (or remarks) of this kind."""
        tally = self._bad.get(kind) or self._notes.get(kind)
        return tally.count if tally else 0

    def add_bad(self, kind: str, where: str, detail: str = "") -> None:
        """Enter one bad row that was found at `where` (file:line)."""
        self._bad.setdefault(kind, _Tally()).add(where, detail)

    def note(self, kind: str, where: str) -> None:
        """Enter something people should know that did not cost a row: a repaired text, a file passed over."""
        self._notes.setdefault(kind, _Tally()).add(where, "")

    def problems(self) -> list[Problem]:
        """The kinds of bad rows, the most frequent first."""
        return _problems(self._bad)

    def notes(self) -> list[Problem]:
        """What was repaired or passed over without losing a row, the most frequent first."""
        return _problems(self._notes)

    def summary(self) -> list[str]:
        """Lines for people: the counts, then each kind of problem with its first places."""
        total = self.good + self.bad
        head = f"{self.good:,} good rows"
        if self.set_aside:
            head += f" ({self.set_aside:,} of them set aside for the other split or by weight)"
        if self.bad:
            head += f", {self.bad:,} bad rows ({self.bad / total:.2%}) passed over"
        lines = [head]
        lines += [f"  {problem.line()}" for problem in self.problems()]
        lines += [f"  note: {remark.line()}" for remark in self.notes()]
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Plain data for journals and reports."""
        return {
            "good": self.good,
            "set_aside": self.set_aside,
            "bad": self.bad,
            "problems": {p.kind: {"count": p.count, "places": list(p.places)} for p in self.problems()},
            "notes": {p.kind: {"count": p.count, "places": list(p.places)} for p in self.notes()},
        }


def _problems(tallies: dict[str, _Tally]) -> list[Problem]:
    found = [Problem(kind, t.count, tuple(t.places), t.detail) for kind, t in tallies.items()]
    return sorted(found, key=lambda p: (-p.count, p.kind))


class Watch:
    """One pass over some data: enters its rows into a Ledger and stops when too many of them are bad.

    The ledger may hold the counts of other passes too, so the pass keeps its own.
    """

    def __init__(self, ledger: Ledger, bad_rows: Literal["skip", "refuse"], share: float) -> None:
        self.ledger = ledger
        self.bad_rows = bad_rows
        self.share = share
        self._pass = Ledger()

    @property
    def good(self) -> int:
        """Good rows of this pass."""
        return self._pass.good

    @property
    def bad(self) -> int:
        """Bad rows of this pass."""
        return self._pass.bad

    def add_good(self) -> None:
        """Enter one usable row."""
        self._pass.good += 1
        self.ledger.good += 1

    def add_set_aside(self) -> None:
        """Enter that a good row was not given out in this pass."""
        self.ledger.set_aside += 1

    def note(self, kind: str, where: str) -> None:
        """Enter a remark."""
        self.ledger.note(kind, where)

    def add_bad(self, kind: str, where: str, detail: str = "") -> None:
        """Enter one bad row.

        Raises:
            DataError: at once with `refuse`; with `skip` when, after 1,000 rows, more than 20 rows and more
                than the allowed share are bad.
        """
        self._pass.add_bad(kind, where, detail)
        self.ledger.add_bad(kind, where, detail)
        if self.bad_rows == "refuse":
            raise DataError(
                f"{where}: {kind}{f' ({detail})' if detail else ''}",
                expected="no bad row at all, because the recipe says `bad_rows: refuse`",
                fix=f"{FIXES.get(kind, 'mend the row')}; or say `bad_rows: skip` to count such rows",
            )
        rows = self.good + self.bad
        if rows >= ROWS_BEFORE_JUDGING and self.bad > max(BAD_ROWS_BEFORE_JUDGING, self.share * rows):
            self._refuse("so far ")

    def finish(self, what: str) -> None:
        """Judge the whole pass over `what`.

        Raises:
            DataError: there were no rows, all rows were bad, or more of them than is allowed.
        """
        if self.good == 0 and self.bad == 0:
            raise DataError(
                f"{what}: no rows found", expected="at least one row", fix="look into the file or the folder"
            )
        if self.good == 0:
            self._refuse("all of them, ")
        if self.bad > self.share * (self.good + self.bad):
            self._refuse("")

    def _refuse(self, when: str) -> None:
        problems = self._pass.problems()
        rows = self.good + self.bad
        lines = [f"{self.bad:,} of {rows:,} rows are bad ({when}{self.bad / rows:.1%})"]
        for problem in problems:
            lines.append(f"    {problem.line()}{f': {problem.detail}' if problem.detail else ''}")
        fix = FIXES.get(problems[0].kind, "mend the rows")
        if self.good:
            fix += f"; or raise `bad_rows_share` above {self.bad / rows:.3g} to leave such rows out"
        raise DataError("\n".join(lines), expected=f"at most {self.share:.1%} bad rows (`bad_rows_share`)", fix=fix)
