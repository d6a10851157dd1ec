"""The summary: one screen of counts, then every failure with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from tests.corpus.verdicts import Result

_COLUMNS = ("detect", "build", "run", "negative")
_JUDGED = ("core", "negative", "detect-build", "services", "unreachable")


def summary(results: Sequence[Result], *, capabilities: bool = False) -> str:
    """Passes of those that could be judged, per language and level; what could not be judged, by reason."""
    lines = [f"{'':<12}" + "".join(f"{column:>18}" for column in _COLUMNS)]
    known = [item for item in results if not _foreign(item)]
    for language in sorted({item.language for item in known}):
        lines.append(_row(language, [item for item in known if item.language == language]))
    lines.append(_row("all", known))
    for tier in _JUDGED:
        rows = [item for item in known if item.tier == tier]
        if rows:
            lines.append(_row(f"  {tier}"[:12], rows))
    if capabilities:
        lines += ["", *_capabilities(known)]
    lines += ["", *_apart(results)]
    return "\n".join(lines).rstrip()


def failures(results: Iterable[Result], *, details: bool = False) -> str:
    """One line for each verdict that is a failure; with details, the last lines of its log below."""
    lines = []
    for item in sorted(results, key=lambda item: item.id):
        for level, verdict in item.verdicts.items():
            if verdict.state == "fail":
                lines.append(f"{level:<9} {item.id} [{item.tier}]: {verdict.reason}")
                lines += [f"            {line}" for line in verdict.details if line.strip()] if details else []
    return "\n".join(lines)


def _row(name: str, results: Sequence[Result]) -> str:
    cells = []
    for level in _COLUMNS:
        states = Counter(item.verdicts[level].state for item in results if level in item.verdicts)
        judged = states["pass"] + states["fail"]
        cell = f"{states['pass']}/{judged} {100 * states['pass'] / judged:.0f} %" if judged else "–"
        apart = f" +{states['apart']}" if states["apart"] else ""
        cells.append(f"{cell + apart:>18}")
    return f"{name:<12}" + "".join(cells)


def _capabilities(results: Sequence[Result]) -> Iterator[str]:
    yield "by capability, at the last level that was judged:"
    names = Counter(name for item in results for name in item.capabilities)
    for name, count in sorted(names.items()):
        rows = [item for item in results if name in item.capabilities]
        passed = sum(not item.failed for item in rows)
        yield f"  {name:<28}{passed:>4} of {count}"


def _apart(results: Iterable[Result]) -> Iterator[str]:
    reasons = Counter(
        f"{level}: {verdict.reason[:110]}"
        for item in results
        for level, verdict in item.verdicts.items()
        if verdict.state == "apart"
    )
    if reasons:
        yield f"not judged here (+): {sum(reasons.values())}"
    for reason, count in reasons.most_common(25):
        yield f"  {count:>4}  {reason}"
    if len(reasons) > 25:
        yield f"  … and {len(reasons) - 25} more reasons (see the result file)"


def _foreign(item: Result) -> bool:
    verdict = item.verdicts.get("detect")
    return bool(verdict and verdict.state == "apart" and verdict.reason.startswith("no buildpack"))
