"""What resolve() costs beside an earlier build of this library, which had seven resolvers."""

import json
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.installations import checkout, installation
from benchmarks.measure import Figure, Program, ratio, turns
from benchmarks.spec_known import RECORDS, USUAL, environment

QUESTION = "earlier build"
SEVEN = "3eff216"
"""The revision that had seven resolvers, single-process among them."""

NOW, THEN = "colossalai-env", f"colossalai-env of {SEVEN}"

CODE = """
import json, time
import colossalai_env
took = []
for count in (1, 500):
    began = time.thread_time()
    for _ in range(count): colossalai_env.resolve()
    took.append((time.thread_time() - began) / count)
print("TOOK", json.dumps(took), flush=True)
"""


def measure(pairs: int) -> Iterator[Figure]:
    """Resolve in installations of both builds, for the first time in a process and when all is loaded."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        earlier = checkout(SEVEN, folder / "checkout")
        if earlier is None:
            yield Figure(QUESTION, f"git does not know {SEVEN}", "builds to compare with", 0, least=1)
            return
        pythons = {
            NOW: installation(folder / "now", *USUAL),
            THEN: installation(folder / "then", *USUAL, source=earlier),
        }
        for launcher in RECORDS:
            programs = {build: Program(python, CODE, environment(launcher)) for build, python in pythons.items()}
            took: dict[str, list[list[float]]] = {build: [] for build in programs}
            for build in turns(programs, 2 * pairs):
                took[build].append(json.loads(programs[build].told().rpartition("TOOK")[2]))
            case = f"{launcher}, {USUAL[0]} distributions, {USUAL[1]} plugins of others"
            for place, (what, unit, scale) in enumerate(
                (("first resolve()", "ms", 1e3), ("resolve() when warm", "µs", 1e6))
            ):
                now, then = ([one[place] for one in took[build]] for build in (NOW, THEN))
                beside = {THEN: scale * statistics.median(then)}
                yield Figure(QUESTION, case, what, scale * statistics.median(now), unit, beside=beside)
                yield Figure(QUESTION, case, f"{what}, ratio to {SEVEN}", ratio(now, then), "x", most=1.1)
