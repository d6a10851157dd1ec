"""Why build steps fail, told from what their tools say last."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from mini_core.types import Value


class Cause(Value):
    """reason: a likely cause in a few words, or "". code: a stable word."""

    reason: str = ""
    hint: str = ""
    code: str = "build"


class _Rule(Value):
    """A pattern of a tool's output; reason and hint may use its groups as {0}, {1}."""

    pattern: str
    reason: str
    hint: str
    code: str = "build"


_RULES = (
    _Rule(
        pattern=r"No space left on device|ENOSPC",
        reason="the disk is full",
        hint="Free some space: mini doctor says how much is used by what.",
        code="disk-full",
    ),
    _Rule(
        pattern=r"JavaScript heap out of memory|MemoryError|Cannot allocate memory|Killed$",
        reason="out of memory",
        hint="Close other programs, or build elsewhere; for Node, set NODE_OPTIONS=--max-old-space-size=4096.",
        code="out-of-memory",
    ),
    _Rule(
        pattern=r"Temporary failure in name resolution|getaddrinfo (?:ENOTFOUND|EAI_AGAIN) (\S+)|"
        r"Could not resolve host|dial tcp: lookup (\S+)|Failed to establish a new connection|Network is unreachable",
        reason="a registry cannot be reached",
        hint="Check the network connection and proxy settings.",
        code="unreachable",
    ),
    _Rule(
        pattern=r"No matching distribution found for (\S+)",
        reason="no usable release of {0}",
        hint="Check its name and version, and whether it supports this version of Python.",
        code="no-such-package",
    ),
    _Rule(
        pattern=r"Package '([^']+)' requires a different Python: (\S+) not in '([^']+)'",
        reason="{0} needs Python {2}, not {1}",
        hint="Set the version in .python-version.",
        code="wrong-version",
    ),
    _Rule(
        pattern=r"(?:pg_config executable not found|libpq-fe\.h)",
        reason="PostgreSQL's headers are missing",
        hint="sudo apt install libpq-dev, or depend on psycopg[binary].",
        code="missing-library",
    ),
    _Rule(
        pattern=r"mysql_config: not found|Can not find valid pkg-config name|mysql\.h",
        reason="MySQL's headers are missing",
        hint="sudo apt install default-libmysqlclient-dev pkg-config",
        code="missing-library",
    ),
    _Rule(
        pattern=r"fatal error: (\S+\.h): No such file",
        reason="the header {0} is missing",
        hint="Install the package that has it (apt-file search {0}), or use Docker and [build] packages.",
        code="missing-library",
    ),
    _Rule(
        pattern=r"(?:command '?(gcc|cc|g\+\+|clang|x86_64-linux-gnu-gcc)'? failed: No such file|"
        r"(make|gcc|g\+\+): (?:command )?not found|not found: (make)|exec: \"(gcc)\": executable file not found)",
        reason="a compiler is missing",
        hint="sudo apt install build-essential (macOS: xcode-select --install)",
        code="missing-library",
    ),
    _Rule(
        pattern=r"npm (?:ERR!|error) code EUSAGE",
        reason="package-lock.json does not fit package.json",
        hint="Run npm install, and commit package-lock.json.",
        code="stale-lock",
    ),
    _Rule(
        pattern=r"ERR_PNPM_OUTDATED_LOCKFILE|lockfile needs to be updated|The lockfile would have been modified|"
        r"lock file .*(?:out of date|not up to date|changed significantly)|"
        r"needs to be updated, but `--(?:locked|frozen)",
        reason="the lock file does not fit the manifest",
        hint="Bring it up to date with the package manager, and commit it.",
        code="stale-lock",
    ),
    _Rule(
        pattern=r"npm (?:ERR!|error) code ERESOLVE",
        reason="packages need versions of each other that do not fit",
        hint="See the lines above; npm install --legacy-peer-deps, with its result committed, settles many of these.",
    ),
    _Rule(
        pattern=r"Missing script: \"?([^\"\s]+)",
        reason='package.json has no script "{0}"',
        hint="Add it, or set the command in mini.toml.",
    ),
    _Rule(
        pattern=r"(?:code EBADENGINE|Unsupported engine|is incompatible with this module)",
        reason="a package needs another version of Node",
        hint="Set it in package.json: engines.node.",
        code="wrong-version",
    ),
    _Rule(
        pattern=r"go: (?:go\.mod|\S+) requires go (?:>= )?(\S+) \(running go (\S+?);",
        reason="the module needs Go {0}, this is {1}",
        hint="Install a newer Go, or lower the go line in go.mod.",
        code="wrong-version",
    ),
    _Rule(
        pattern=r"missing go\.sum entry|updates to go\.(?:mod|sum) needed",
        reason="go.sum does not fit go.mod",
        hint="Run go mod tidy, and commit go.mod and go.sum.",
        code="stale-lock",
    ),
    _Rule(
        pattern=r"ModuleNotFoundError: No module named '([^']+)'",
        reason="the Python module {0} is not installed",
        hint="Add it to the app's dependencies.",
    ),
    _Rule(
        pattern=r"Cannot find module '([^']+)'",
        reason="the module {0} is not there",
        hint="Add it to package.json's dependencies, or check the path.",
    ),
    _Rule(
        pattern=r"(?:sh: (?:\d+: )?|line \d+: )(\S+?): (?:command )?not found",
        reason="{0} is not there",
        hint="Add it to the app's dependencies.",
        code="command-not-found",
    ),
)


def explain(argv: Sequence[str], code: int, tail: Sequence[str]) -> Cause:
    """The likely cause of a failed step, from its exit code (negative: a signal) and its last lines."""
    text = "\n".join(tail)
    for rule in _RULES:
        match = re.search(rule.pattern, text, re.MULTILINE)
        if match:
            groups = [group or "" for group in match.groups()]
            return Cause(reason=rule.reason.format(*groups), hint=rule.hint.format(*groups), code=rule.code)
    if code in (-9, 137):
        return Cause(reason="killed, probably out of memory", hint="Free some memory.", code="out-of-memory")
    return Cause(hint=f"The lines above are what it said last. To try it by hand: {shlex.join(argv)}")
