"""Started by any launcher, or by hand."""

from pathlib import Path

from training import train

import colossalai_env

config = Path(__file__).with_name("config.py")
with colossalai_env.init_from_env(config=config, seed=1024) as job:
    train(job)
