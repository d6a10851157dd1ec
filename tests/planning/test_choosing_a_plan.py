"""Which buildpack is taken, what the repository's own files change, and what is said when nothing fits."""

from __future__ import annotations

import pytest

from mini_core.errors import ConfigError, PlanError
from mini_core.hooks import amend
from mini_core.hookspecs import PlanAmendment
from mini_core.interfaces import Source
from mini_core.planning import formation, make_plan, require_start, validate
from mini_core.sources import MemorySource
from mini_core.types import (
    BuildSettings,
    Cache,
    Dockerfile,
    EnvEntry,
    Evidence,
    Health,
    Offer,
    Plan,
    ProcessType,
    StaticSite,
    Step,
    Strength,
    Toolchain,
    replace,
)

WEB = ProcessType(name="web", command=("run", "it"))


class Recogniser:
    """A buildpack that makes the same offer wherever a file is."""

    def __init__(self, name: str, file: str, strength: Strength = Strength.MANIFEST, **plan: object) -> None:
        self.name, self.description = name, f"a file {file}"
        self._file, self._strength = file, strength
        values: dict[str, object] = {"processes": (WEB,), "toolchains": (Toolchain(name=name),), "runtime": name}
        self._plan = Plan(buildpack=name, **{**values, **plan})  # type: ignore[arg-type]

    def detect(self, source: Source, settings: BuildSettings) -> Offer | None:
        if not source.has(self._file):
            return None
        return Offer(buildpack=self.name, strength=self._strength, reason=f"has {self._file}", plan=self._plan)


class Broken(Recogniser):
    """A buildpack that raises where its file is."""

    def __init__(self, name: str, file: str, error: Exception) -> None:
        super().__init__(name, file)
        self._error = error

    def detect(self, source: Source, settings: BuildSettings) -> Offer | None:
        if source.has(self._file):
            raise self._error
        return None


RED = Recogniser("red", "red.txt")
BLUE = Recogniser("blue", "blue.txt")


def test_the_strongest_evidence_wins_and_the_others_are_named() -> None:
    strong = Recogniser("strong", "s.lock", Strength.PROJECT)
    planned = make_plan(MemorySource({"red.txt": "", "s.lock": ""}), [RED, strong])
    assert planned.plan.buildpack == "strong"
    assert [offer.buildpack for offer in planned.offers] == ["strong", "red"]
    assert planned.alternatives == ("red: has red.txt (--buildpack red)",)
    assert planned.warnings == ()


def test_of_two_that_fit_equally_the_same_is_taken_whatever_the_order_and_the_other_named() -> None:
    source = MemorySource({"red.txt": "", "blue.txt": ""})
    plans = [make_plan(source, order) for order in ([RED, BLUE], [BLUE, RED])]
    assert plans[0] == plans[1]
    assert plans[0].plan.buildpack == "blue"
    assert plans[0].warnings == (
        "blue (has blue.txt) and red (has red.txt) fit equally well: blue taken. "
        "The other: --buildpack red, or build.buildpack in mini.toml",
    )


@pytest.mark.parametrize(
    "better",
    [
        Recogniser("zebra", "z", framework="flask"),
        Recogniser("zebra", "z", toolchains=(Toolchain(name="zebra"), Toolchain(name="red"))),
        Recogniser("zebra", "z", evidence=(Evidence(file="a"), Evidence(file="b"))),
    ],
    ids=["a framework", "both languages", "more evidence"],
)
def test_equal_strength_is_decided_by(better: Recogniser) -> None:
    planned = make_plan(MemorySource({"red.txt": "", "z": ""}), [RED, better])
    assert planned.plan.buildpack == "zebra"


def test_a_plan_with_both_languages_needs_no_warning() -> None:
    both = Recogniser("both", "b", toolchains=(Toolchain(name="both"), Toolchain(name="red")))
    assert make_plan(MemorySource({"red.txt": "", "b": ""}), [RED, both]).warnings == ()


@pytest.mark.parametrize("way", ["flag", "mini.toml", "app.json"])
def test_an_explicit_choice_beats_stronger_evidence(way: str) -> None:
    strong = Recogniser("strong", "s.lock", Strength.PROJECT)
    node = Recogniser("node", "red.txt")
    files = {"s.lock": "", "red.txt": ""}
    if way == "mini.toml":
        files["mini.toml"] = "[build]\nbuildpack = 'node'"
    if way == "app.json":
        files["app.json"] = '{"buildpacks": [{"url": "heroku/python"}, {"url": "heroku/nodejs"}]}'
    planned = make_plan(MemorySource(files), [strong, node], buildpack="node" if way == "flag" else "")
    assert planned.plan.buildpack == "node"


def test_a_flag_beats_mini_toml() -> None:
    source = MemorySource({"red.txt": "", "blue.txt": "", "mini.toml": "[build]\nbuildpack = 'red'"})
    assert make_plan(source, [RED, BLUE], buildpack="blue").plan.buildpack == "blue"


def test_a_buildpack_that_does_not_exist_or_does_not_fit_is_explained() -> None:
    source = MemorySource({"red.txt": ""})
    with pytest.raises(ConfigError, match="no buildpack named green") as unknown:
        make_plan(source, [RED, BLUE], buildpack="green")
    assert unknown.value.hint == "There are: blue, red."
    with pytest.raises(PlanError, match=r"blue buildpack does not recognise this app: it looks for a file blue\.txt"):
        make_plan(source, [RED, BLUE], buildpack="blue")


def test_a_crashing_buildpack_is_named_and_the_others_go_on() -> None:
    broken = Broken("cracked", "red.txt", RuntimeError("oops"))
    planned = make_plan(MemorySource({"red.txt": ""}), [broken, RED])
    assert planned.plan.buildpack == "red"
    assert planned.warnings == ("buildpack cracked crashed: RuntimeError: oops",)


def test_a_buildpack_that_answers_nonsense_is_named() -> None:
    class Odd(Recogniser):
        def detect(self, source: Source, settings: BuildSettings) -> Offer | None:
            return "yes"  # type: ignore[return-value]

    planned = make_plan(MemorySource({"red.txt": ""}), [Odd("odd", "red.txt"), RED])
    assert planned.warnings == ("buildpack odd crashed: TypeError: expected an Offer, got str",)


def test_a_broken_manifest_is_an_error_unless_another_language_is_clearly_meant() -> None:
    broken = Broken("red", "red.txt", ConfigError("red.txt: not valid"))
    with pytest.raises(ConfigError, match=r"red\.txt: not valid"):
        make_plan(MemorySource({"red.txt": ""}), [broken])
    loose = Recogniser("loose", "index.html", Strength.LOOSE)
    with pytest.raises(ConfigError, match=r"red\.txt: not valid"):
        make_plan(MemorySource({"red.txt": "", "index.html": ""}), [broken, loose])
    strong = Recogniser("strong", "s.lock", Strength.PROJECT)
    planned = make_plan(MemorySource({"red.txt": "", "s.lock": ""}), [broken, strong])
    assert planned.plan.buildpack == "strong"
    assert planned.warnings == ("red was left out: red.txt: not valid",)


# --- nothing found


def test_an_empty_folder_has_its_own_message() -> None:
    with pytest.raises(PlanError, match="the folder is empty"):
        make_plan(MemorySource({}), [RED])


def test_nothing_found_says_what_was_looked_for() -> None:
    with pytest.raises(PlanError, match="nothing that can be run was recognised in 2 files") as caught:
        make_plan(MemorySource({"README.md": "", "a.xyz": ""}), [RED, BLUE])
    assert "blue: a file blue.txt; red: a file red.txt" in caught.value.hint
    assert "Procfile" in caught.value.hint


def test_a_language_without_a_buildpack_is_named() -> None:
    with pytest.raises(PlanError, match=r"looks like a Ruby app \(Gemfile\)") as caught:
        make_plan(MemorySource({"Gemfile": ""}), [RED])
    assert caught.value.hint.startswith("Add a Dockerfile, or install a buildpack for Ruby")


def test_a_plan_without_a_start_command_warns_and_cannot_be_started() -> None:
    library = Recogniser("red", "red.txt", processes=())
    planned = make_plan(MemorySource({"red.txt": ""}), [library])
    assert planned.warnings == ("No start command found: add a Procfile with a line such as `web: COMMAND`",)
    with pytest.raises(PlanError, match="no start command found") as caught:
        require_start(planned.plan)
    assert caught.value.code == "no-start"
    assert "Procfile" in caught.value.hint


# --- precedence


def test_a_procfile_replaces_what_was_detected_and_mini_toml_goes_type_by_type() -> None:
    detected = Recogniser("red", "red.txt", processes=(WEB, ProcessType(name="release", command=("migrate",))))
    files = {
        "red.txt": "",
        "Procfile": "web: a\nworker: b\nclock: c",
        "mini.toml": "[processes]\nweb = 'd'\nclock = ''",
    }
    planned = make_plan(MemorySource(files), [detected])
    assert {item.name: (item.command[-1], item.source) for item in planned.plan.processes} == {
        "web": ("d", "mini.toml"),
        "worker": ("b", "Procfile"),
    }


def test_a_procfile_with_only_a_release_adds_it() -> None:
    planned = make_plan(MemorySource({"red.txt": "", "Procfile": "release: migrate"}), [RED])
    assert [item.name for item in planned.plan.processes] == ["web", "release"]


def test_the_environment_is_merged_by_name_and_mini_toml_wins() -> None:
    detected = Recogniser("red", "red.txt", env=(EnvEntry(name="A", kind="generated"), EnvEntry(name="B", value="1")))
    files = {"red.txt": "", "app.json": '{"env": {"A": "json"}}', "mini.toml": "[env]\nB = 'toml'"}
    planned = make_plan(MemorySource(files), [detected])
    assert planned.plan.env == (EnvEntry(name="A", value="json"), EnvEntry(name="B", value="toml"))


def test_health_and_packages_of_mini_toml_come_on_top() -> None:
    detected = Recogniser("red", "red.txt", packages=("gcc",), health=Health(path="/old", timeout=30.0))
    files = {"red.txt": "", "mini.toml": "[health]\npath = '/new'\ninterval = 3\n[build]\npackages = ['ffmpeg']"}
    plan = make_plan(MemorySource(files), [detected]).plan
    assert plan.health == Health(path="/new", timeout=30.0, interval=3.0)
    assert (plan.packages, plan.runtime_packages) == (("gcc", "ffmpeg"), ("ffmpeg",))


def test_the_default_formation_is_one_web_and_one_worker() -> None:
    types = [ProcessType(name=name, command=("x",)) for name in ("web", "worker", "clock", "release")]
    assert formation(types, {}) == {"web": 1, "worker": 1, "clock": 0}
    assert formation(types, {"web": 0, "clock": 2, "gone": 4}) == {"web": 0, "worker": 1, "clock": 2}


def test_a_static_site_whose_repository_says_how_to_start_it_is_started() -> None:
    spa = Recogniser(
        "node", "package.json", processes=(), static=StaticSite(root="dist"), artifacts=("dist",), runtime=""
    )
    plan = make_plan(MemorySource({"package.json": "{}", "Procfile": "web: node server.js"}), [spa]).plan
    assert (plan.static, plan.artifacts, plan.runtime) == (None, (".",), "node")
    site = Recogniser("static", "index.html", processes=(), static=StaticSite(), toolchains=(), runtime="")
    planned = make_plan(MemorySource({"index.html": "", "Procfile": "web: python -m http.server"}), [site])
    assert planned.plan.static is not None and planned.plan.processes == ()
    assert planned.warnings == ("The Procfile's web is not used: a static site is served",)


def test_buildpacks_see_what_the_repository_asks_of_the_build() -> None:
    seen: list[BuildSettings] = []

    class Curious(Recogniser):
        def detect(self, source: Source, settings: BuildSettings) -> Offer | None:
            seen.append(settings)
            return super().detect(source, settings)

    files = {
        "red.txt": "",
        "app.json": '{"env": {"A": "1"}}',
        "mini.toml": "[env]\nB = '2'\n[build]\ntarget = 't'\nenv = { C = '3' }",
    }
    make_plan(MemorySource(files), [Curious("red", "red.txt")], build_env={"D": "4"})
    assert dict(seen[0].env) == {"A": "1", "B": "2", "C": "3", "D": "4"}
    assert seen[0].target == "t"


# --- amendments, validation


def test_plugins_can_add_to_the_plan() -> None:
    def add(source: Source, plan: Plan) -> Plan:
        return amend(plan, {"extra": PlanAmendment(env={"X": "1"}, processes={"metrics": ("m",)})})

    planned = make_plan(MemorySource({"red.txt": ""}), [RED], amend=add)
    assert [item.name for item in planned.plan.processes] == ["web", "metrics"]
    assert planned.formation == {"web": 1, "metrics": 0}


GOOD = Plan(buildpack="red", toolchains=(Toolchain(name="red"),), processes=(WEB,))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"processes": (ProcessType(name="a b", command=("x",)),)}, "'a b' is no name of a process type"),
        ({"processes": (WEB, WEB)}, "process web twice"),
        ({"processes": (ProcessType(name="web"),)}, "process web has no command"),
        ({"steps": (Step(name="s", argv=()),)}, "step s has no command"),
        ({"steps": (Step(name="s", argv=("x",), toolchain="go"),)}, "step s needs the toolchain go"),
        ({"steps": (Step(name="s", argv=("x",), files=("/etc/passwd",)),)}, "/etc/passwd is not a path inside"),
        ({"steps": (Step(name="s", argv=("x",), caches=(Cache(name="c", path="../c"),)),)}, "../c is not a path"),
        ({"artifacts": ("../x",)}, "../x is not a path inside"),
        ({"bin": ("/usr/bin",)}, "/usr/bin is not a path inside"),
        ({"static": StaticSite(root="/srv")}, "/srv is not a path inside"),
        ({"dockerfile": Dockerfile(path="/Dockerfile")}, "/Dockerfile is not a path inside"),
        ({"runtime": "node"}, "the app runs on node, which the plan does not have"),
        ({"port": 70000}, "port 70000"),
        ({"health": Health(path="x")}, "health path x"),
    ],
)
def test_a_buildpack_s_mistake_is_caught_and_named(change: dict[str, object], problem: str) -> None:
    validate(GOOD)
    with pytest.raises(PlanError) as caught:
        validate(replace(GOOD, **change))  # type: ignore[arg-type]
    assert caught.value.message.startswith(f"the red buildpack made an invalid plan: {problem}")


def test_a_dockerfile_s_web_process_needs_no_command() -> None:
    validate(replace(GOOD, dockerfile=Dockerfile(), processes=(ProcessType(name="web"),)))


# --- monorepos


def test_the_only_app_in_a_subfolder_is_taken_and_said_so() -> None:
    planned = make_plan(MemorySource({"README.md": "", "backend/red.txt": "", "docs/red.txt": ""}), [RED])
    assert planned.plan.path == "backend"
    assert planned.warnings == ("nothing to deploy in the root: backend/ taken",)


def test_of_several_apps_the_likeliest_is_taken_and_the_others_named() -> None:
    source = MemorySource(
        {"zoo/red.txt": "", "server/red.txt": "", "apps/x/blue.txt": "", "node_modules/m/red.txt": ""}
    )
    planned = make_plan(source, [RED, BLUE])
    assert planned.plan.path == "server"
    assert "Also possible: zoo/, apps/x/ (--path, or path in mini.toml)" in planned.warnings[0]
    assert planned.alternatives == (
        "zoo/: red default (default) (--path zoo)",
        "apps/x/: blue default (default) (--path apps/x)",
    )


def test_a_collection_of_apps_is_not_a_coin_toss() -> None:
    source = MemorySource({f"example-{number}/red.txt": "" for number in range(20)})
    with pytest.raises(PlanError, match="20 folders here could be deployed") as caught:
        make_plan(source, [RED])
    assert "example-0" in caught.value.hint


def test_path_chooses_and_its_folder_s_files_count() -> None:
    files = {"red.txt": "", "Procfile": "web: root", "api/blue.txt": "", "api/Procfile": "web: api"}
    planned = make_plan(MemorySource(files), [RED, BLUE], path="api")
    assert (planned.plan.path, planned.plan.buildpack) == ("api", "blue")
    assert planned.plan.processes[0].command[-1] == "api"


def test_an_app_in_the_root_is_not_given_up_for_a_subfolder() -> None:
    planned = make_plan(MemorySource({"red.txt": "", "api/red.txt": ""}), [RED])
    assert planned.plan.path == "."


def test_one_of_mini_toml_s_apps_is_taken_by_name_else_the_first() -> None:
    files = {"mini.toml": "[apps.web]\npath = 'w'\n[apps.api]\npath = 'a'", "w/red.txt": "", "a/blue.txt": ""}
    source = MemorySource(files)
    assert make_plan(source, [RED, BLUE], app="api").plan.path == "a"
    planned = make_plan(source, [RED, BLUE], app="blog")
    assert planned.plan.path == "w"
    assert planned.warnings == ("mini.toml has several apps: web taken. The others: api (--path, or --all)",)
