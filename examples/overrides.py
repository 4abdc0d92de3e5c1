"""Change entries of a config on the command line: train.py --set optimizer.lr=0.1."""

from omegaconf import OmegaConf

import colossalai_env

parser = colossalai_env.get_default_parser()
parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE")
args = parser.parse_args()

written = colossalai_env.load_config(args.config).to_dict()
config = OmegaConf.merge(written, OmegaConf.from_dotlist(args.set))
with colossalai_env.init_from_env(args=args, config=config) as job:
    if job.rank == 0:
        print(job.config)
