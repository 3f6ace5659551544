"""``python scripts/export.py`` in a checkout is the same as ``latentcap export``."""

from latentcap.cli.main import main

if __name__ == "__main__":
    main("export")
