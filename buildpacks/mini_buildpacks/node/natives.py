"""What popular npm packages need beside the registry: Debian packages, and downloads that a deploy can do without.

Packages with prebuilt binaries on the registry (sharp, esbuild, swc, bcrypt from 6 on) need nothing and are not
here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from mini_buildpacks.node.package import Package
from mini_core.interfaces import Source
from mini_core.types import Value

_COMPILER = ("g++", "make", "python3")


class Native(Value):
    """build: packages to compile it with. run: packages that the running app needs."""

    build: tuple[str, ...] = ()
    run: tuple[str, ...] = ()


_GYP = Native(build=_COMPILER)

TABLE: Mapping[str, Native] = {
    "argon2": _GYP,
    "bcrypt": _GYP,
    "better-sqlite3": _GYP,
    "bufferutil": _GYP,
    "canvas": Native(
        build=(*_COMPILER, "libcairo2-dev", "libgif-dev", "libjpeg-dev", "libpango1.0-dev", "librsvg2-dev"),
        run=("libcairo2", "libgif7", "libjpeg62-turbo", "libpango-1.0-0", "libpangocairo-1.0-0", "librsvg2-2"),
    ),
    "cpu-features": _GYP,
    "dtrace-provider": _GYP,
    "fluent-ffmpeg": Native(run=("ffmpeg",)),
    "gm": Native(run=("graphicsmagick",)),
    "imagemagick": Native(run=("imagemagick",)),
    "isolated-vm": _GYP,
    "kerberos": Native(build=(*_COMPILER, "libkrb5-dev"), run=("libgssapi-krb5-2",)),
    "libpq": Native(build=(*_COMPILER, "libpq-dev"), run=("libpq5",)),
    "microtime": _GYP,
    "node-expat": _GYP,
    "node-pty": _GYP,
    "node-rdkafka": Native(build=(*_COMPILER, "libsasl2-dev", "libssl-dev", "zlib1g-dev"), run=("libsasl2-2",)),
    "node-sass": _GYP,
    "odbc": Native(build=(*_COMPILER, "unixodbc-dev"), run=("unixodbc",)),
    "oracledb": Native(run=("libaio1",)),
    "pdf2pic": Native(run=("ghostscript", "graphicsmagick")),
    "pg-native": Native(build=(*_COMPILER, "libpq-dev"), run=("libpq5",)),
    "@prisma/client": Native(build=("openssl", "ca-certificates"), run=("openssl", "ca-certificates")),
    "prisma": Native(build=("openssl", "ca-certificates"), run=("openssl", "ca-certificates")),
    "puppeteer": Native(run=("chromium", "fonts-liberation")),
    "re2": _GYP,
    "snappy": _GYP,
    "sodium-native": Native(build=(*_COMPILER, "autoconf", "automake", "libtool")),
    "sqlite3": _GYP,
    "usb": Native(build=(*_COMPILER, "libudev-dev"), run=("libudev1",)),
    "utf-8-validate": _GYP,
    "zeromq": Native(build=(*_COMPILER, "libzmq3-dev"), run=("libzmq5",)),
}

_SELDOM = {"bufferutil", "cpu-features", "dtrace-provider", "microtime", "snappy", "utf-8-validate"}
"""Carry binaries, or do without where they can't be compiled: not worth a compiler when only others want them."""

_NO_DOWNLOAD = {
    "husky": {"HUSKY": "0"},
    "cypress": {"CYPRESS_INSTALL_BINARY": "0"},
    "electron": {"ELECTRON_SKIP_BINARY_DOWNLOAD": "1"},
    "playwright": {"PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD": "1"},
    "@playwright/test": {"PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD": "1"},
    "puppeteer": {"PUPPETEER_SKIP_DOWNLOAD": "true"},
    "@sentry/cli": {"SENTRYCLI_SKIP_DOWNLOAD": "1"},
    "chromedriver": {"CHROMEDRIVER_SKIP_DOWNLOAD": "true"},
    "geckodriver": {"GECKODRIVER_SKIP_DOWNLOAD": "1"},
}
"""What only development needs (hundreds of megabytes of browsers, Git hooks): left out unless the app itself depends
on it."""

_GIT = re.compile(r"^(?:git[+:]|git@|github:|gitlab:|bitbucket:|[\w.-]+/[\w.-]+(?:#.*)?$)|\.git(?:#.*)?$")


def natives(source: Source, packages: Iterable[Package], lock: str) -> Native:
    """Debian packages for what the packages depend on, directly or (as the lock file tells) through others."""
    direct = {name: spec for package in packages for name, spec in package.dependencies.items()}
    text = (source.text(lock) or "") if lock else ""
    found = [TABLE[name] for name in TABLE if name in direct or (name not in _SELDOM and _locked(name, text))]
    git = ("git", "ca-certificates", "openssh-client") if any(_GIT.search(spec) for spec in direct.values()) else ()
    build = sorted({item for native in found for item in native.build} | set(git))
    return Native(build=tuple(build), run=tuple(sorted({item for native in found for item in native.run})))


def install_env(packages: Iterable[Package]) -> dict[str, str]:
    """Variables that keep installs from downloading what only tests use."""
    env: dict[str, str] = {}
    for package in packages:
        for name, entries in _NO_DOWNLOAD.items():
            if name in package.dependencies and (name not in package.production or name == "puppeteer"):
                env |= entries
    return env


def _locked(name: str, lock: str) -> bool:
    """Whether a lock file of any manager lists the package."""
    if f"{name}@" not in lock and f"/{name}" not in lock:
        return False
    quoted = re.escape(name)
    return bool(re.search(rf"(?m)(?:^\s*['\"]?|, ['\"]?){quoted}@|node_modules/{quoted}\"|^\s*/{quoted}[/@]\d", lock))
