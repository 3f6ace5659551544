"""``python scripts/heads.py`` in a checkout is the same as ``latentcap heads``."""

from latentcap.cli.main import main

if __name__ == "__main__":
    main("heads")
