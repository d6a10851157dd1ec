"""package.json, read and never executed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from mini_core.errors import ConfigError
from mini_core.interfaces import Source

NAMES = ("package.json", "package.json5", "package.yaml")
"""package.json5 and package.yaml are read by pnpm only."""

_DEPENDENCIES = ("dependencies", "devDependencies", "optionalDependencies")


class Package:
    """One package.json. `file` is its path in the source, `folder` the folder it describes ("" is the root)."""

    def __init__(self, file: str, data: Mapping[str, Any]) -> None:
        self.file = file
        self.folder = file.rpartition("/")[0]
        self._data = data

    def __repr__(self) -> str:
        return f"Package({self.file!r})"

    @property
    def name(self) -> str:
        return self.string("name")

    def get(self, *keys: str) -> Any:
        """A nested entry, or None."""
        item: Any = self._data
        for key in keys:
            if not isinstance(item, Mapping):
                return None
            item = item.get(key)
        return item

    def string(self, *keys: str) -> str:
        """A nested entry that is text, else ""."""
        item = self.get(*keys)
        return item.strip() if isinstance(item, str) else ""

    @cached_property
    def scripts(self) -> Mapping[str, str]:
        """The scripts that are set: an empty one is npm's way to say "do nothing"."""
        return {name: line for name, line in self._table("scripts").items() if line.strip()}

    @cached_property
    def dependencies(self) -> Mapping[str, str]:
        """Every dependency, development ones too: a build installs them all."""
        return {name: spec for table in _DEPENDENCIES[::-1] for name, spec in self._table(table).items()}

    @cached_property
    def production(self) -> Mapping[str, str]:
        return self._table("dependencies")

    def engine(self, name: str) -> str:
        """`engines.NAME`."""
        return self.string("engines", name)

    def major(self, dependency: str) -> int | None:
        """The major version that a dependency's range starts at; None without the dependency or the number."""
        found = re.search(r"\d+", self.dependencies.get(dependency, ""))
        return int(found[0]) if found else None

    @cached_property
    def workspaces(self) -> tuple[str, ...]:
        """npm's, yarn's and bun's `workspaces`: a list of globs, or a table with `packages`."""
        found = self.get("workspaces")
        if isinstance(found, Mapping):
            found = found.get("packages")
        return tuple(item for item in found if isinstance(item, str)) if isinstance(found, list) else ()

    def _table(self, name: str) -> dict[str, str]:
        found = self.get(name)
        return {key: item for key, item in found.items() if isinstance(item, str)} if isinstance(found, Mapping) else {}


def read_package(source: Source, folder: str = "") -> Package | None:
    """The folder's package.json, or None. Raises ConfigError naming line and column where it cannot be read."""
    prefix = f"{folder}/" if folder else ""
    for name in NAMES:
        text = source.text(prefix + name)
        if text is not None:
            return Package(prefix + name, parse(prefix + name, text))
    return None


def parse(file: str, text: str) -> Mapping[str, Any]:
    """A manifest's table. JSON for package.json (npm takes nothing else), else JSON5 or YAML by the name."""
    hint = "Check it with: npm pkg get name"
    try:
        data = _load(file, text)
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{file}: not valid JSON: line {error.lineno}, column {error.colno}: {error.msg}", hint=hint
        ) from error
    except ValueError as error:
        raise ConfigError(f"{file}: {str(error).splitlines()[0]}", hint="Correct the file.") from error
    if not isinstance(data, Mapping):
        raise ConfigError(f"{file}: expected an object, got {type(data).__name__}", hint=hint)
    return data


def _load(file: str, text: str) -> Any:
    if file.endswith(".json"):
        return json.loads(text) if text.strip() else {}
    if file.endswith(".json5"):
        import json5

        return json5.loads(text)
    return load_yaml(text)


def load_yaml(text: str) -> Any:
    """The (first) document. Raises ValueError where it is not YAML."""
    import yaml

    try:
        return next(iter(yaml.safe_load_all(text)), None)
    except yaml.YAMLError as error:
        raise ValueError(f"not valid YAML: {error}") from error


def table(data: Any, *keys: str) -> Mapping[str, Any]:
    """A nested mapping, {} where there is none."""
    for key in keys:
        data = data.get(key) if isinstance(data, Mapping) else None
    return data if isinstance(data, Mapping) else {}


def strings(data: Any) -> Sequence[str]:
    """The texts of a list, () where it is none."""
    return tuple(item for item in data if isinstance(item, str)) if isinstance(data, list) else ()
