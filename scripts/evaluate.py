"""``python scripts/evaluate.py`` in a checkout is the same as ``latentcap evaluate``."""

from latentcap.cli.main import main

if __name__ == "__main__":
    main("evaluate")
