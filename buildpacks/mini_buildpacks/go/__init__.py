"""Go programs. See `buildpack.py` for the story and the other modules for its parts."""

from mini_buildpacks.go.buildpack import GoBuildpack

__all__ = ["GoBuildpack"]
