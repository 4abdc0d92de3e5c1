"""python -m colossalai_env: the command colossalai-env, where its script is not on the path."""

from .cli import main

raise SystemExit(main())
