"""``python scripts/prepare.py`` in a checkout is the same as ``latentcap prepare``."""

from latentcap.cli.main import main

if __name__ == "__main__":
    main("prepare")
