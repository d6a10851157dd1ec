"""What the running program needs beside itself: templates, static files and the like, but no Go code."""

from __future__ import annotations

from mini_core.interfaces import Source

MAX_ENTRIES = 40
"""With more entries in the root, everything is taken along: a long list helps nobody."""

_LEFT_OUT = {
    ".circleci", "CODE_OF_CONDUCT.md", "fly.toml", "heroku.yml", "railway.json", "railway.toml", "render.yaml",
    ".dockerignore", ".editorconfig", ".gitattributes", ".github", ".gitignore", ".gitlab-ci.yml",
    ".golangci.yaml", ".golangci.yml", ".goreleaser.yml", ".tool-versions", ".travis.yml", "CHANGELOG.md",
    "CONTRIBUTING.md", "Dockerfile", "Godeps", "LICENSE", "LICENSE.md", "Makefile", "Procfile", "README", "README.md",
    "SECURITY.md", "app.json", "compose.yaml", "docker-compose.yml", "go.mod", "go.sum", "go.work", "go.work.sum",
    "mini.toml", "mise.toml", "node_modules", "testdata", "vendor", ".godir",
}  # fmt: skip


def artifacts(source: Source) -> tuple[str, ...]:
    """bin/ and every entry of the root that holds anything but Go code; ("." for all) in an unusual tree."""
    kept: dict[str, None] = {"bin": None}
    for file in source.files():
        top = file.split("/", 1)[0]
        if top in _LEFT_OUT or file.endswith((".go", "/go.mod", "/go.sum")) or "/testdata/" in file:
            continue
        kept[top] = None
    return tuple(kept) if len(kept) <= MAX_ENTRIES else (".",)
