"""Python apps: any package manager, any version source, the entry point found by reading the code."""

from __future__ import annotations

from mini_buildpacks.python.buildpack import PythonBuildpack

__all__ = ["PythonBuildpack"]
