"""Debian packages that common Python packages need: to build what has no wheel, and to run.

Only where no wheel is the norm, or where a wheel needs what it does not carry. Names that differ between Debian
releases are avoided: a `-dev` package brings the library whatever it is called.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from packaging.version import InvalidVersion, Version

from mini_buildpacks.python.project import Project
from mini_core.types import Evidence


@dataclass(frozen=True)
class Native:
    """Packages to build and to run. below: only for pins older than this, for those have no wheels. without: not
    where the dependency is asked for with this extra."""

    build: tuple[str, ...] = ()
    run: tuple[str, ...] = ()
    below: str = ""
    without: tuple[str, ...] = ()


_LIBPQ = Native(("libpq-dev",), ("libpq5",))
_MYSQL = Native(("default-libmysqlclient-dev", "pkg-config"), ("libmariadb3",))
_FFMPEG = Native(run=("ffmpeg",))
_CAIRO = Native(run=("libcairo2",))
_GIS = Native(("libgdal-dev",), ("gdal-bin", "libgdal-dev"))
_OPENCV = Native(run=("libgl1", "libglib2.0-0"))

NATIVE: Mapping[str, Native] = {
    "cairocffi": _CAIRO,
    "cairosvg": _CAIRO,
    "cffi": Native(("libffi-dev",), ("libffi8",), below="1.16.0"),
    "dlib": Native(("cmake",)),
    "face-recognition": Native(("cmake",)),
    "ffmpeg-python": _FFMPEG,
    "gdal": _GIS,
    "graphviz": Native(run=("graphviz",)),
    "kerberos": Native(("libkrb5-dev",), ("libkrb5-3",)),
    "lxml": Native(("libxml2-dev", "libxslt1-dev"), ("libxml2", "libxslt1.1"), below="5.3.0"),
    "moviepy": _FFMPEG,
    "mysqlclient": _MYSQL,
    "openai-whisper": _FFMPEG,
    "opencv-contrib-python": _OPENCV,
    "opencv-python": _OPENCV,
    "opencv-python-headless": Native(run=("libglib2.0-0",)),
    "pdf2image": Native(run=("poppler-utils",)),
    "pillow": Native(
        ("libjpeg-dev", "zlib1g-dev", "libfreetype-dev"), ("libjpeg62-turbo", "libfreetype6"), below="9.0"
    ),
    "psycopg": Native((), ("libpq5",), without=("binary",)),
    "psycopg-c": _LIBPQ,
    "psycopg2": _LIBPQ,
    "psycopg2-binary": Native(("libpq-dev",), ("libpq5",), below="2.9.10"),
    "pyaudio": Native(("portaudio19-dev",), ("libportaudio2",)),
    "pycairo": Native(("libcairo2-dev", "pkg-config"), ("libcairo2",)),
    "pycurl": Native(("libcurl4-openssl-dev", "libssl-dev"), ("libcurl4-openssl-dev",), below="7.45.3"),
    "pydub": _FFMPEG,
    "pygobject": Native(("libgirepository1.0-dev", "libcairo2-dev", "pkg-config"), ("libgirepository-1.0-1",)),
    "pygraphviz": Native(("libgraphviz-dev",), ("graphviz",)),
    "pymssql": Native(("freetds-dev",), ("libsybdb5",), below="2.2.0"),
    "pyodbc": Native(("unixodbc-dev",), ("unixodbc",)),
    "pysqlite3": Native(("libsqlite3-dev",), ("libsqlite3-0",), below="0.6.0"),
    "pytesseract": Native(run=("tesseract-ocr",)),
    "python-ldap": Native(("libldap2-dev", "libsasl2-dev"), ("libldap2-dev", "libsasl2-2")),
    "python-magic": Native(run=("libmagic1",)),
    "python-saml": Native(("libxmlsec1-dev", "pkg-config"), ("libxmlsec1-openssl",)),
    "python-snappy": Native(("libsnappy-dev",), ("libsnappy1v5",), below="0.7.0"),
    "pyzbar": Native(run=("libzbar0",)),
    "weasyprint": Native(run=("libpango-1.0-0", "libpangoft2-1.0-0", "libharfbuzz-subset0")),
    "whisper": _FFMPEG,
    "xmlsec": Native(("libxmlsec1-dev", "pkg-config"), ("libxmlsec1-openssl",)),
    "yt-dlp": _FFMPEG,
}


def packages(project: Project, *, gis: bool = False) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(build, run): what the project's dependencies need. gis: Django's geographic applications are used."""
    needed = [native for name, native in NATIVE.items() if _applies(project, name, native)]
    needed += [_GIS] if gis else []
    build = [package for native in needed for package in native.build]
    if any(dependency.git for dependency in project.dependencies.values()):
        build.append("git")
    return _sorted(build), _sorted(package for native in needed for package in native.run)


def evidence(project: Project) -> Iterator[Evidence]:
    """Which dependency wants which of them."""
    for name, native in NATIVE.items():
        if _applies(project, name, native):
            dependency = project.dependencies[name]
            wanted = " ".join(dict.fromkeys((*native.build, *native.run)))
            yield Evidence(file=dependency.file, line=dependency.line, detail=f"{name} needs {wanted}")


def _applies(project: Project, name: str, native: Native) -> bool:
    dependency = project.dependencies.get(name)
    if dependency is None or any(
        extra in dependency.extras or project.has(f"{name}-{extra}") for extra in native.without
    ):
        return False
    if not native.below:
        return True
    try:
        return bool(dependency.pinned()) and Version(dependency.pinned()) < Version(native.below)
    except InvalidVersion:
        return False


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(names)))
