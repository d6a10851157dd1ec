"""Why builds fail: the likely cause for what tools say, in one table. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """pattern: searched in the tool's last lines, ignoring case. code: a stable word. hint: cause and cure; groups
    of the pattern can be named in it."""

    pattern: str
    code: str
    hint: str


RULES = (
    Rule(r"no space left on device", "disk-full", "The disk is full: `docker system df` shows what takes the room."),
    Rule(
        r"could not find bridge|failed to create endpoint .* on network",
        "engine-network",
        "The engine has lost a network of its own: restart it (sudo systemctl restart docker), and deploy again.",
    ),
    Rule(
        r"javascript heap out of memory|cannot allocate memory|MemoryError|signal: killed|killed signal terminated"
        r"|exit code: 137|non-zero code: 137",
        "out-of-memory",
        "The build ran out of memory: give the machine more, or let the step use less"
        " (for Node: NODE_OPTIONS=--max-old-space-size=… as a build variable).",
    ),
    Rule(
        r"can only install packages when your package\.json and .*lock.* are in sync|npm ci.*in sync|\bEUSAGE\b"
        r"|ERR_PNPM_OUTDATED_LOCKFILE|lockfile is frozen|lockfile would have been modified|YN0028"
        r"|lock ?file (?:is )?(?:out[ -]of[ -]date|needs to be updated)|pyproject\.toml changed significantly"
        r"|poetry\.lock is not (?:up to date|consistent)|Pipfile\.lock .*out of date|lock file hash doesn't match"
        r"|missing go\.sum entry|updates to go\.(?:mod|sum) needed",
        "stale-lock",
        "The lock file does not match its manifest: run the package manager's install (or lock) and commit the lock.",
    ),
    Rule(
        r"EBADENGINE|engine \"?node\"? is incompatible|Unsupported engine|requires a different python|requires-python"
        r"|python version .* not supported|not supported by the project|go\.mod requires go >= (?P<go>[\d.]+)"
        r"|The current Python version .* is not allowed",
        "engine-mismatch",
        "A version is required that this is not: say which to use (.python-version, engines.node, go.mod).",
    ),
    Rule(
        r"pg_config executable not found|libpq-fe\.h",
        "missing-library",
        'A native library is missing: add packages = ["libpq-dev"] to [build] in mini.toml, or use psycopg[binary].',
    ),
    Rule(
        r"fatal error: (?P<header>[\w./-]+\.h): no such file|Package '?(?P<pkg>[\w.+-]+)'?,? .*not found"
        r"|No package '(?P<pc>[\w.+-]+)' found|cannot find -l(?P<lib>\w+)|mysql_config not found",
        "missing-library",
        "A native library is missing ({header}{pkg}{pc}{lib}): add its Debian -dev package to packages in [build]"
        " of mini.toml.",
    ),
    Rule(
        r"(?:command|executable file|unable to execute) '?(?:gcc|cc|g\+\+|make|[\w-]+-gnu-gcc)'?.*(?:not found|failed)"
        r"|(?:gcc|cc|g\+\+|make): (?:command )?not found|gyp ERR! .*not found: make|C compiler .*not found",
        "missing-compiler",
        'A compiler is needed: add packages = ["build-essential"] to [build] in mini.toml.',
    ),
    Rule(
        r"could not resolve host|temporary failure in name resolution|no such host|\bENOTFOUND\b|EAI_AGAIN|ETIMEDOUT"
        r"|ECONNREFUSED|network is unreachable|i/o timeout|failed to establish a new connection|connection timed out"
        r"|failed to do request|Temporary failure resolving|Some index files failed to download|Failed to fetch http",
        "network",
        "The build has no network, or a registry is out of reach: try again, or check DNS and proxy of the engine.",
    ),
    Rule(
        r"Unable to locate package (?P<name>\S+)|Package '(?P<name2>\S+)' has no installation candidate",
        "unknown-package",
        "Debian has no package {name}{name2}: see packages in mini.toml, https://packages.debian.org.",
    ),
    Rule(
        r"No matching distribution found for (?P<req>\S+)"
        r"|Could not find a version that satisfies the requirement (?P<r2>\S+)"
        r"|npm (?:ERR!|error) (?:code )?E404|No matching version found|unknown revision"
        r"|ERR_PNPM_FETCH_404|ERR_PNPM_NO_MATCHING_VERSION",
        "unknown-dependency",
        "A dependency, or that version of it, does not exist for this platform: check its name and version: {req}{r2}.",
    ),
    Rule(
        r"ResolutionImpossible|ERESOLVE|conflicting dependencies|version solving failed",
        "conflict",
        "Dependencies contradict each other: the lines above name which.",
    ),
    Rule(r"toomanyrequests|429 too many requests", "rate-limit", "The registry limits requests: wait or docker login."),
    Rule(
        r"pull access denied|repository does not exist|manifest unknown|load metadata for \S+: not found"
        r"|failed to resolve source metadata for \S+ .*not found|manifest for \S+ not found",
        "unknown-image",
        "There is no such base image, or it needs a login: mend FROM in the Dockerfile, or a `docker login`.",
    ),
    Rule(
        r"/run/secrets/(?P<secret>\w+)\W+No such file",
        "missing-secret",
        "The build variable {secret} is not set: mini env set --build {secret}=…",
    ),
    Rule(
        r"unauthorized|authentication required|\bE401\b|403 forbidden|could not read Username",
        "credentials",
        "Credentials are missing: set them as build variables (mini env set --build NAME=…).",
    ),
    Rule(
        r"failed to (?:compute cache key|calculate checksum).*not found|COPY failed|no source files were specified",
        "missing-file",
        "A file that the build copies is not in what was sent: is it ignored, or not committed?",
    ),
    Rule(
        r"dockerfile parse error|unknown instruction|failed to parse|failed to create LLB definition: dockerfile",
        "dockerfile",
        "The Dockerfile has an error in the line that is named.",
    ),
    Rule(
        r"ModuleNotFoundError: No module named '(?P<module>[\w.]+)'|Cannot find module '(?P<node>[^']+)'",
        "missing-module",
        "{module}{node} is not installed: is it among the dependencies?",
    ),
    Rule(
        r"(?:^|\s)(?P<command>[\w./-]+): (?:not found|command not found)",
        "missing-command",
        "{command} is not there: add the dependency or the Debian package that has it.",
    ),
)

OTHERWISE = "The lines above are the tool's own: mend what they name, and deploy again."


@dataclass(frozen=True)
class Cause:
    """code, hint: see Rule; "build" and a general hint where no rule fits. line: the one that told, if any did."""

    code: str
    hint: str
    line: int | None = None


def explain(lines: Sequence[str]) -> Cause:
    """The likely cause, from the last lines of a failed step."""
    text = "\n".join(lines)
    for rule in RULES:
        match = re.search(rule.pattern, text, re.IGNORECASE | re.MULTILINE)
        if match:
            named = {name: found or "" for name, found in match.groupdict().items()}
            hint = re.sub(r" \(\)| +(?=\.$)", "", rule.hint.format_map(_Blank(named)))
            return Cause(rule.code, hint, text.count("\n", 0, match.start()))
    return Cause("build", OTHERWISE)


def argument_hint(step: str, dockerfile: str, args: Mapping[str, str]) -> str:
    """What to do about a step that failed for no known reason and uses an ARG which nobody gave a value; else ""."""
    for name in re.findall(r"^\s*ARG\s+(\w+)\s*$", dockerfile, re.MULTILINE | re.IGNORECASE):
        if name not in args and re.search(rf"\$(?:{name}\b|\{{{name}\W)", step):
            return (
                f"ARG {name} has no value: [build] args of mini.toml can give it one. A secret is mounted instead: "
                f"RUN --mount=type=secret,id={name}, and mini env set --build {name}=…"
            )
    return ""


def shorten(lines: Sequence[str], telling: int | None, limit: int) -> list[str]:
    """The last lines, and the telling one where it came long before (npm prints its manual after an error)."""
    if len(lines) <= limit or telling is None or telling >= len(lines) - limit:
        return list(lines[-limit:])
    told = lines[telling : telling + limit // 4]
    return [*told, "…", *lines[-(limit - len(told) - 1) :]]


class _Blank(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return ""


_EXIT = re.compile(r"(?:exit code|exit status|non-zero code|status code):? (\d+)")


def exit_code(text: str) -> int | None:
    """The exit code that an engine's error names."""
    match = _EXIT.search(text)
    return int(match[1]) if match else None
