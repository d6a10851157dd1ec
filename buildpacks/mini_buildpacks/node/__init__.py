"""Node and Bun apps. See `buildpack.py` for the story and the other modules for its parts."""

from mini_buildpacks.node.buildpack import NodeBuildpack

__all__ = ["NodeBuildpack"]
