"""Scores mini on a folder of apps that others wrote.

    python -m tests.corpus --apps FOLDER --facts FILE [--only PATTERN…] [--level detect|build|run] [--jobs N]

Each app is a folder of its own, named by its id with "/" as "__". A pattern is a prefix or a glob of ids, or
`language=go`, `tier=core,negative`, or several joined with "&". With --results FILE, what was judged already is not
judged again (--retry: but failures are), so a run can be interrupted and taken up.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.corpus.facts import read_facts
from tests.corpus.platform import Platform, temporary_folder
from tests.corpus.report import failures, summary
from tests.corpus.scoring import Scorer
from tests.corpus.verdicts import LEVELS, Result, Store


def main(arguments: list[str] | None = None) -> int:
    """0 when nothing failed."""
    options = _parser().parse_args(arguments)
    facts = read_facts(options.facts, options.only)
    store = Store(options.results)
    todo = [fact for fact in facts if not _done(store.results.get(fact.id), options.level, options.retry)]
    with temporary_folder() as folder:
        platform = Platform(folder, options.runtime)
        scorer = Scorer(platform, options.apps, options.level, options.even_out_of_reach)
        try:
            with ThreadPoolExecutor(options.jobs) as pool:
                for number, result in enumerate(pool.map(scorer.score, todo), 1):
                    store.add(result)
                    _tell(number, len(todo), result)
        finally:
            platform.close()
    results = [store.results[fact.id] for fact in facts if fact.id in store.results]
    print(summary(results, capabilities=options.capabilities))
    failed = failures(results, details=options.details)
    if failed:
        print(f"\n{failed}")
    return 1 if failed else 0


def _done(result: Result | None, level: str, retry: bool) -> bool:
    return result is not None and result.covers(level) and not (retry and result.failed)


def _tell(number: int, count: int, result: Result) -> None:
    states = " ".join(f"{level}:{verdict.state}" for level, verdict in result.verdicts.items())
    reason = next((verdict.reason for verdict in result.verdicts.values() if verdict.state != "pass"), "")
    print(f"[{number}/{count}] {result.id}  {states}  {reason[:140]}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.corpus", description=__doc__.splitlines()[0])
    parser.add_argument("--apps", type=Path, required=True, help="folder with one folder per app")
    parser.add_argument("--facts", type=Path, required=True, help="JSON list of what is expected of each app")
    parser.add_argument("--only", action="append", default=[], metavar="PATTERN", help="id prefix or glob, field=value")
    parser.add_argument("--level", choices=LEVELS, default="detect")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="apps at once")
    parser.add_argument("--results", type=Path, metavar="FILE", help="JSON results: kept, and taken up again")
    parser.add_argument("--retry", action="store_true", help="judge failures of the result file again")
    parser.add_argument("--runtime", default="", help="docker or process (default: docker where it answers)")
    parser.add_argument("--even-out-of-reach", action="store_true", help="try what the facts say can't be reached")
    parser.add_argument("--capabilities", action="store_true", help="also count by capability")
    parser.add_argument("--details", action="store_true", help="show the last lines of failed steps")
    return parser


if __name__ == "__main__":
    sys.exit(main())
