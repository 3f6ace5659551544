"""``python scripts/push.py`` in a checkout is the same as ``latentcap push``."""

from latentcap.cli.main import main

if __name__ == "__main__":
    main("push")
