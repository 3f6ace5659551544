"""``python scripts/serve.py`` in a checkout is the same as ``latentcap serve``."""

from latentcap.cli.main import main

if __name__ == "__main__":
    main("serve")
