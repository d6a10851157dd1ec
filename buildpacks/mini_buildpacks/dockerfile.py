"""The repository's own Dockerfile (or Containerfile), used as it is.

Read for what a platform needs to know: the stage that is built, the port it exposes, whether it starts something,
and the path that its health check asks for. The format: https://docs.docker.com/reference/dockerfile/.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from mini_core.errors import ConfigError, PlanError
from mini_core.interfaces import Source
from mini_core.types import BuildSettings, Dockerfile, Evidence, Health, Offer, Plan, ProcessType, Strength

NAMES = ("Dockerfile", "Containerfile", "dockerfile")

_VARIABLE = re.compile(r"\$(?:\{(\w+)(?::?-([^}]*))?\}|(\w+))")
_GIVEN = {f"{of}{what}" for of in ("BUILD", "TARGET") for what in ("PLATFORM", "OS", "ARCH", "VARIANT")}
_URL = re.compile(r"https?://(?:localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1?\])(?::[^/\s\"']+)?(/[^\s\"'|;)]*)?")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass
class Stage:
    """What one stage of a Dockerfile says, the stages that it builds on included."""

    name: str
    base: str
    line: int
    ports: list[tuple[int, int]] = field(default_factory=list)
    starts: str = ""
    health: str = ""
    health_line: int = 0
    variables: dict[str, str] = field(default_factory=dict)


class DockerfileBuildpack:
    """Uses the Dockerfile that is there."""

    name = "dockerfile"
    description = "a Dockerfile or Containerfile"

    def detect(self, source: Source, settings: BuildSettings) -> Offer | None:
        path = settings.dockerfile or next((name for name in NAMES if name in _top(source)), "")
        if not path:
            return None
        text = source.text(path)
        if text is None:
            raise ConfigError(f"mini.toml: build.dockerfile: there is no file {path}", hint="Correct or remove it.")
        stage = choose_stage(read_stages(text, path, settings.args), settings.target, path)
        plan = Plan(
            buildpack=self.name,
            summary=(path, *([f"target {settings.target}"] if settings.target else [])),
            evidence=tuple(_evidence(path, stage)),
            dockerfile=Dockerfile(path=path, target=settings.target, args=settings.args),
            processes=(ProcessType(name="web", source=path),),
            port=stage.ports[0][0] if stage.ports else None,
            health=read_health(stage.health),
            warnings=tuple(_warnings(path, stage)),
        )
        strength = Strength.EXPLICIT if settings.dockerfile else Strength.DOCKERFILE
        return Offer(buildpack=self.name, strength=strength, reason=f"has a {path}", plan=plan)


def _top(source: Source) -> tuple[str, ...]:
    return tuple(path for path in source.glob("*file"))


def _evidence(path: str, stage: Stage) -> Iterator[Evidence]:
    yield Evidence(file=path, line=stage.line, detail=f"FROM {stage.base}")
    for port, line in stage.ports:
        yield Evidence(file=path, line=line, detail=f"EXPOSE {port}")
    if stage.health:
        yield Evidence(file=path, line=stage.health_line, detail="HEALTHCHECK")


def _warnings(path: str, stage: Stage) -> Iterator[str]:
    if len(stage.ports) > 1:
        names = ", ".join(str(port) for port, _ in stage.ports)
        yield f"{path} exposes {names}: {stage.ports[0][0]} is taken for web traffic unless PORT is heeded"


def instructions(text: str) -> Iterator[tuple[int, str, str]]:
    """(line number, instruction in upper case, rest) of a Dockerfile: continuations joined, comments dropped,
    heredoc bodies skipped."""
    escape = "`" if re.match(r"\s*#\s*escape\s*=\s*`", text) else "\\"
    lines = enumerate(text.splitlines(), 1)
    for number, line in lines:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        parts = [line.strip()]
        while parts[-1].endswith(escape):
            parts[-1] = parts[-1][:-1].rstrip()
            following = next(lines, None)
            if following is None:
                break
            if following[1].strip() and not following[1].lstrip().startswith("#"):
                parts.append(following[1].strip())
            else:
                parts[-1] += escape
        keyword, _, rest = " ".join(parts).partition(" ")
        if keyword.upper() in ("RUN", "COPY", "ADD"):
            _skip_heredocs(rest, lines)
        yield number, keyword.upper(), rest.strip()


def _skip_heredocs(rest: str, lines: Iterator[tuple[int, str]]) -> None:
    for word in re.findall(r"<<-?\s*[\"']?(\w+)[\"']?", rest):
        for _, line in lines:
            if line.strip() == word:
                break


def read_stages(text: str, path: str, args: Mapping[str, str]) -> list[Stage]:
    """The stages in order. args: build arguments that override ARG's defaults. Raises PlanError without a FROM."""
    stages: list[Stage] = []
    named: dict[str, Stage] = {}
    common: dict[str, str] = {}
    for line, keyword, rest in instructions(text):
        if keyword == "FROM":
            words = [word for word in rest.split() if not word.startswith("--")]
            base = _base(words[0] if words else "", common, f"{path}:{line}")
            name = words[2] if len(words) > 2 and words[1].lower() == "as" else ""
            stage = _inherit(named.get(base.lower()), Stage(name=name, base=base, line=line))
            stages.append(stage)
            named[name.lower()] = stage
        elif not stages:
            if keyword == "ARG":
                common.update(_argument(rest, args, common))
            elif keyword not in ("",):
                raise PlanError(f"{path}:{line}: expected FROM, got {keyword}", hint="A Dockerfile begins with FROM.")
        else:
            _read(stages[-1], line, keyword, rest, {**common, **args})
    if not stages:
        raise PlanError(f"{path}: no FROM in it", hint=f"Complete {path}, or remove it to have the app detected.")
    return stages


def _base(text: str, common: Mapping[str, str], where: str) -> str:
    """The image that FROM names. Raises PlanError where a variable in it has no value."""
    for match in _VARIABLE.finditer(text):
        name = match[1] or match[3]
        if not (common.get(name) or match[2] or name in _GIVEN):
            hint = f'Give it one: ARG {name}=… above FROM, or args = {{ {name} = "…" }} in [build] of mini.toml.'
            raise PlanError(f"{where}: FROM {text}: {name} has no value", hint=hint)
    return _expand(text, common)


def _inherit(base: Stage | None, stage: Stage) -> Stage:
    if base is not None:
        stage.ports = list(base.ports)
        stage.starts, stage.health, stage.health_line = base.starts, base.health, base.health_line
        stage.variables = dict(base.variables)
    return stage


def _read(stage: Stage, line: int, keyword: str, rest: str, args: Mapping[str, str]) -> None:
    if keyword == "ARG":
        stage.variables.update(_argument(rest, args, stage.variables))
    elif keyword == "ENV":
        stage.variables.update(_assignments(rest, stage.variables))
    elif keyword == "EXPOSE":
        for word in _expand(rest, stage.variables).split():
            number, _, protocol = word.partition("/")
            first = number.partition("-")[0]
            if first.isdigit() and protocol.lower() in ("", "tcp") and int(first) not in dict(stage.ports):
                stage.ports.append((int(first), line))
    elif keyword in ("CMD", "ENTRYPOINT"):
        stage.starts = rest
    elif keyword == "HEALTHCHECK":
        stage.health, stage.health_line = ("", 0) if rest.upper() == "NONE" else (rest, line)


def _argument(rest: str, args: Mapping[str, str], known: Mapping[str, str]) -> dict[str, str]:
    name, given, default = rest.partition("=")
    name = name.strip()
    if name in args:
        return {name: args[name]}
    return {name: _expand(default.strip().strip("\"'"), known)} if given else {}


def _assignments(rest: str, known: Mapping[str, str]) -> dict[str, str]:
    pairs = re.findall(r"(\w+)=(\"(?:[^\"\\]|\\.)*\"|'[^']*'|\S*)", rest)
    if not pairs:
        name, _, content = rest.partition(" ")
        pairs = [(name, content)]
    return {name: _expand(content.strip("\"'"), known) for name, content in pairs}


def _expand(text: str, variables: Mapping[str, str]) -> str:
    def replace(match: re.Match[str]) -> str:
        name = match[1] or match[3]
        return variables.get(name) or match[2] or ""

    return _VARIABLE.sub(replace, text)


def choose_stage(stages: list[Stage], target: str, path: str) -> Stage:
    """The stage that is built: `target`, by name or number, else the last. Raises ConfigError naming the stages."""
    if not target:
        return stages[-1]
    if target.isdigit() and int(target) < len(stages):
        return stages[int(target)]
    for stage in stages:
        if stage.name.lower() == target.lower():
            return stage
    names = ", ".join(stage.name for stage in stages if stage.name) or "none has a name"
    raise ConfigError(f"mini.toml: build.target: {path} has no stage {target}", hint=f"Its stages: {names}.")


def read_health(text: str) -> Health:
    """The path that a HEALTHCHECK asks for on its own machine, where it is an HTTP request; its start period."""
    options = dict(re.findall(r"--([\w-]+)=(\S+)", text))
    start = _seconds(options.get("start-period", ""))
    timeout = max(Health().timeout, start + Health().timeout if start else 0.0)
    match = _URL.search(_command(text))
    return Health(path=(match[1] or "/") if match else "", timeout=timeout)


def _command(text: str) -> str:
    command = text.partition("CMD")[2].strip()
    if command.startswith("["):
        try:
            return " ".join(str(part) for part in json.loads(command))
        except ValueError:
            return command
    return command


def _seconds(text: str) -> float:
    return sum(float(number) * _SECONDS[unit] for number, unit in _DURATION.findall(text))
