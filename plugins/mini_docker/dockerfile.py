"""A plan as a Dockerfile. Pure: no engine, no `docker`, no file is read.

What is made reads like one written by hand, and `docker build .` carries it out:

- One build stage per toolchain. Steps that name the files they read come first, so a change of code does not run
  them again; then the source; then the others. A plan whose steps change toolchains hands `/app` on from one stage
  to the next.
- A small stage at the end: the slim image, the packages that the running app needs, an own user, the artifacts.
  Without steps that need the whole source, the dependencies are a layer of their own below the code.
- Static sites end in a stage with nginx.

The app's folder is `/app`. Plan entries of the kind "value" are written as ENV: build steps see them, and an image
run by hand has the defaults. At run time the platform sets all of the environment anyway, so changing one there
needs no build. PORT and HOST are set for the same reason.

`Style` says how the engine takes it: with cache mounts or without, from the source itself or from a context that
has it below `src/`, beside mini's own files. Build-time variables are a file of shell lines that is mounted as a
secret while a step runs.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from mini_core.types import Cache, Plan, Step, Value, iter_env
from mini_docker.nginx import CONFIG_NAME, START

APP = "/app"
PORT = 8080
USER_ID = 10001

_FILES = re.compile(r"\.(txt|toml|lock|lockb|jsonc?|json5|ya?ml|cfg|ini|in|py|mod|sum|work|[cm]?[jt]s)$|^\.\w+rc$")
_BARE = re.compile(r"[A-Za-z0-9_./:@%+,=~^-]+")


class Base(Value):
    """The images a toolchain became: `build` has its tools, `run` is the smallest that runs what they made.

    packages: what is to be installed into `build` because it stands in for a larger image.
    """

    build: str
    run: str
    packages: tuple[str, ...] = ()


class Style(Value):
    """mounts: the engine has BuildKit. context: the source is below `src/`, beside mini's own files. secrets: id of
    the build-time variables, for the steps that want them; "" for none. scope: prefix of the caches that belong to
    one app. labels: on every stage, for engines that leave intermediate images behind."""

    mounts: bool = True
    context: bool = False
    secrets: str = ""
    scope: str = ""
    labels: Mapping[str, str] = {}


@dataclass
class _Stage:
    name: str
    base: str
    lines: list[tuple[str, str]] = field(default_factory=list)
    """(instruction, the plan's step that it carries out or "")"""

    def add(self, instruction: str, step: str = "") -> None:
        self.lines.append((instruction, step))


class Rendered(Value):
    """The text, and where its instructions come from: `steps` maps (stage, position among what makes a layer) as
    BuildKit counts, `numbers` the position among all instructions as the classic builder counts."""

    text: str
    steps: Mapping[tuple[str, int], str]
    numbers: Mapping[int, str]


def render(plan: Plan, bases: Mapping[str, Base], style: Style = Style()) -> Rendered:  # noqa: B008
    """bases: by the plan's toolchain names, and "" for a bare system."""
    stages = _Writer(plan, bases, style).stages()
    for stage in stages:
        if style.labels:
            stage.lines.insert(0, ("LABEL " + " ".join(f"{k}={_quote(v)}" for k, v in style.labels.items()), ""))
    return _number(stages)


def ignored(plan: Plan) -> tuple[str, ...]:
    """Patterns of `.dockerignore`: what a build makes anew, or must not see."""
    names = {item.name for item in plan.toolchains}
    patterns = [".git"]
    if "python" in names and plan.steps:
        patterns += [".venv", "**/__pycache__", "**/*.pyc"]
    if "node" in names and plan.steps:
        patterns += ["**/node_modules"]
    return tuple(patterns)


def ignore_file(plan: Plan) -> str:
    own = (
        ("Dockerfile", ".dockerignore", "compose.yaml", "mini.toml") if plan.static else ("Dockerfile", "compose.yaml")
    )
    return "\n".join((*ignored(plan), *own)) + "\n"


class _Writer:
    """Writes the stages of one plan."""

    def __init__(self, plan: Plan, bases: Mapping[str, Base], style: Style) -> None:
        self.plan, self.bases, self.style = plan, bases, style
        self.main = plan.toolchains[0].name if plan.toolchains else ""
        self.done: list[_Stage] = []
        self.latest: dict[str, _Stage] = {}  # toolchain → its last stage
        self.source: _Stage | None = None  # the stage that has the source and all done to it so far

    def stages(self) -> list[_Stage]:
        heads, segments = self._split()
        for toolchain in heads:
            if toolchain not in {name for name, _ in segments}:
                self._begin(toolchain, heads)
        for toolchain, steps in segments:
            self._segment(toolchain, steps, heads)
        if self.done and not self.source and self.plan.artifacts != (".",):
            self._segment(self.main if self.main in self.latest else next(iter(self.latest)), [], heads)
        self.done.append(self._static() if self.plan.static else self._final())
        return self.done

    # --- build stages

    def _split(self) -> tuple[dict[str, list[Step]], list[tuple[str, list[Step]]]]:
        """Per toolchain the steps that need only some files; then the others, in order, grouped by toolchain."""
        heads: dict[str, list[Step]] = {}
        segments: list[tuple[str, list[Step]]] = []
        for step in self.plan.steps:
            toolchain = step.toolchain or self.main
            heads.setdefault(toolchain, [])
            whole = not step.files or "." in step.files
            if not whole and toolchain not in {name for name, _ in segments}:
                heads[toolchain].append(step)
            elif segments and segments[-1][0] == toolchain:
                segments[-1][1].append(step)
            else:
                segments.append((toolchain, [step]))
        return heads, segments

    def _begin(self, toolchain: str, heads: Mapping[str, list[Step]]) -> _Stage:
        """A toolchain's first stage, with its steps that don't need the whole source."""
        base = self.bases[toolchain]
        stage = _Stage(toolchain if len(heads) > 1 else "build", base.build)
        for packages in (base.packages, self.plan.packages):
            if packages:
                stage.add(_apt(packages))
        stage.add(f"WORKDIR {APP}")
        for line in self._environment():
            stage.add(line)
        copied: set[str] = set()
        for step in heads.get(toolchain, ()):
            for line in self._copy_files([name for name in step.files if name not in copied]):
                stage.add(line)
            copied.update(step.files)
            stage.add(self._run(step), step.name)
        self.done.append(stage)
        self.latest[toolchain] = stage
        return stage

    def _segment(self, toolchain: str, steps: Sequence[Step], heads: Mapping[str, list[Step]]) -> None:
        """Steps that need the whole source, in the toolchain's stage or, if it had its turn before, in a new one."""
        stage = self.latest.get(toolchain)
        if stage is None:
            stage = self._begin(toolchain, heads)
        elif stage is not self.source and stage is not self.done[-1]:
            stage = _Stage(f"{toolchain}-{len(self.done) + 1}", stage.name)
            self.done.append(stage)
            self.latest[toolchain] = stage
        if self.source is None:
            for other in self.done:
                if other is not stage:  # dependencies only: nothing else was done there
                    stage.add(f"COPY --from={other.name} {APP} ./")
            stage.add(f"COPY {self._src('.')} ./")
        elif self.source is not stage:
            stage.add(f"COPY --from={self.source.name} {APP} ./")
        for step in steps:
            stage.add(self._run(step), step.name)
        self.source = stage

    def _environment(self) -> Iterator[str]:
        values = [entry for entry in iter_env(self.plan, "value") if "\n" not in entry.value]  # ENV has no line breaks
        entries = [f"{entry.name}={_quote(entry.value)}" for entry in values]
        if self.plan.bin:
            entries.append(f"PATH={':'.join(_inside(folder) for folder in self.plan.bin)}:$PATH")
        if entries:
            yield "ENV " + _NEXT_LINE.join(entries)

    def _copy_files(self, names: Sequence[str]) -> Iterator[str]:
        """COPY lines that keep relative paths. Only what is surely a file shares a line, for a folder's name as
        one of several sources would be lost."""
        together: dict[str, list[str]] = {}
        for name in (name.strip("/") for name in names):
            folder, _, last = name.rpartition("/")
            if _FILES.search(last):
                together.setdefault(folder, []).append(name)
            else:
                yield _copy([self._src(name)], f"./{name}")
        for folder, files in together.items():
            yield _copy([self._src(name) for name in files], f"./{folder}/" if folder else "./")

    def _src(self, name: str) -> str:
        if not self.style.context:
            return name
        return "src/" if name == "." else f"src/{name}"

    def _run(self, step: Step) -> str:
        mounts, env = [], dict(step.env)
        if self.style.mounts:
            for cache in step.caches:
                target, scope = (_inside(cache.path), self.style.scope) if cache.path else (f"/cache/{cache.name}", "")
                mounts.append(f"--mount=type=cache,id={scope}{cache.name},target={target}{_sharing(cache)}")
                if cache.variable:
                    env[cache.variable] = target
        secrets = f"/run/mini/{self.style.secrets}" if self.style.secrets and step.secrets else ""
        if secrets:
            mounts.append(f"--mount=type=secret,id={self.style.secrets},target={secrets}")
        return "RUN " + _NEXT_LINE.join((*mounts, _command(step, env, secrets)))

    # --- the last stage

    def _final(self) -> _Stage:
        plan = self.plan
        stage = _Stage("app", self._runtime_image())
        packages = list(plan.runtime_packages)
        if not plan.runtime:
            packages += [name for name in ("ca-certificates", "tzdata") if name not in packages]
        if packages:
            stage.add(_apt(packages))
        stage.add(f"RUN useradd --create-home --uid {USER_ID} app && install -d -o app -g app {APP}")
        stage.add(f"WORKDIR {APP}")
        for line in self._environment():
            stage.add(line)
        for line in self._artifacts("--chown=app:app "):
            stage.add(line)
        port = plan.port or PORT
        stage.add("USER app")
        stage.add(f"ENV HOST=0.0.0.0 PORT={port}")
        stage.add(f"EXPOSE {port}")
        process = plan.process("web") or next(iter(plan.processes), None)
        if process and process.command:
            stage.add(f"CMD {json.dumps(process.command, ensure_ascii=False)}")
        return stage

    def _runtime_image(self) -> str:
        return self.bases[self.plan.runtime].run

    def _artifacts(self, chown: str) -> Iterator[str]:
        if not self.done:
            yield f"COPY {chown}{self._src('.')} ./"
        elif self.source is None:
            for stage in self.done:
                yield f"COPY --from={stage.name} {chown}{APP} ./"
            yield f"COPY {chown}{self._src('.')} ./"
        elif self.plan.artifacts == (".",):
            yield f"COPY --from={self.source.name} {chown}{APP} ./"
        else:
            for path in self.plan.artifacts:
                folder = path.rpartition("/")[0]
                target = (f"./{folder}/" if folder else "./") if set(path) & set("*?[") else f"./{path}"
                yield f"COPY --from={self.source.name} {chown}{_word(f'{APP}/{path}')} {_word(target)}"

    def _static(self) -> _Stage:
        assert self.plan.static
        root = self.plan.static.root.strip("/")
        stage = _Stage("site", self.bases[""].run)
        stage.add(_apt(("nginx-light", *self.plan.runtime_packages)))
        stage.add(f"RUN useradd --create-home --uid {USER_ID} app")
        stage.add(f"COPY {'mini/' if self.style.context else ''}{CONFIG_NAME} /etc/nginx/nginx.conf")
        if self.done and self.source:
            stage.add(_copy([f"--from={self.source.name}", "--chown=app:app", _inside(root)], "/srv/www/"))
        else:
            stage.add(_copy(["--chown=app:app", self._src(root or ".")], "/srv/www/"))
        stage.add("USER app")
        stage.add(f"ENV PORT={PORT}")
        stage.add(f"EXPOSE {PORT}")
        stage.add("STOPSIGNAL SIGQUIT")
        stage.add(f"CMD {json.dumps(START)}")
        return stage


# --- words and lines --------------------------------------------------------------------------------------------


def _number(stages: Sequence[_Stage]) -> Rendered:
    text, steps, numbers, number = [], {}, {}, 0
    for index, stage in enumerate(stages):
        name = f" AS {stage.name}" if len(stages) > 1 else ""
        text.append(("\n" if index else "") + f"FROM {stage.base}{name}")
        number, layer = number + 1, 1
        for instruction, step in stage.lines:
            text.append(instruction)
            number += 1
            layer += instruction.split(" ", 1)[0] in ("RUN", "COPY", "WORKDIR")
            if step:
                steps[(stage.name if name else "", layer)] = step
                numbers[number] = step
    return Rendered(text="\n".join(text) + "\n", steps=steps, numbers=numbers)


def _command(step: Step, env: Mapping[str, str], secrets: str) -> str:
    """The step as a line of shell. A `sh -c` line stays one, unless the Dockerfile's syntax would change it."""
    shell = len(step.argv) == 3 and step.argv[:2] == ("sh", "-c")
    line = step.argv[2].strip() if shell else shlex.join(step.argv)
    if shell and ("\n" in line or "\\" in line or "<<" in line or line.startswith("#")):
        return _exec_form(step, env, secrets)
    if "\n" in line or "<<" in line:
        return _exec_form(step, env, secrets)
    settings = " ".join(f"{name}={shlex.quote(text)}" for name, text in env.items())
    before = [_sourced(secrets)] if secrets else []
    if settings:
        before.append(f"export {settings};" if shell else settings)
    together = " ".join((*before, line))
    return together if len(together) <= _WIDTH else _NEXT_LINE.join((*before, line))


_NEXT_LINE = " \\\n    "
_WIDTH = 100
"""Characters of a command that stay on one line."""


def _sourced(secrets: str) -> str:
    return f"set -a; . {secrets}; set +a;"


def _exec_form(step: Step, env: Mapping[str, str], secrets: str) -> str:
    """As JSON, in which a line break or a "<<" means nothing to the Dockerfile's parser."""
    argv = ["env", *(f"{name}={text}" for name, text in env.items()), *step.argv] if env else list(step.argv)
    if secrets:
        argv = ["sh", "-c", f'{_sourced(secrets)} exec "$@"', "sh", *argv]
    return json.dumps(argv, ensure_ascii=False)


def _apt(packages: Iterable[str]) -> str:
    names = " ".join(shlex.quote(name) for name in dict.fromkeys(packages))
    return (
        f"RUN apt-get update \\\n    && apt-get install -y --no-install-recommends {names} \\\n"
        "    && rm -rf /var/lib/apt/lists/*"
    )


def _copy(sources: Sequence[str], target: str) -> str:
    words = [*sources, target]
    if any(re.search(r"\s", word) for word in words):
        flags = [word for word in words if word.startswith("--")]
        return " ".join(("COPY", *flags, json.dumps([word for word in words if word not in flags])))
    return "COPY " + " ".join(words)


def _word(text: str) -> str:
    return json.dumps(text) if re.search(r"\s", text) else text


def _sharing(cache: Cache) -> str:
    return ",sharing=locked" if cache.path else ""


def _inside(folder: str) -> str:
    folder = folder.strip("/")
    return APP if folder in ("", ".") else f"{APP}/{folder}"


def _quote(text: str) -> str:
    """A word of ENV or LABEL: `$`, quotes and backslashes stand for themselves."""
    if text and _BARE.fullmatch(text):
        return text
    escaped = re.sub(r'(["\\$])', r"\\\1", text)
    return f'"{escaped}"'
