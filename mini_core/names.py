"""Names of apps: what is allowed, and friendly ones for those who have no preference."""

from __future__ import annotations

import random
import re
import secrets
from collections.abc import Collection

from mini_core.errors import UsageError

LONGEST = 40
"""Characters: leaves room in a DNS label (63) and a container's name for what is added."""

RESERVED = frozenset(("mini", "www", "localhost", "ip", "nip", "sslip", "local"))
"""What the platform's own hosts are called, or wildcard DNS names and the machine itself."""

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_ADDRESS = re.compile(r"[\d-]+|(.*-)?\d+-\d+-\d+-\d+")
"""Only digits, or ending like an address, which wildcard DNS names would mistake for one."""

_FIRST_WORDS = (
    "amber autumn azure bold brave bright broad calm clear cool coral crisp dawn deep dry early fair fancy fast "
    "fine fresh gentle gold good grand green happy holy icy jolly keen kind late light lively long lucky mild "
    "misty morning neat nice noble old open pale plain polar proud pure quick quiet rapid red rich royal rustic "
    "sharp shy silent silver sleek small snowy soft solar spring still summer sunny swift tidy tiny vivid warm "
    "white wide wild winter wise young blue"
)
_SECOND_WORDS = (
    "bay beach bird bloom boat breeze brook bush canyon cape cedar cliff cloud coast comet creek crest dew dune "
    "field fire fjord flower fog forest frost garden glade grass grove harbor haze heron hill island lake leaf "
    "lagoon maple marsh meadow mesa moon moss mountain night oak ocean orchard path peak pebble pine plain pond "
    "pool rain reef ridge river rock sea shadow shore sky smoke snow sound spark star stone storm stream sun "
    "surf thunder tide tree valley violet voice water wave willow wind wood"
)
_FIRST, _SECOND = _FIRST_WORDS.split(), _SECOND_WORDS.split()


def check_name(name: str) -> str:
    """The name, if an app may have it. Raises UsageError saying why not.

    It becomes a DNS label (RFC 1123), a folder and part of container names.
    """
    if name in RESERVED:
        raise UsageError(
            f"{name} is reserved.", hint=f"The platform answers to that itself: name it my-{name}.", code="bad-name"
        )
    if len(name) > LONGEST:
        raise _wrong(f"{name[:LONGEST]}… is longer than {LONGEST} characters")
    if "--" in name or not _LABEL.fullmatch(name) or _ADDRESS.fullmatch(name):
        raise _wrong(f"{name!r} cannot be the name of an app")
    return name


def _wrong(message: str) -> UsageError:
    hint = f"A name has up to {LONGEST} lower-case letters, digits and hyphens, and no address at its end."
    return UsageError(f"{message}.", hint=hint, code="bad-name")


def new_name(taken: Collection[str], chance: random.Random | None = None) -> str:
    """A friendly name such as blue-sky that is not taken."""
    chance = chance or secrets.SystemRandom()
    for _ in range(100):
        name = f"{chance.choice(_FIRST)}-{chance.choice(_SECOND)}"
        if name not in taken:
            return name
    while True:
        name = f"{chance.choice(_FIRST)}-{chance.choice(_SECOND)}-{chance.randrange(1000, 10000)}"
        if name not in taken:
            return name
