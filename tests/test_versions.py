"""Version ranges mean what they mean in the files they are copied from."""

from __future__ import annotations

import pytest

from mini_core.errors import PlanError
from mini_core.versions import best, relax, satisfies

IN = [
    # plain pins: that minor, any patch
    ("3.13.2", "3.13", "python"),
    ("3.11.7", "3.11.7", "python"),
    ("3.11.7", "python-3.11.7", "python"),
    ("3.11.7", "3.11.*", "python"),
    ("3.11.7", "3", "python"),
    ("3.14.0rc2", "3.14.0rc2", "python"),
    # PEP 440
    ("3.11.7", ">=3.10,<4", "python"),
    ("3.12.0", "~=3.11", "python"),
    ("3.11.9", "~=3.11.2", "python"),
    ("3.11.0", "!=3.9.*, >=3.8", "python"),
    ("3.13.1", ">3.10", "python"),
    ("3.11.7", "==3.11.*", ""),
    ("3.11.7", ">=3.11, !=3.11.4, <3.13", ""),
    ("3.9.1", ">=2.7,!=3.0.*,!=3.1.*", "python"),
    # Poetry
    ("3.13.0", "^3.11", "python"),
    ("3.11.9", "~3.11", "python"),
    ("3.12.1", "^3.9,<3.13", "python"),
    ("3.11.0", "^3.8 | ^4.0", "python"),
    # npm
    ("20.20.2", "^20", "node"),
    ("20.1.9", "~20.1", "node"),
    ("20.9.9", "~20", "node"),
    ("20.20.2", "20.x", "node"),
    ("20.20.2", "20.x.x", "node"),
    ("22.1.0", ">=18 <23", "node"),
    ("22.1.0", ">= 18", "node"),
    ("20.1.0", "18 || 20", "node"),
    ("20.1.0", "18||20", "node"),
    ("22.9.0", "18 - 22", "node"),
    ("20.1.0", "v20", "node"),
    ("20.1.0", "v20.1.0", "node"),
    ("20.1.0", "=20.1.0", "node"),
    ("21.0.0", ">20", "node"),
    ("20.9.0", "<=20", "node"),
    ("0.2.9", "^0.2.3", "node"),
    ("22.0.0-rc.1", "22", "node"),
    ("18.19.0", "^18.17.1 || ^20.3.0 || >=21.0.0", "node"),
    ("24.1.0", "lts/*", "node"),
    ("27.1.0", "lts/*", "node"),
    ("20.1.0", "lts/iron", "node"),
    ("24.1.0", "lts/Krypton", "node"),
    ("99.0.0", "latest", "node"),
    ("99.0.0", "node", "node"),
    ("99.0.0", "*", ""),
    ("99.0.0", "", ""),
    # Go
    ("1.26.8", "1.22", "go"),
    ("1.22.3", "1.22.3", "go"),
    ("1.26.8", "go1.22.3", "go"),
    ("1.26", "1.26.8", "go"),
    # partial available versions stand for their newest patch
    ("3.13", ">=3.13.2", "python"),
    ("3.13", "<3.14", "python"),
    ("20", ">=20.11.1", "node"),
    ("v20.1.0", "20", "node"),
]

OUT = [
    ("3.12.1", "3.11", "python"),
    ("3.11.7", "3.11.9", "python"),
    ("3.9.18", ">=3.10,<4", "python"),
    ("4.0", "~=3.11", "python"),
    ("3.12.0", "~=3.11.2", "python"),
    ("3.9.2", "!=3.9.*, >=3.8", "python"),
    ("4.0.0", "^3.11", "python"),
    ("3.12.0", "~3.11", "python"),
    ("3.14.0rc1", "<3.14", "python"),
    ("3.13.0", "<=3.12", "python"),
    ("21.0.0", "^20", "node"),
    ("20.2.0", "~20.1", "node"),
    ("23.0.0", ">=18 <23", "node"),
    ("19.0.0", "18 || 20", "node"),
    ("23.0.0", "18 - 22", "node"),
    ("20.9.0", ">20", "node"),
    ("21.0.0", "<=20", "node"),
    ("0.3.0", "^0.2.3", "node"),
    ("25.0.0", "lts/*", "node"),
    ("22.0.0", "lts/iron", "node"),
    ("1.21.9", "1.22", "go"),
    ("1.22.2", "1.22.3", "go"),
    ("3.13", "3.13.2", "python"),
    ("bookworm", "", ""),
]


@pytest.mark.parametrize(("version", "wanted", "tool"), IN)
def test_version_is_in_the_range(version: str, wanted: str, tool: str) -> None:
    assert satisfies(version, wanted, tool=tool)


@pytest.mark.parametrize(("version", "wanted", "tool"), OUT)
def test_version_is_outside_the_range(version: str, wanted: str, tool: str) -> None:
    assert not satisfies(version, wanted, tool=tool)


@pytest.mark.parametrize(
    ("wanted", "available", "tool", "expected"),
    [
        (">=3.10", ["3.9.18", "3.11.7", "3.13.0", "3.12.1"], "python", "3.13.0"),
        ("3.12", ["3.11.7", "3.13.0"], "python", None),
        ("", ["3.9", "3.11", "3.10"], "python", "3.11"),
        (">=3.13", ["3.13.0", "3.14.0rc1"], "python", "3.13.0"),
        ("3.14", ["3.13.0", "3.14.0rc1"], "python", "3.14.0rc1"),
        ("lts/*", ["20", "22", "25"], "node", "22"),
        ("1.22", ["1.25", "1.27", "1.26"], "go", "1.27"),
    ],
)
def test_best_is_the_newest_that_fits(wanted: str, available: list[str], tool: str, expected: str | None) -> None:
    assert best(wanted, available, tool=tool) == expected


def test_an_exact_pin_is_relaxed_to_what_stays_compatible() -> None:
    assert relax("3.11.9", tool="python") == "3.11"
    assert relax("==3.11.9", tool="python") == "3.11"
    assert relax("v20.11.1", tool="node") == "20"
    assert relax("1.22.3", tool="go") == "1.22.3"
    assert relax(">=3.11.2", tool="python") == ">=3.11.2"


@pytest.mark.parametrize("wanted", ["banana", ">=", "3.x.y.z!", "^^20", "workspace:*"])
def test_a_range_that_is_none_is_an_error_that_shows_it(wanted: str) -> None:
    with pytest.raises(PlanError) as caught:
        satisfies("3.11.7", wanted)
    assert wanted in caught.value.message
