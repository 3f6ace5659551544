"""``python scripts/caption.py`` in a checkout is the same as ``latentcap caption``."""

from latentcap.cli.main import main

if __name__ == "__main__":
    main("caption")
