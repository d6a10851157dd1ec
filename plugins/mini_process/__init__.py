"""Placeholder."""

from __future__ import annotations


class ProcessPlugin:
    pass
