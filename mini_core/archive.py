"""Packing an app's source into a tar.gz, on the user's machine (Linux, macOS, Windows).

Times are not part of the digest (`mini_core.trees`), but travel all the same, because web servers derive ETags and
Last-Modified from them.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import os
import re
import stat
import sys
import tarfile
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import BinaryIO, cast

from mini_core.errors import SourceError
from mini_core.git import Head, Repository, asking_head, find_repository, new_files
from mini_core.ignores import Ignores, Rules, is_env
from mini_core.trees import tree_digest, tree_line
from mini_core.types import Origin, Value

COMPRESSION = 4
"""gzip's level: twice as fast as the default of 6, a few percent larger."""
LIGHT_COMPRESSION = 1
"""A third faster than that, an eighth larger: where nothing goes over a network."""
CHUNK = 128 * 1024

_ENV_KEY = re.compile(rb"^[ \t]*(?:export[ \t]+)?[A-Za-z_][A-Za-z0-9_.]*[ \t]*=", re.MULTILINE)
_ENV_SAMPLE = re.compile(r"example|sample|template|dist$|\.envrc", re.IGNORECASE)

Progress = Callable[[int, int], None]
"""Called while packing with the number of files and bytes so far."""


class EnvFile(Value):
    """An env file that did not travel, and how many variables it sets."""

    path: str
    keys: int


class PackResult(Value):
    """files: files and links. size: bytes of their content. archive_size: bytes of the tar.gz. commit, branch,
    changed (files that differ from the commit): from git, where the folder is in a repository. left_out: one line
    for each entry that cannot travel (a link out of the folder, a socket)."""

    files: int
    size: int
    archive_size: int
    digest: str
    commit: str = ""
    branch: str = ""
    changed: int = 0
    not_sent: tuple[EnvFile, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def origin(self) -> Origin:
        return Origin(
            digest=self.digest,
            commit=self.commit,
            branch=self.branch,
            changed=self.changed,
            files=self.files,
            size=self.size,
        )


def pack(folder: Path, out: Path, *, progress: Progress | None = None, compression: int = COMPRESSION) -> PackResult:
    """Writes what the folder holds, by the rules of `mini_core.ignores`, to `out`. Raises SourceError."""
    root = folder.resolve()
    if not root.is_dir():
        kind = "is not a folder" if root.exists() else "does not exist"
        raise SourceError(f"{folder} {kind}", hint="Name the folder that holds the app: mini deploy PATH.")
    repository = find_repository(root)
    with asking_head(root, repository) if repository else nullcontext(Head) as head_now:
        tree = _Tree(root, repository)
        entries = sorted(tree.walk(), key=lambda entry: entry.path)
        if not any(entry.kind != "folder" for entry in entries):
            raise _nothing(folder, root)
        written = _write(out, entries, progress, compression)
        head = head_now()
    return PackResult(
        files=written.files,
        size=written.size,
        archive_size=out.stat().st_size,
        digest=tree_digest(written.lines),
        commit=head.commit,
        branch=head.branch,
        changed=new_files(head, {entry.path for entry in entries}),
        not_sent=tuple(tree.not_sent),
        left_out=tuple(tree.left_out),
    )


def list_files(folder: Path) -> tuple[str, ...]:
    """The files and links that `pack` would send. Raises SourceError."""
    root = folder.resolve()
    if not root.is_dir():
        raise SourceError(f"{folder} is not a folder", hint="Name the folder that holds the app.")
    return tuple(entry.path for entry in _Tree(root, find_repository(root)).walk() if entry.kind != "folder")


def _nothing(folder: Path, root: Path) -> SourceError:
    if any(root.iterdir()):
        return SourceError(
            f"Nothing to deploy: all files in {folder} are ignored",
            hint="Look at .gitignore, .dockerignore and .miniignore; `!NAME` in .miniignore brings one back.",
        )
    return SourceError(f"Nothing to deploy: {folder} is empty", hint="Name the folder that holds the app.")


class _Entry(Value):
    """kind: "file", "link" or "folder" (an empty one)."""

    path: str
    local: Path
    kind: str
    target: str = ""
    executable: bool = False


class _Tree:
    """Walks the folder, and notes what stays behind."""

    def __init__(self, root: Path, repository: Repository | None) -> None:
        self._root = root
        self._modes = repository.tracked if repository else {}
        self._ignores = Ignores(root, repository)
        self.not_sent: list[EnvFile] = []
        self.left_out: list[str] = []

    def walk(self) -> Iterator[_Entry]:
        pending: list[tuple[str, Rules]] = [("", self._ignores.top())]
        while pending:
            prefix, rules = pending.pop()
            found = _scan(self._root, prefix)
            if not found and prefix:
                yield _Entry(path=prefix.rstrip("/"), local=self._root / prefix, kind="folder")
            for item in found:
                path = prefix + _name(item.name)
                if item.is_dir(follow_symlinks=False) and not _is_junction(item):
                    inner = self._ignores.folder(path, item.name, rules)
                    if inner is not None:
                        pending.append((path + "/", inner))
                elif self._ignores.file(path, item.name, rules):
                    yield from self._entry(path, item)
                elif is_env(item.name):
                    self._note_env(path, item)

    def _entry(self, path: str, item: os.DirEntry[str]) -> Iterator[_Entry]:
        local = Path(item.path)
        if item.is_symlink() or _is_junction(item):
            target = local.readlink().as_posix() if os.name == "nt" else str(local.readlink())
            if _leads_out(path, target):
                self.left_out.append(f"{path} (a link to {target}, outside the folder)")
            elif _in_a_circle(local):
                self.left_out.append(f"{path} (a link that leads in a circle)")
            else:
                yield _Entry(path=path, local=local, kind="link", target=target)
        elif item.is_file(follow_symlinks=False):
            yield _Entry(path=path, local=local, kind="file", executable=self._executable(path, item))
        else:
            self.left_out.append(f"{path} (neither a file nor a folder)")

    def _executable(self, path: str, item: os.DirEntry[str]) -> bool:
        if os.name == "nt":  # which has no such bit: git knows it, and scripts say so
            with Path(item.path).open("rb") as file:
                return self._modes.get(path, file.read(2) == b"#!")
        return bool(item.stat(follow_symlinks=False).st_mode & stat.S_IXUSR)

    def _note_env(self, path: str, item: os.DirEntry[str]) -> None:
        if _ENV_SAMPLE.search(item.name) or not item.is_file(follow_symlinks=False):
            return
        try:
            keys = len(_ENV_KEY.findall(Path(item.path).read_bytes()))
        except OSError:
            return
        if keys:
            self.not_sent.append(EnvFile(path=path, keys=keys))


def _scan(root: Path, prefix: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(root / prefix) as entries:
            return sorted(entries, key=lambda item: item.name)
    except OSError as error:
        raise _unreadable(prefix or str(root), error) from None


def _name(name: str) -> str:
    """macOS may hand out decomposed names, which Linux would take for others."""
    return unicodedata.normalize("NFC", name) if sys.platform == "darwin" else name


def _is_junction(item: os.DirEntry[str]) -> bool:
    return bool(getattr(item, "is_junction", bool)())


def _in_a_circle(link: Path) -> bool:
    try:
        link.stat()
    except OSError as error:
        return error.errno == errno.ELOOP
    return False


def _leads_out(path: str, target: str) -> bool:
    if target.startswith("/") or re.match(r"[A-Za-z]:|\\", target):
        return True
    depth = path.count("/")
    for part in target.split("/"):
        depth += -1 if part == ".." else part not in ("", ".")
        if depth < 0:
            return True
    return False


def _unreadable(path: str, error: OSError) -> SourceError:
    return SourceError(
        f"Cannot read {path}: {error.strerror or error}", hint="Make it readable, or name it in .miniignore."
    )


# --- writing


class _Written:
    def __init__(self) -> None:
        self.files = 0
        self.size = 0
        self.lines: list[bytes] = []


def _write(out: Path, entries: list[_Entry], progress: Progress | None, compression: int) -> _Written:
    done = _Written()
    try:
        with (
            out.open("wb") as file,
            gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0, compresslevel=compression) as zipped,
            io.BufferedWriter(cast(io.RawIOBase, zipped), CHUNK) as tar,
        ):
            for entry in entries:
                _add(tar, entry, done)
                if progress:
                    progress(done.files, done.size)
            tar.write(bytes(2 * tarfile.BLOCKSIZE))
    except OSError as error:  # of the disk we write to: what is wrong with an entry is a SourceError
        raise SourceError(f"Cannot pack the source: {error.strerror or error}") from None
    return done


def _add(tar: BinaryIO, entry: _Entry, done: _Written) -> None:
    info = tarfile.TarInfo(entry.path)
    if entry.kind == "folder":
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        tar.write(_header(info))
        done.lines.append(tree_line("folder", entry.path))
        return
    done.files += 1
    if entry.kind == "link":
        info.type, info.mode, info.linkname = tarfile.SYMTYPE, 0o777, entry.target
        tar.write(_header(info))
        done.lines.append(tree_line("link", entry.path, entry.target))
        return
    info.mode = 0o755 if entry.executable else 0o644
    digest = _add_file(tar, entry, info)
    done.size += info.size
    done.lines.append(tree_line("program" if entry.executable else "file", entry.path, digest))


def _add_file(tar: BinaryIO, entry: _Entry, info: tarfile.TarInfo) -> str:
    """Returns the digest of its content."""
    sha = hashlib.sha256()
    try:
        file = entry.local.open("rb", buffering=0)
    except OSError as error:
        raise _unreadable(entry.path, error) from None
    with file:
        status = os.fstat(file.fileno())
        left = info.size = status.st_size
        info.mtime = int(status.st_mtime)
        tar.write(_header(info))
        while left:
            data = file.read(min(left, CHUNK))
            if not data:
                raise SourceError(f"{entry.path} became shorter while it was packed", hint="Deploy again.")
            sha.update(data)
            tar.write(data)
            left -= len(data)
    tar.write(bytes(-info.size % tarfile.BLOCKSIZE))
    return sha.hexdigest()


def _header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
