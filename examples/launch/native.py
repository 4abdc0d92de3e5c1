"""Started by hand, once for each rank, with everything given on the command line."""

from training import train

import colossalai_env as colossalai

parser = colossalai.get_default_parser()
args = parser.parse_args()
config = args.config or {
    "SAMPLES": 256,
    "EPOCHS": 20,
    "BATCH": 16,
    "OPTIMIZER": {"lr": 0.1, "momentum": 0.9},
}
job = colossalai.launch(
    config=config,
    rank=args.rank,
    world_size=args.world_size,
    host=args.host,
    port=args.port,
    backend=args.backend,
)
train(job)
job.close()
