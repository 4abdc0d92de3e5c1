"""Imports torch once, then forks for each line of JSON the ranks of one world on faked devices, and tells how each did.

A line is a list of ranks, each with its fake, its variables and the keywords of its call; so is the answer.
"""

import json
import os
import sys
import tempfile
import traceback
from typing import Any

import torch

import colossalai_env
from tests.devices import Fake

distributed: Any = torch.distributed


def join(keywords: dict[str, Any]) -> dict[str, Any]:
    """Join the group, sum over it, and say what this rank took, or the error that it met."""
    try:
        with colossalai_env.init_from_env(timeout=120, **keywords) as job:
            total = torch.full((1,), float(job.rank + 1))
            distributed.all_reduce(total)
            took = {"device": str(job.device), "backend": job.backend, "local_rank": job.local_rank}
            return {**took, "sum": total.item(), "devices": [peer.device for peer in job.topology]}
    except colossalai_env.ColossalaiEnvError as error:
        return {"error": type(error).__name__, "text": str(error)}


def start(rank: dict[str, Any]) -> tuple[int, int, Any]:
    """Fork a rank; return its process, the pipe of its answer, and the file of its standard error."""
    read, write = os.pipe()
    said = tempfile.TemporaryFile()  # noqa: SIM115 - read when the rank has ended
    child = os.fork()
    if child == 0:
        try:
            os.dup2(said.fileno(), 2)
            os.environ.update(rank["env"])
            if rank["fake"] is not None:
                Fake(**rank["fake"]).put(setattr)
            os.write(write, json.dumps(join(rank["keywords"])).encode())
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            os._exit(0)
    os.close(write)
    return child, read, said


def main() -> None:
    """Serve until the lines end."""
    torch.set_num_threads(1)
    for line in sys.stdin:
        answers: list[dict[str, Any]] = []
        for child, read, said in [start(rank) for rank in json.loads(line)]:
            with os.fdopen(read) as pipe:
                answer = json.loads(pipe.read() or '{"error": "none", "text": "it said nothing"}')
            os.waitpid(child, 0)
            said.seek(0)
            answers.append({**answer, "stderr": said.read().decode()})
        sys.stdout.write(json.dumps(answers) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
