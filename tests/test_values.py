"""What every value promises: it cannot be changed, and it survives being stored."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Mapping

import pytest

from mini_core.types import Health, Plan, Secret, Step, Toolchain, Value, decode, encode, from_data, replace

STEP = Step(name="install", argv=("pip", "install"), env={"A": "1"})

THREADS = """
import sys, threading
from mini_core.types import Value, decode, from_data

sys.setswitchinterval(1e-6)
begin = threading.Barrier(4)

def outer():
    class Inner(Value):
        name: str
    class Outer(Value):
        first: Inner
        all: tuple[Inner, ...]
    return Outer

def run():
    for kind in kinds:
        begin.wait()
        decode(kind, '{"first": {"name": "a"}, "all": [{"name": "b"}]}')
        from_data(kind, {"first": {"name": "a"}, "all": [{"name": "b"}]})

kinds = [outer() for _ in range(300)]
threads = [threading.Thread(target=run) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


class Pair(Value):
    left: str
    right: str = ""


class Triple(Pair):
    third: str


def test_a_value_takes_its_fields_by_name_alone():
    with pytest.raises(TypeError, match="positional"):
        Toolchain("python")
    with pytest.raises(TypeError, match="unknown"):
        Toolchain(name="python", unknown=1)
    with pytest.raises(TypeError, match="name"):
        Toolchain()


def test_a_value_cannot_be_changed():
    with pytest.raises(AttributeError, match="immutable"):
        STEP.name = "other"
    with pytest.raises(AttributeError):
        STEP.other = 1
    with pytest.raises(TypeError):
        STEP.env["A"] = "2"


@pytest.mark.parametrize(
    "step",
    [
        Step(name="install", argv=["pip", "install"], env={"A": "1"}),
        decode(Step, b'{"name": "install", "argv": ["pip", "install"], "env": {"A": "1"}, "from": "a newer mini"}'),
        from_data(Step, {"name": "install", "argv": ["pip", "install"], "env": {"A": "1"}}),
        replace(Step(name="", argv=()), name="install", argv=["pip", "install"], env={"A": "1"}),
    ],
    ids=["made", "decoded", "from data", "replaced"],
)
def test_lists_become_tuples_and_mappings_read_only_however_a_value_is_made(step: Step):
    assert step == STEP
    assert step.argv == ("pip", "install")
    with pytest.raises(TypeError):
        step.env["A"] = "2"


def test_a_mapping_that_is_changed_later_does_not_change_the_value():
    env = {"A": "1"}
    step = Step(name="install", argv=(), env=env)
    env["A"] = "2"
    assert step.env == {"A": "1"}
    assert isinstance(step.env, Mapping)
    assert Step(name="a", argv=()).env == {}


def test_replace_names_what_it_does_not_know():
    assert replace(Toolchain(name="go"), version="1.26") == Toolchain(name="go", version="1.26")
    with pytest.raises(TypeError, match="unknown"):
        replace(Toolchain(name="go"), unknown=1)


def test_values_compare_and_hash_by_type_and_content():
    assert Toolchain(name="go") == Toolchain(name="go")
    assert hash(Toolchain(name="go")) == hash(Toolchain(name="go"))
    assert Pair(left="a") != Triple(left="a", third="")


def test_a_value_may_extend_another():
    triple = Triple(left="a", third="c")
    assert (triple.left, triple.right, triple.third) == ("a", "", "c")
    assert decode(Triple, encode(triple)) == triple


def test_values_come_back_from_json_and_from_pickle():
    plan = Plan(buildpack="go", steps=(STEP,), health=Health(path="/up"))
    assert decode(Plan, encode(plan)) == plan
    assert pickle.loads(pickle.dumps(Health(path="/up"))) == Health(path="/up")
    assert encode({"key": Secret("s3cret")}) == b'{"key":"[REDACTED]"}'


def test_values_are_made_without_what_takes_long_to_import():
    code = "import sys, mini_core.types, mini_core.api; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "dataclasses" not in loaded


def test_threads_may_read_their_first_values_at_once():
    """As the controller's do when it starts: the interpreter crashed."""
    subprocess.run([sys.executable, "-c", THREADS], check=True)
