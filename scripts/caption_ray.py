"""``python scripts/caption_ray.py`` in a checkout is the same as ``latentcap caption-ray``."""

from latentcap.cli.main import main

if __name__ == "__main__":
    main("caption-ray")
