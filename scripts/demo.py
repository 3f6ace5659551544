"""``python scripts/demo.py`` in a checkout is the same as ``latentcap demo``."""

from latentcap.cli.main import main

if __name__ == "__main__":
    main("demo")
