"""Placeholder."""

from __future__ import annotations


class BuildpacksPlugin:
    pass
