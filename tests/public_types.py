"""What a type checker of a consumer sees; `make check` reads it, nothing runs it."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from typing_extensions import assert_type

    import colossalai_env
    from colossalai_env import DistSpec, Explanation, Job, explain, init_from_env, resolve
    from colossalai_env.environ import Export

    spec = resolve(env={})
    assert_type(spec, DistSpec)
    assert_type(spec.rank, int)
    assert_type(spec.host, str | None)
    assert_type(spec.to_env(), dict[str, str])
    assert_type(explain(), Explanation)
    job = init_from_env()
    assert_type(job, Job)
    assert_type(job.local_rank, int)
    assert_type(job.device, torch.device)
    assert_type(job.topology, tuple[colossalai_env.Peer, ...])
    with job.export() as export:
        assert_type(export, Export)
    with init_from_env(timeout=10, attach=True, export=True) as inner:
        assert_type(inner, Job)
