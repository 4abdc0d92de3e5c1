"""Let JAX's coordinator meet where the job has."""

import jax

import colossalai_env
from colossalai_env.integrations.jax import initialize_arguments

with colossalai_env.init_from_env() as job:
    jax.distributed.initialize(**initialize_arguments(job))
    print(f"rank {jax.process_index()} of {jax.process_count()}", flush=True)
    jax.distributed.shutdown()
