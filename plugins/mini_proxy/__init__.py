"""Placeholder."""

from __future__ import annotations


class ProxyPlugin:
    pass
