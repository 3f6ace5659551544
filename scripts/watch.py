"""``python scripts/watch.py`` in a checkout is the same as ``latentcap watch``."""

from latentcap.cli.main import main

if __name__ == "__main__":
    main("watch")
