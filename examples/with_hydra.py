"""Let Hydra compose the config; each rank calls main."""

import hydra
from omegaconf import DictConfig

import colossalai_env


@hydra.main(version_base=None, config_path="conf", config_name="train")
def main(config: DictConfig) -> None:
    """Join with what Hydra composed."""
    with colossalai_env.init_from_env(config=config) as job:
        if job.rank == 0:
            print(job.world_size, job.config)


if __name__ == "__main__":
    main()
