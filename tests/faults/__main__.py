"""Plays the faults with this library, with plain torch, or with both, and prints what was said and when."""

import argparse
import sys
from pathlib import Path

from .faults import FAULTS
from .report import LIBRARIES, said, seconds, table
from .runner import Record, players
from .verdict import problems, told_all

CAP = 20.0
"""Seconds after which what still waits is ended."""


def main() -> int:
    """Play what is asked for, write the table, and say whether every promise was kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--library", choices=[*LIBRARIES, "both"], default="both")
    parser.add_argument("--only", metavar="TEXT", default="", help="faults with this text in their names")
    parser.add_argument("--table", metavar="FILE", help="write a table into this page, between its marks")
    parser.add_argument("--cap", type=float, default=CAP, help="seconds after which what still waits is ended")
    parser.add_argument("--at-once", type=int, default=3, help="faults that are played together")
    parser.add_argument("--list", action="store_true", help="list the faults and their promises, and play none")
    parser.add_argument("--verbose", action="store_true", help="show all that was seen")
    asked = parser.parse_args()
    chosen = [fault for fault in FAULTS if asked.only in fault.name]
    if asked.list:
        for fault in chosen:
            print(f"{fault.name} ({', '.join(map(str, fault.promises))}): {fault.story}")
        return 0
    libraries = list(LIBRARIES) if asked.library == "both" else [asked.library]
    records: dict[str, dict[str, Record]] = {library: {} for library in libraries}
    kept = True
    with players(asked.at_once) as play:
        futures = [
            (library, play(fault, library, asked.cap))
            for fault in chosen
            for library in libraries
            if library != "torch" or fault.plain is None
        ]
        for library, future in futures:
            record = future.result()
            records[library][record.fault.name] = record
            kept &= _shown(record, verbose=asked.verbose)
    if asked.table:
        _write(Path(asked.table), table(chosen, records))
    return 0 if kept else 1


BEGIN, END = "<!-- faults: written by python -m tests.faults --table -->\n", "<!-- end of faults -->\n"
"""Between what the table stands on its page."""


def _write(page: Path, text: str) -> None:
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


def _shown(record: Record, *, verbose: bool) -> bool:
    """Print what a fault came to; tell whether what is promised of this library was kept."""
    name = f"{record.fault.name} [{record.library}], {seconds(record)}"
    found = problems(record) if record.library == "colossalai_env" else []
    verdict = said(record) if record.library == "torch" else f"{len(found)} broken" if found else "kept"
    print(f"{name}: {verdict}", *found, sep="\n    ", flush=True)
    if found or verbose:
        print(told_all(record), flush=True)
    return not found


if __name__ == "__main__":
    sys.exit(main())
