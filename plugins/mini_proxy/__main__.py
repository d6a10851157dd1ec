"""`python -m mini_proxy --state DIR`: the router's processes. See `master` and `worker`.

In the foreground it is what systemd starts, with the sockets of a `.socket` unit; `--daemon` is what the plugin
starts: it answers with one line of JSON when connections are accepted, or with why they are not.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

from mini_core.types import replace

MAX_LOG = 1 << 20


def main() -> int:
    args = _parse()
    if args.check:
        import mini_proxy.master
        import mini_proxy.worker  # noqa: F401

        return 0
    if args.worker:
        return _run_worker(args)
    if args.resume:
        return _run_resumed(args)
    if args.inherit:
        return _run_inherited(args)
    return _run_daemon(args) if args.daemon else _run_foreground(args)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m mini_proxy", description="The router of a mini platform.")
    parser.add_argument("--state", metavar="DIR", help="the router's folder")
    parser.add_argument("--controller", metavar="SOCKET", help="the controller's unix socket")
    parser.add_argument("--platform", metavar="ID", help="the platform's id")
    parser.add_argument("--bind", metavar="HOST:PORT", action="append", default=[], help="where to listen; repeatable")
    parser.add_argument("--workers", metavar="N", type=int, help="how many workers; 0: one a processor, at most 4")
    parser.add_argument("--daemon", action="store_true", help="detach, and report on standard output")
    for hidden in ("--worker", "--resume", "--inherit"):
        parser.add_argument(hidden, type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--check", action="store_true", help="only check that the code can be loaded")
    args = parser.parse_args()
    if not args.check and not args.state:
        parser.error("--state is needed")
    return args


def _logging() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(levelname)s %(message)s")
    logging.getLogger("waitress").setLevel(logging.ERROR)


# --- the processes


def _run_worker(args: argparse.Namespace) -> int:
    from mini_proxy.listen import inherited
    from mini_proxy.state import State
    from mini_proxy.worker import run_worker

    _logging()
    spec = args.worker
    link = socket.socket(fileno=spec["link"])
    link.set_inheritable(False)
    run_worker(State(args.state), inherited(spec["listen"]), link, spec["column"], spec["supervised"])
    return 0


def _run_foreground(args: argparse.Namespace) -> int:
    _logging()
    supervised = bool(os.environ.get("INVOCATION_ID"))
    return _start(args, supervised=supervised, ready=_notify_systemd, failed=_print_error)


def _run_daemon(args: argparse.Namespace) -> int:
    """Forks before anything is loaded; the parent waits for the child's report and passes it on."""
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        with os.fdopen(reader, "rb") as answer:
            text = answer.read()
        sys.stdout.write(text.decode() or json.dumps({"error": "The router's master died.", "code": "died"}))
        return 0
    os.close(reader)
    _detach(args.state)
    with os.fdopen(writer, "w") as report:

        def say(message: dict[str, Any]) -> None:
            with contextlib.suppress(OSError, ValueError):
                report.write(json.dumps(message))
                report.close()

        return _start(args, supervised=False, ready=lambda: say({"pid": os.getpid()}), failed=say)


def _run_inherited(args: argparse.Namespace) -> int:
    """Started by a worker whose master is gone."""
    if os.fork():
        return 0
    _detach(args.state)
    from mini_proxy.listen import inherited
    from mini_proxy.master import Master
    from mini_proxy.state import State

    state = State(args.state)
    os.set_inheritable(args.inherit["lock"], False)
    listeners = inherited(args.inherit["listen"])
    master = Master(state, state.read_settings(), listeners, args.inherit["lock"], supervised=False)
    asyncio.run(master.run(lambda: None))
    return 0


def _run_resumed(args: argparse.Namespace) -> int:
    """The same process as before, with new code."""
    _logging()
    from mini_proxy.listen import inherited
    from mini_proxy.master import Master
    from mini_proxy.state import State

    state, resumed = State(args.state), args.resume
    for fd in (resumed["lock"], resumed["control"]):
        os.set_inheritable(fd, False)
    master = Master(
        state, state.read_settings(), inherited(resumed["listen"]), resumed["lock"], supervised=resumed["supervised"]
    )
    asyncio.run(master.run(_notify_systemd, resumed=resumed))
    return 0


def _start(
    args: argparse.Namespace,
    *,
    supervised: bool,
    ready: Callable[[], None],
    failed: Callable[[dict[str, Any]], None],
) -> int:
    from mini_core.errors import MiniError
    from mini_proxy.listen import bind_all, handed_over
    from mini_proxy.master import Master
    from mini_proxy.state import State

    state = State(args.state)
    try:
        state.create()
        settings = _settings(args, state)
        lock = state.lock_master()
        if lock is None:
            failed({"error": "Another master runs here.", "code": "locked"})
            return 1
        listeners = handed_over(os.environ) or bind_all(settings.binds)
        for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
            os.environ.pop(name, None)
        asyncio.run(Master(state, settings, listeners, lock, supervised).run(ready))
    except MiniError as error:
        failed({"error": error.message, "hint": error.hint, "code": error.code})
        return 1
    return 0


def _settings(args: argparse.Namespace, state: Any) -> Any:
    """Those that were stored, with what the command line says; stored again, for workers."""
    from mini_core.errors import UsageError
    from mini_core.types import Endpoint, RouterSettings

    try:
        settings = state.read_settings()
    except FileNotFoundError:
        if not args.controller:
            raise UsageError("--controller is needed at the first start.") from None
        settings = RouterSettings(binds=(), state=args.state, controller=args.controller, platform=args.platform or "")
    if args.bind:
        pairs = [bind.rpartition(":") for bind in args.bind]
        settings = replace(settings, binds=tuple(Endpoint(host=h.strip("[]"), port=int(p)) for h, _, p in pairs))
    if args.controller:
        settings = replace(settings, controller=args.controller)
    if args.platform:
        settings = replace(settings, platform=args.platform)
    if args.workers is not None:
        settings = replace(settings, workers=args.workers)
    state.write_settings(settings)
    return settings


# --- helpers


def _detach(state: str) -> None:
    """A session of its own, and its output in the state folder."""
    os.setsid()
    os.makedirs(state, mode=0o700, exist_ok=True)  # noqa: PTH103
    path = os.path.join(state, "master.log")  # noqa: PTH118
    with contextlib.suppress(OSError):
        if os.stat(path).st_size > MAX_LOG:  # noqa: PTH116
            os.replace(path, path + ".1")  # noqa: PTH105
    output = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(null)
    os.close(output)
    os.chdir(state)
    _logging()


def _notify_systemd() -> None:
    """sd_notify(3): ready."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
            sock.sendto(b"READY=1", "\0" + address[1:] if address.startswith("@") else address)


def _print_error(message: dict[str, Any]) -> None:
    print(message["error"], message.get("hint", ""), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
