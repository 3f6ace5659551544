"""``python scripts/train.py`` in a checkout is the same as ``latentcap train``."""

from latentcap.cli.main import main

if __name__ == "__main__":
    main("train")
