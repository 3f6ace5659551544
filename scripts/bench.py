"""``python scripts/bench.py`` in a checkout is the same as ``latentcap bench``."""

from latentcap.cli.main import main

if __name__ == "__main__":
    main("bench")
