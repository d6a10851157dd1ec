"""One app through planning, building and running, with a verdict for each level that was asked for."""

from __future__ import annotations

import re
import shutil
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import tomli_w

from mini_core.errors import Cancelled, MiniError, Unavailable
from mini_core.planned import Planned
from mini_core.planning import NO_START
from mini_core.types import Image, Plan, to_data
from tests.corpus import running
from tests.corpus.detecting import differences
from tests.corpus.facts import LANGUAGES, Expectation, Fact
from tests.corpus.platform import Platform, temporary_folder
from tests.corpus.verdicts import Result, Verdict

_REGISTRY_GONE = re.compile(
    r"no-base-image|EAI_AGAIN|ENETUNREACH|ECONNREFUSED|Could not resolve host|Temporary failure in name resolution"
    r"|ENOTFOUND|getaddrinfo|network is unreachable|blocked by policy",
    re.IGNORECASE,
)
_VARIABLES = {"BUILDABLE": "GO_BIN"}
_TRACEBACK = re.compile(r"Traceback \(most recent call last\)")


@dataclass(frozen=True)
class Scorer:
    """level: how far to go. apps: the folder of all apps. even_out_of_reach: try what is said to be out of reach."""

    platform: Platform
    apps: Path
    level: str = "detect"
    even_out_of_reach: bool = False

    def score(self, fact: Fact) -> Result:
        """Never raises but for an interruption: a crash of mini is a failure, with its traceback."""
        result = Result(
            id=fact.id, language=fact.language, tier=fact.tier, capabilities=fact.capabilities, level=self.level
        )
        if fact.language not in LANGUAGES:
            result.verdicts["detect"] = Verdict("apart", f"no buildpack for {fact.language}")
            return result
        folder = fact.folder(self.apps)
        if not folder.is_dir():
            result.verdicts["detect"] = Verdict("apart", f"not laid out: {folder.name}")
            return result
        try:
            self._score(fact, folder, result)
        except Unavailable as error:  # the engine went away: nothing was learned of the app
            result.verdicts[self.level] = Verdict("apart", error.message)
        except Exception as error:  # a bug in mini or here: it has to show, and the others have to go on
            lines = tuple(traceback.format_exc().splitlines()[-12:])
            result.verdicts[self.level] = Verdict("fail", f"crash: {type(error).__name__}: {error}", lines)
        return result

    def _score(self, fact: Fact, folder: Path, result: Result) -> None:
        planned, problem = self._planned(folder)
        if planned:
            result.plan = _told(planned.plan, planned.warnings)
        if problem:
            result.plan = {"error": problem.message, "hint": problem.hint}
        result.verdicts["detect"] = _detect(fact, planned, problem)
        if self.level == "detect":
            return
        if fact.out_of_reach and not self.even_out_of_reach:
            result.verdicts["build"] = Verdict("apart", fact.out_of_reach)
            return
        if fact.must_fail:
            result.verdicts["negative"] = self._negative(fact, folder, planned, problem)
            return
        if planned is None:
            assert problem
            result.verdicts["build"] = Verdict("fail", f"no plan: {problem.message}")
            return
        self._build_and_run(fact, folder, result)

    def _planned(self, folder: Path, env: Mapping[str, str] | None = None) -> tuple[Planned | None, MiniError | None]:
        try:
            return self.platform.plan(folder, env), None
        except MiniError as error:
            return None, error

    # --- build and run

    def _build_and_run(self, fact: Fact, folder: Path, result: Result) -> None:
        checks = [
            item for item in fact.expected if item.asserted and item.kind not in ("build_fails", "build_succeeds")
        ]
        groups: dict[object, list[Expectation]] = {}
        for item in checks:
            groups.setdefault(item.setup, []).append(item)
        for index, group in enumerate(groups.values() or [[]]):
            with temporary_folder() as place:
                source = place / "app"
                shutil.copytree(folder, source, symlinks=True)
                self._group(result, fact, source, group, thorough=index == 0)
            if any(verdict.state != "pass" for level, verdict in result.verdicts.items() if level != "detect"):
                return

    def _group(self, result: Result, fact: Fact, source: Path, group: list[Expectation], *, thorough: bool) -> None:
        app = _name(fact.id)
        env = _own_names(group[0].env) if group else {}
        if group:
            _override(source, group[0])
        planned, problem = self._planned(source, env)
        if planned is None:
            assert problem
            result.verdicts["build"] = Verdict("fail", f"no plan: {problem.message}")
            return
        images: list[Image] = []
        try:
            verdict = self._build(app, planned.plan, source, images, thorough)
            if thorough or verdict.state != "pass":
                result.verdicts["build"] = verdict
            if verdict.state == "pass" and self.level == "run" and group:
                result.verdicts["run"] = running.check(self.platform, app, images[0], planned.plan, group)
        finally:
            self.platform.remove(*images)

    def _build(self, app: str, plan: Plan, source: Path, images: list[Image], thorough: bool) -> Verdict:
        """Builds; then, if thorough, again (all from the cache) and with changed code (no dependency anew)."""
        try:
            image, _, seconds = self.platform.build(app, plan, source)
        except MiniError as error:
            return _failed(error)
        images.append(image)
        if not thorough or not plan.steps:
            return Verdict("pass", seconds=seconds)
        again, job, _ = self.platform.build(app, plan, source)
        images.append(again)
        ran = _ran(plan, job.lines)
        if ran:
            return Verdict("fail", f"a second build of the same source ran {', '.join(ran)} again", seconds=seconds)
        _change_code(source)
        changed, job, _ = self.platform.build(app, plan, source)
        images.append(changed)
        apart = {step.name for step in plan.steps if step.files and "." not in step.files}
        ran = [name for name in _ran(plan, job.lines) if name in apart]
        if ran:
            return Verdict("fail", f"a change of code ran {', '.join(ran)} again", seconds=seconds)
        return Verdict("pass", seconds=seconds)

    # --- what must fail

    def _negative(self, fact: Fact, folder: Path, planned: Planned | None, problem: MiniError | None) -> Verdict:
        """Must fail with its cause named, in the plan, the build or the run. What only another platform's policy
        refuses may also work, if the plan says what is odd about it."""
        if problem:
            return _named(problem)
        assert planned
        policy = fact.data.get("negative_class") == "policy"
        with temporary_folder() as place:
            source = place / "app"
            shutil.copytree(folder, source, symlinks=True)
            try:
                image, _, seconds = self.platform.build(_name(fact.id), planned.plan, source)
            except MiniError as error:
                failed = _failed(error)
                return failed if failed.state == "apart" else _named(error)
            try:
                outcome = ""
                if planned.plan.processes:
                    outcome = running.comes_up(self.platform, _name(fact.id), image, planned.plan)
            finally:
                self.platform.remove(image)
        if outcome:
            return Verdict("pass", f"does not start: {outcome}", seconds=seconds)
        told = [warning for warning in planned.warnings if not warning.startswith(NO_START)]
        told += [f"{planned.plan.buildpack} needs {name}" for name in planned.plan.packages]
        if policy and told:
            return Verdict("pass", f"works, and is explained: {told[0]}", seconds=seconds)
        return Verdict("fail", "neither fails nor is explained" if policy else "does not fail", seconds=seconds)


def _detect(fact: Fact, planned: Planned | None, problem: MiniError | None) -> Verdict:
    if planned is None:
        assert problem
        if fact.must_fail or any(item.kind == "build_fails" for item in fact.expected):
            return replace(_named(problem), reason=f"refused: {problem.message}")
        return Verdict("fail", f"no plan: {problem.message}")
    found = differences(fact, planned.plan)
    return Verdict("fail", "; ".join(found)) if found else Verdict("pass")


def _named(error: MiniError) -> Verdict:
    """A failure that was foreseen and says why; a traceback in it shows that it was not."""
    text = "\n".join((error.message, error.hint))
    if _TRACEBACK.search(text):
        return Verdict("fail", "fails with a traceback", error.tail[-8:])
    if not error.message.strip():
        return Verdict("fail", "fails without a word", error.tail[-8:])
    return Verdict("pass", f"{error.step or error.code}: {error.message}", (error.hint, *error.tail[-4:]))


def _failed(error: MiniError) -> Verdict:
    """A failed build: mini's or the app's fault, or something that is out of reach here."""
    tail = error.tail if len(error.tail) <= 14 else (*error.tail[:5], "…", *error.tail[-8:])
    where = f"{error.step}: " if error.step else ""
    text = "\n".join((error.code, error.message, *error.tail))
    if isinstance(error, Unavailable | Cancelled) or _REGISTRY_GONE.search(text):
        return Verdict("apart", f"{where}{error.message}", (error.hint, *tail))
    return Verdict("fail", f"{where}{error.message}", (error.hint, *tail))


def _ran(plan: Plan, lines: list[tuple[str, str]]) -> list[str]:
    """The plan's steps that a build carried out instead of taking their result from its cache."""
    said = {line for kind, line in lines if kind == "info"}
    return [step.name for step in plan.steps if step.name in said and f"{step.name} (cached)" not in said]


def _change_code(source: Path) -> None:
    """A change that no install looks at."""
    (source / "changed-by-the-corpus.txt").write_text("changed\n", "utf-8")


def _override(source: Path, item: Expectation) -> None:
    """What another platform is told by a variable, mini is told by mini.toml."""
    start, built = item.text("start_override"), item.text("build_override")
    settings: dict[str, object] = {}
    if start:
        settings["processes"] = {"web": start}
    if built:
        settings["build"] = {"env": {"GO_BIN": built}}
    if settings:
        (source / "mini.toml").write_text(tomli_w.dumps(settings), "utf-8")


def _own_names(env: Mapping[str, str]) -> dict[str, str]:
    """Build settings of other platforms under mini's names."""
    own = {}
    for name, text in env.items():
        bare = re.sub(r"^(?:RAILPACK|NIXPACKS|GOOGLE)_", "", name)
        own[_VARIABLES.get(bare, bare)] = text
    return own


def _told(plan: Plan, warnings: tuple[str, ...]) -> dict[str, object]:
    web = plan.process("web")
    return {
        "buildpack": plan.buildpack,
        "package_manager": plan.package_manager,
        "framework": plan.framework,
        "toolchains": to_data(plan.toolchains),
        "steps": [step.name for step in plan.steps],
        "start": f"static {plan.static.root}" if plan.static else " ".join(web.command) if web else "",
        "warnings": list(warnings),
    }


def _name(identifier: str) -> str:
    """An app name: a DNS label of at most 40 characters."""
    words = re.sub(r"[^a-z0-9]+", "-", identifier.lower()).strip("-")
    return words[-40:].strip("-")
