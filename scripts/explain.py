"""``python scripts/explain.py`` in a checkout is the same as ``latentcap explain``."""

from latentcap.cli.main import main

if __name__ == "__main__":
    main("explain")
