"""mini: a self-hosted, plugin-driven platform that deploys apps from source."""

__version__ = "0.1.0"
