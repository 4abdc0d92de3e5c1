"""``torch.distributed.init_process_group(init_method="colossalai-env://")``, for programs that take no more than a URL.

Importing this module registers the scheme with torch. No entry point of torch's does: its group ``torch.backends`` is
for devices, and would bring this module into every program that imports torch.
"""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

from torch import distributed

from colossalai_env._join import TIMEOUT, meet
from colossalai_env._rows import READERS

SCHEME = "colossalai-env"
"""What the URL begins with; ``?timeout=SECONDS`` may follow, for the wait for the other ranks."""


def _joined(
    url: str,
    timeout: timedelta = timedelta(seconds=TIMEOUT),
    **options: Any,  # noqa: ANN401 - torch's own options
) -> Iterator[tuple[Any, int, int]]:
    """Hold the roll call, and hand torch the store of it; a generator is what torch wants."""
    del options
    said = {name: texts[-1] for name, texts in parse_qs(urlsplit(url).query).items()}
    seconds = float(said["timeout"]) if "timeout" in said else min(TIMEOUT, timeout.total_seconds())
    given = {name: READERS[name](said[name]) for name in ("rank", "world_size") if said.get(name, "-1") != "-1"}
    yield meet(seconds, **given)
    raise RuntimeError(f"{SCHEME}:// meets once for each process group")


_c10d: Any = distributed  # it does not export its rendezvous to type checkers
_c10d.register_rendezvous_handler(SCHEME, _joined)
