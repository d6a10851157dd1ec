"""Versions of the app that is deployed again and again, and the ways in which one can be broken."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

APP = Path(__file__).parent / "app" / "main.py"

BROKEN = ("exits", "never listens", "unhealthy", "release fails", "out of memory", "build fails")

WORDS = {
    "exits": ("no database", "4"),
    "never listens": ("never listened", "PORT"),
    "unhealthy": ("500", "/health"),
    "release fails": ("migration failed", "9"),
    "out of memory": ("out of memory", "64 MB"),
    "build fails": ("no-such-package-at-all",),
}
"""What a user must read of each kind of failure."""


def write_app(
    folder: Path, version: str, *, broken: str = "", release: str = "", after: str = "", health_timeout: int = 4
) -> Path:
    """Writes a version of the app; broken: one of BROKEN. release: a release command. after: a script for behind it."""
    assert broken in ("", *BROKEN)
    folder.mkdir(exist_ok=True)
    shutil.copyfile(APP, folder / "main.py")
    (folder / "about.json").write_text(json.dumps({"version": version, "broken": broken}))
    if broken == "release fails":
        release = "python -c \"import sys; print('migration failed'); sys.exit(9)\""
    (folder / "Procfile").write_text("web: python main.py\n" + (f"release: {release}\n" if release else ""))
    settings = f'[health]\npath = "/health"\ntimeout = {health_timeout}\n'
    (folder / "mini.toml").write_text(settings + '[limits]\nmemory = "64m"\n')
    (folder / "app.json").write_text(json.dumps({"scripts": {"dokku": {"postdeploy": after}}}))
    (folder / "requirements.txt").write_text("no-such-package-at-all==1.0\n" if broken == "build fails" else "")
    return folder
