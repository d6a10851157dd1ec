"""What travels with a deploy, and what stays behind."""

from __future__ import annotations

import os
import socket
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from mini_core.archive import LIGHT_COMPRESSION, EnvFile, PackResult, pack
from mini_core.errors import SourceError
from mini_core.unpacking import unpack


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        file(root, name, text)


def file(root: Path, name: str, text: str = "x", *, mode: int = 0o644) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def git(root: Path, *arguments: str) -> None:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.com", "-C", str(root), *arguments]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "app"
    folder.mkdir()
    return folder


def names(root: Path) -> list[str]:
    return packed(root)[1]


def packed(root: Path) -> tuple[PackResult, list[str]]:
    out = root.parent / "app.tar.gz"
    result = pack(root, out)
    with tarfile.open(out) as tar:
        return result, tar.getnames()


def test_everything_travels_sorted_and_without_the_leading_folder(root: Path) -> None:
    for name in ("b.txt", "a/z.py", "a/b/c.py", ".hidden", "wörter/☃ snow man"):
        file(root, name)
    assert names(root) == [".hidden", "a/b/c.py", "a/z.py", "b.txt", "wörter/☃ snow man"]


def test_repositories_caches_and_installed_packages_stay_behind(root: Path) -> None:
    file(root, "app.py")
    for name in (".git/config", "sub/.git", "node_modules/x/i.js", "web/node_modules/y.js", ".venv/bin/python"):
        file(root, name)
    for name in ("__pycache__/a.pyc", "a.pyc", ".DS_Store", ".pytest_cache/v", ".hg/store"):
        file(root, name)
    assert names(root) == ["app.py"]


def test_env_files_stay_behind_and_are_named_with_their_number_of_keys(root: Path) -> None:
    file(root, "app.py")
    file(root, ".env", "# comment\nA=1\nexport B='2'\n\nC = 3\nnot a line\n")
    file(root, "api/.env.local", "KEY=1\n")
    file(root, ".env.example", "A=\n")
    file(root, ".envrc", "export A=1\n")
    file(root, ".env.empty", "# nothing\n")
    result, found = packed(root)
    assert found == ["app.py"]
    assert result.not_sent == (EnvFile(path=".env", keys=3), EnvFile(path="api/.env.local", keys=1))


def test_env_files_that_git_tracks_travel_and_others_do_not(root: Path) -> None:
    write(root, **{".gitignore": ".env*\n", ".env.production": "VITE_A=1\n", "app.py": "x"})
    git(root, "init", "-q")
    git(root, "add", "-f", ".env.production", "app.py", ".gitignore")
    git(root, "commit", "-qm", "x")
    file(root, ".env", "SECRET=1\n")
    result, found = packed(root)
    assert found == [".env.production", ".gitignore", "app.py"]
    assert result.not_sent == (EnvFile(path=".env", keys=1),)


def test_no_ignore_file_brings_back_an_env_file(root: Path) -> None:
    write(root, **{".env": "A=1", "app.py": "x", ".miniignore": "!.env\n", ".dockerignore": "!.env\n"})
    assert ".env" not in names(root)


def test_gitignore_holds_without_a_repository_too_and_nested_ones_hold_below_their_folder(root: Path) -> None:
    file(root, ".gitignore", "*.log\n/dist/\n!keep.log\nsecret/\n")
    file(root, "web/.gitignore", "build\n!special.log\n")
    for name in (
        "a.log",
        "keep.log",
        "dist/x",
        "web/dist/x",
        "web/build/x",
        "build/x",
        "web/special.log",
        "x/secret/y",
    ):
        file(root, name)
    assert names(root) == [".gitignore", "build/x", "keep.log", "web/.gitignore", "web/dist/x", "web/special.log"]


def test_what_git_tracks_travels_although_it_is_ignored(root: Path) -> None:
    write(root, **{"dist/bundle.js": "x", "node_modules/vendored/i.js": "x", "app.py": "x"})
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "x")
    write(root, **{".gitignore": "dist/\nnode_modules/\n", "dist/new.js": "x", "node_modules/other/i.js": "x"})
    assert names(root) == [".gitignore", "app.py", "dist/bundle.js", "node_modules/vendored/i.js"]


def test_a_folder_inside_a_repository_obeys_the_files_above_it(root: Path) -> None:
    write(root, **{".gitignore": "*.tmp\n/apps/web/out/\n", "apps/web/app.py": "x", "apps/web/a.tmp": "x"})
    write(root, **{"apps/web/out/x": "x", "apps/.gitignore": "/web/local\n", "apps/web/local": "x", "other": "x"})
    git(root, "init", "-q")
    file(root, ".git/info/exclude", "apps/web/excluded\n")
    file(root, "apps/web/excluded")
    assert names(root / "apps/web") == ["app.py"]


def test_a_repository_that_ignores_the_folder_has_no_say(root: Path) -> None:
    """As with a home folder whose dotfiles are under version control, and which ignores all else."""
    git(root, "init", "-q")
    write(root, **{".gitignore": "*\n", "projects/blog/app.py": "x"})
    assert names(root / "projects/blog") == ["app.py"]


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ("docs", ["a.py", "web/a.md", "web/docs/x"]),
        ("/docs/", ["a.py", "web/a.md", "web/docs/x"]),
        ("**/docs", ["a.py", "web/a.md"]),
        ("*.md", ["a.py", "docs/x", "web/a.md", "web/docs/x"]),
        ("**/*.md", ["a.py", "docs/x", "web/docs/x"]),
        ("*\n!web", ["web/a.md", "web/docs/x"]),
        ("*\n!web/docs", ["web/docs/x"]),
        ("*\n!web/d*", ["web/docs/x"]),
        ("web\n!web/docs/x", ["a.py", "docs/x", "web/docs/x"]),
        ("!web/docs\nweb", ["a.py", "docs/x"]),
        ("**\n!**/*.py", ["a.py"]),
        ("# docs\n\n ./web ", ["a.py", "docs/x"]),
        ("web/*\n!web/docs", ["a.py", "docs/x", "web/docs/x"]),
    ],
)
def test_dockerignore_means_what_it_means_to_docker(root: Path, patterns: str, expected: list[str]) -> None:
    for name in ("a.py", "docs/x", "web/a.md", "web/docs/x"):
        file(root, name)
    file(root, ".dockerignore", patterns)
    assert names(root) == sorted([".dockerignore", *expected])


def test_files_that_mini_reads_travel_although_dockerignore_names_them(root: Path) -> None:
    kept = ["Dockerfile", "Dockerfile.prod", "Procfile", "app.json", "mini.toml"]
    for name in (*kept, "app.py", "README.md"):
        file(root, name)
    file(root, ".dockerignore", "*\n!app.py\n")
    assert names(root) == sorted([".dockerignore", "app.py", *kept])


def test_miniignore_has_the_last_word(root: Path) -> None:
    file(root, ".gitignore", "dist/\n")
    file(root, ".miniignore", "!dist/\ntests/\n!/node_modules/\n*.psd\n")
    for name in ("app.py", "dist/x.js", "tests/a.py", "node_modules/m/i.js", "art/logo.psd"):
        file(root, name)
    assert names(root) == [".gitignore", ".miniignore", "app.py", "dist/x.js", "node_modules/m/i.js"]


def test_links_and_executable_bits_are_kept_and_links_that_lead_out_are_named(root: Path) -> None:
    file(root, "bin/run", "#!/bin/sh\n", mode=0o750)
    file(root, "plain", mode=0o666)
    (root / "current").symlink_to("bin/run")
    (root / "folder").symlink_to("bin")
    (root / "dangling").symlink_to("made/by/the/build")
    (root / "absolute").symlink_to("/etc/passwd")
    (root / "bin/up").symlink_to("../../secret")
    (root / "circle").symlink_to("circle")
    out = root.parent / "a.tar.gz"
    result = pack(root, out)
    with tarfile.open(out) as tar:
        modes = {member.name: (member.mode, member.linkname) for member in tar}
    assert modes == {
        "bin/run": (0o755, ""),
        "plain": (0o644, ""),
        "current": (0o777, "bin/run"),
        "folder": (0o777, "bin"),
        "dangling": (0o777, "made/by/the/build"),
    }
    assert result.left_out == (
        "absolute (a link to /etc/passwd, outside the folder)",
        "circle (a link that leads in a circle)",
        "bin/up (a link to ../../secret, outside the folder)",
    )


def test_empty_folders_travel_and_sockets_do_not(root: Path) -> None:
    file(root, "app.py")
    (root / "uploads").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(root)  # a socket's path must be short
        try:
            listener.bind("s.sock")
        finally:
            os.chdir(here)
        result, found = packed(root)
    assert found == ["app.py", "uploads"]
    assert result.left_out == ("s.sock (neither a file nor a folder)",)


def test_the_digest_covers_content_names_and_modes_but_not_times(root: Path) -> None:
    path = file(root, "app.py", "print(1)")
    first = packed(root)[0]
    os.utime(path, (1, 1))
    assert packed(root)[0].digest == first.digest
    path.chmod(0o755)
    assert packed(root)[0].digest != first.digest
    path.chmod(0o644)
    path.write_text("print(2)")
    assert packed(root)[0].digest != first.digest
    path.write_text("print(1)")
    assert packed(root)[0].digest == first.digest
    path.rename(root / "main.py")
    assert packed(root)[0].digest != first.digest


def test_packing_twice_gives_the_same_bytes(root: Path) -> None:
    write(root, **{"a": "1", "b/c": "2"})
    archives = []
    for _ in range(2):
        packed(root)
        archives.append((root.parent / "app.tar.gz").read_bytes())
    assert archives[0] == archives[1]


def test_unpacking_gives_the_tree_back_with_the_digest_of_packing(root: Path, tmp_path: Path) -> None:
    file(root, "bin/run", "#!/bin/sh\n", mode=0o755)
    file(root, "a" * 120 + "/" + "ü" * 100, "long")
    (root / "link").symlink_to("bin/run")
    (root / "empty").mkdir()
    result = pack(root, tmp_path / "a.tar.gz")
    done = unpack(tmp_path / "a.tar.gz", tmp_path / "out", max_bytes=1000, max_files=100)
    assert (done.digest, done.files, done.size) == (result.digest, result.files, result.size)
    assert (tmp_path / "out/link").read_text() == "#!/bin/sh\n"
    assert os.access(tmp_path / "out/bin/run", os.X_OK)
    assert (tmp_path / "out/bin/run").stat().st_mtime == int((root / "bin/run").stat().st_mtime)
    assert (tmp_path / "out/empty").is_dir()


def test_git_tells_the_commit_the_branch_and_how_many_files_differ(root: Path) -> None:
    for name in ("same", "edited", "removed", "old name"):
        file(root, name, name * 100)
    git(root, "init", "-q", "-b", "trunk")
    git(root, "add", ".")
    git(root, "commit", "-qm", "x")
    assert packed(root)[0].changed == 0
    file(root, "edited", "new")
    (root / "removed").unlink()
    git(root, "mv", "old name", "new name")
    file(root, "untracked")
    file(root, ".env", "A=1")
    result = packed(root)[0]
    assert len(result.commit) == 40
    assert (result.branch, result.changed, result.files) == ("trunk", 4, 4)
    assert result.origin.commit == result.commit and result.origin.digest == result.digest


def test_a_repository_without_a_commit_is_packed_too(root: Path) -> None:
    git(root, "init", "-q")
    file(root, "app.py")
    result, found = packed(root)
    assert (result.commit, found) == ("", ["app.py"])


def test_a_deploy_from_a_git_hook_looks_at_the_folder_not_at_the_hooks_variables(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file(root, "app.py")
    monkeypatch.setenv("GIT_DIR", "/nowhere/.git")
    git_free = packed(root)[0]
    monkeypatch.delenv("GIT_DIR")
    assert packed(root)[0] == git_free


def test_progress_is_told_in_files_and_bytes(root: Path, tmp_path: Path) -> None:
    write(root, a="12", b="345")
    seen: list[tuple[int, int]] = []
    pack(root, tmp_path / "x", progress=lambda files, size: seen.append((files, size)))
    assert seen == [(1, 2), (2, 5)]


def test_an_empty_folder_a_missing_one_and_a_fully_ignored_one_say_so(root: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"^Nothing to deploy: .* is empty$"):
        pack(root, tmp_path / "x")
    file(root, ".env", "A=1")
    with pytest.raises(SourceError, match=r"^Nothing to deploy: all files in .* are ignored$"):
        pack(root, tmp_path / "x")
    with pytest.raises(SourceError, match="does not exist"):
        pack(root / "nope", tmp_path / "x")
    with pytest.raises(SourceError, match="is not a folder"):
        pack(root / ".env", tmp_path / "x")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_named(root: Path, tmp_path: Path) -> None:
    file(root, "locked", mode=0)
    with pytest.raises(SourceError, match=r"^Cannot read locked: Permission denied$"):
        pack(root, tmp_path / "x")


def test_lighter_compression_gives_the_same_tree(root: Path, tmp_path: Path) -> None:
    write(root, **{"a.txt": "the same words, " * 10_000})
    usual = pack(root, tmp_path / "usual.tar.gz")
    light = pack(root, tmp_path / "light.tar.gz", compression=LIGHT_COMPRESSION)
    unpacked = unpack(tmp_path / "light.tar.gz", tmp_path / "out", max_bytes=10**6, max_files=10)
    assert light.digest == usual.digest == unpacked.digest
    assert light.archive_size > usual.archive_size


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has it")
def test_a_full_disk_is_named(root: Path) -> None:
    write(root, a="x")
    with pytest.raises(SourceError, match="Cannot pack the source: No space left on device"):
        pack(root, Path("/dev/full"))


def test_git_is_ended_where_packing_fails(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A git that would never end, as on a network disk that hangs."""
    git(root, "init", "-q")
    script = '#!/bin/sh\ncase "$*" in *status*) exec sleep 1000;; esac\nPATH=${PATH#*:} exec git "$@"\n'
    monkeypatch.setenv("PATH", f"{file(tmp_path, 'bin/git', script, mode=0o755).parent}:{os.environ['PATH']}")
    began = time.monotonic()
    with pytest.raises(SourceError, match="Nothing to deploy"):
        pack(root, tmp_path / "out.tar.gz")
    assert time.monotonic() - began < 30


def test_ten_thousand_files_are_packed_in_a_few_seconds(root: Path, tmp_path: Path) -> None:
    file(root, ".gitignore", "".join(f"*.ext{number}\n" for number in range(20)))
    for number in range(100):
        (root / f"d{number}").mkdir()
        for inner in range(100):
            (root / f"d{number}/f{inner}.js").write_bytes(b"x" * 100)
    for number in range(2000):
        file(root, f"node_modules/m{number}/index.js")
    began = time.monotonic()
    assert pack(root, tmp_path / "x").files == 10_001
    assert time.monotonic() - began < 15
