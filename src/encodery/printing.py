"""What the command line shows of runs, drafts, tokenizers and scores. Nothing is computed here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from encodery.evaluation.wording import (
    count_text,
    headline,
    interval_text,
    metric_text,
    seconds_text,
    shortened,
    value_text,
    verdict,
)

if TYPE_CHECKING:
    from pathlib import Path

    from encodery.data.coverage import Coverage
    from encodery.evaluation.record import RunRecord
    from encodery.training.draft import Draft
    from encodery.training.run import RunResult
    from encodery.training.vocabulary import MadeTokenizer

_CONFUSION_LABELS = 12


def say(console: Console, text: str) -> None:
    """One line as it is: no markup, never broken by us."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def table_of(title: str, *columns: str, left: int = 1) -> Table:
    """A plain table; the first `left` columns hold words, the others figures."""
    table = Table(title=title or None, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < left else "right", overflow="fold")
    return table


def bytes_text(number: float) -> str:
    """A size in a unit that suits it."""
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f} B"


def show_run(console: Console, result: RunResult) -> None:
    """The table of a run and where its files lie."""
    record = result.record
    if record.comparison:
        title = record.main_metric.replace("_", " ")
        table = table_of(f"{record.name}: {title}", "", title, "95 % interval", "parameters", "time")
        for row in record.comparison:
            table.add_row(
                Text(row.name),
                value_text(row.metric.value, record.main_metric),
                interval_text(row.metric, record.main_metric),
                count_text(row.parameters) if row.parameters else "",
                seconds_text(row.seconds) if row.seconds is not None else "",
            )
        console.print(table)
    elif record.metrics:
        for name in record.metrics:
            say(console, f"{name.replace('_', ' ')}: {value_text(record.metric(name).value, name)}")
    for line in [headline(record), *verdict(record), *record.diagnoses, *record.notes]:
        if line:
            say(console, line)
    say(console, f"model:  {result.folder}")
    say(console, f"report: {result.folder / 'report.html'}")


# -- new, tokenizer, evaluate ----------------------------------------------------------------------


def show_draft(console: Console, draft: Draft, path: Path) -> None:
    """What was seen in the files, and the next commands."""
    rows = f"{draft.rows:,} rows" if draft.all_rows else f"the first {draft.rows:,} rows"
    say(console, f"looked at {rows} of {draft.files['train'][0]} ({draft.format}, {draft.megabytes:.1f} MB)")
    text = draft.text if isinstance(draft.text, str) else " + ".join(draft.text)
    facts = [("columns", ", ".join(draft.columns)), ("text", text)]
    facts += [("second text", draft.pair)] if draft.pair else []
    if draft.label:
        shown = ", ".join(f"{shortened(label, 24)} ({n:,})" for label, n in draft.labels.most_common(5))
        more = f", and {len(draft.labels) - 5} more" if len(draft.labels) > 5 else ""
        facts.append(("label", f"{draft.label}: {len(draft.labels)} labels: {shown}{more}" if shown else draft.label))
    facts += [("task", draft.task), ("language", draft.language)]
    facts.append(
        ("length", f"median {draft.median_characters:,} characters; 99 % up to about {draft.long_tokens} tokens")
    )
    facts += [("splits", ", ".join(draft.files))] if len(draft.files) > 1 else []
    table = table_of("", "", "", left=2)
    table.show_header = False
    for name, fact in facts:
        table.add_row(name, Text(fact))
    console.print(table)
    for line in [*draft.guesses, *(f"bad row: {problem}" for problem in draft.problems[:5])]:
        say(console, f"note: {line}")
    if len(draft.labels) == 1:
        say(console, "note: only one label was seen; training needs at least two")
    say(console, f"written: {path}")
    say(console, f"next:    encodery inspect data {path}")
    say(console, f"then:    encodery train {path}")


def show_tokenizer(console: Console, made: MadeTokenizer) -> None:
    """How the tokenizer fits texts it has not seen."""
    facts = made.tokenizer.facts()
    rules = facts.get("rules", {})
    said = f"{rules.get('kind', 'tokenizer')}, {made.tokenizer.vocab_size:,} tokens"
    if "bytes" in facts:
        said += f", language {rules.get('language')}, from {facts['documents']:,} texts ({bytes_text(facts['bytes'])})"
    say(console, said)
    if made.coverage is None:
        say(console, "too few texts to keep some apart and measure on them")
    else:
        _show_coverage(console, made.coverage)
    if made.example is not None:
        console.print(Text(f"example: {shortened(made.example[0], 100)}"))
        console.print(Text(f"      -> {' '.join(made.example[1][:60])}"))
    say(console, f"written: {made.path}")
    say(console, f"use it:  encodery train RECIPE tokenizer.path={made.path.resolve()}")


def _show_coverage(console: Console, fit: Coverage) -> None:
    table = table_of(f"on {fit.texts:,} texts kept apart", "", "")
    table.show_header = False
    table.add_row("tokens a word", f"{fit.tokens_per_word:.2f}")
    table.add_row("characters a token", f"{1 / max(fit.tokens_per_character, 1e-9):.2f}")
    table.add_row("bytes a token", f"{fit.bytes_per_token:.2f}")
    table.add_row("unknown tokens", f"{fit.unknown_share:.3%}")
    console.print(table)
    if fit.most_unknown:
        pieces = ", ".join(f"{piece} ({count:,})" for piece, count in fit.most_unknown[:8])
        console.print(Text(f"most often unknown: {pieces}"))


def show_evaluation(console: Console, record: RunRecord, *, errors: int = 5) -> None:
    """Every metric with its interval, the confusions, the worst mistakes."""
    for note in record.notes:
        say(console, note)
    for row in record.data_facts.get("bad_rows", []):
        say(console, f"bad rows passed over: {row['why']}: {row['where']}")
    intervals = any(interval_text(record.metric(name), name) for name in record.metrics)
    table = table_of("", "", "value (95 % interval)" if intervals else "value")
    for name in record.metrics:
        shown = metric_text(record.metric(name), name)
        table.add_row(name.replace("_", " "), shown, style="bold" if name == record.main_metric else "")
    console.print(table)
    if record.confusion is not None and len(record.labels) <= _CONFUSION_LABELS:
        table = table_of(
            "rows by true label (down) and answer (across)", "", *(shortened(label, 16) for label in record.labels)
        )
        for label, counts in zip(record.labels, record.confusion, strict=True):
            table.add_row(Text(shortened(label, 24)), *(f"{count:,}" for count in counts))
        console.print()
        console.print(table)
    if record.errors and errors:
        console.print("\n[bold]most wrong[/bold]", highlight=False)
    for error in record.errors[:errors]:
        true, answered = error["true"], error["predicted"]
        if isinstance(true, float):
            true, answered = f"{true:.4g}", f"{answered:.4g}"
        said = f"  {error['where']}: {true}, answered {answered}"
        if error.get("probability") is not None:
            said += f" (the true one got {error['probability']:.2f})"
        say(console, said)
        console.print(Text(f"    {shortened(error['text'], 150)}"))
    for line in record.diagnoses:
        say(console, line)


def show_counts(console: Console, counts: Iterable[tuple[int, int]], shown: bool) -> tuple[int, int]:
    """Carry out work that counts lines, showing how far it has come where there is a terminal; the last counts."""
    last, columns = (0, 0), (SpinnerColumn(), TextColumn("{task.completed:,.0f} lines"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not (shown and console.is_terminal)) as bar:
        task = bar.add_task("", total=None)
        for last in counts:
            bar.update(task, completed=last[0])
    return last
