"""What the commands print: tables and paragraphs, by rich on a terminal and as plain text elsewhere."""

import json
import os
import sys
from collections.abc import Sequence

from colossalai_env.environ import Environ

STYLES = {
    "ok": "green",
    "ready": "green",
    "note": "yellow",
    "disabled": "yellow",
    "empty": "yellow",
    "wrong": "red",
    "unusable": "red",
}
"""What words of state look like on a terminal."""


def on_terminal() -> bool:
    """Return whether a person watches: standard output is a terminal, or FORCE_COLOR is set.

    Open MPI gives each rank a pseudo-terminal even where mpirun's own output is piped; that one has no width.
    """
    watched = sys.stdout is not None and sys.stdout.isatty() and os.get_terminal_size(sys.stdout.fileno()).columns > 0
    return watched or bool(Environ.snapshot().get("FORCE_COLOR"))


def show_json(document: object) -> None:
    """Print one JSON document."""
    show_text(json.dumps(document, indent=2))


def show_error(error: Exception) -> None:
    """Print an error on standard error, in one write, since other ranks print there too."""
    sys.stderr.write(f"{type(error).__name__}: {error}\n")


def show_text(text: str) -> None:
    """Print a text as it is; end the process with 1 where that fails, quietly where a pipe's reader has left."""
    if sys.stdout is None:  # as after >&-
        raise SystemExit("standard output cannot be written: it is closed")
    try:
        sys.stdout.write(f"{_encodable(text)}\n")
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains again at exit
        left = isinstance(error, BrokenPipeError)
        raise SystemExit(1 if left else f"standard output cannot be written: {error.strerror}") from None


def _encodable(text: str) -> str:
    """Write with escapes what standard output cannot take: its encoding is ASCII where the locale is C."""
    encoding = sys.stdout.encoding
    return text.encode(encoding, "backslashreplace").decode(encoding)


def show_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table."""
    if not on_terminal():
        widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
        lines = (
            "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in (columns, *rows)
        )
        show_text("\n".join([*lines, ""]))  # in one write, since other ranks print there too
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold")  # nothing is cut off where the terminal is narrow
    for row in rows:
        table.add_row(*(Text(cell, STYLES.get(cell, "")) for cell in row))
    console = Console()
    with console.capture() as drawn:
        console.print(table)
    show_text(drawn.get().rstrip("\n"))
