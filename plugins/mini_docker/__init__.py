"""Placeholder."""

from __future__ import annotations


class DockerPlugin:
    pass
