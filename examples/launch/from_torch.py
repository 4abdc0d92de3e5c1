"""Started by torchrun."""

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
job = colossalai.launch_from_torch(config=config, backend=args.backend)
train(job)
job.close()
