"""The embedded data set: drawn scenes with five captions each, half of them asked about through a context text.

It needs no download, so that every program and every tutorial can run at once. The context decides what the right
caption says, and the val and test splits hold colour-shape pairs that training never shows.
"""

from __future__ import annotations

from latentcap.data.scenes.world import RESERVED, Group, Scene, sample_scene
from latentcap.data.scenes.write import render_scenes

__all__ = ["RESERVED", "Group", "Scene", "render_scenes", "sample_scene"]
