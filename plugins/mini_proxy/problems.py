"""What the router itself answers, and why: one value per kind, which `pages` shows."""

from __future__ import annotations

from mini_core.types import Value


class Problem(Value):
    """status, and what everyone may read: code (a stable word), title, detail. cause: for clients on this machine
    and for the router's log only. retry_after: seconds, 0 for none. api: always as JSON, for programs."""

    status: int
    code: str
    title: str
    detail: str
    cause: str = ""
    retry_after: int = 0
    api: bool = False

    @staticmethod
    def unknown_host(host: str) -> Problem:
        return Problem(
            status=404,
            code="unknown-host",
            title="There is nothing here",
            detail="No app answers at this address.",
            cause=f"no route for the host {host or '(none)'}",
        )

    @staticmethod
    def no_path(host: str) -> Problem:
        return Problem(
            status=404,
            code="unknown-path",
            title="There is nothing here",
            detail="No app answers at this path.",
            cause=f"the host {host} has routes, but none for this path",
        )

    @staticmethod
    def no_instance(app: str) -> Problem:
        return Problem(
            status=503,
            code="no-instance",
            title="This app is not running",
            detail="It has no healthy instance at the moment.",
            cause=f"the route of {app} has no targets: mini ps {app}",
            retry_after=5,
        )

    @staticmethod
    def died(cause: str) -> Problem:
        return Problem(
            status=502,
            code="instance-died",
            title="This app did not answer",
            detail="The instance that was to answer is gone.",
            cause=cause,
        )

    @staticmethod
    def broken(cause: str) -> Problem:
        return Problem(
            status=502,
            code="bad-response",
            title="This app did not answer properly",
            detail="Its instance sent something that is not a valid response.",
            cause=cause,
        )

    @staticmethod
    def timed_out(cause: str) -> Problem:
        return Problem(
            status=504,
            code="timeout",
            title="This app took too long",
            detail="Its instance did not answer in time.",
            cause=cause,
        )

    @staticmethod
    def busy(app: str, cause: str) -> Problem:
        return Problem(
            status=503,
            code="busy",
            title="This app is busy",
            detail="It is serving as many requests as it can. Try again in a moment.",
            cause=f"{app}: {cause}",
            retry_after=1,
        )

    @staticmethod
    def maintenance(app: str) -> Problem:
        return Problem(
            status=503,
            code="maintenance",
            title="Down for maintenance",
            detail="This app is being worked on and will be back soon.",
            cause=f"mini maintenance off -a {app}",
            retry_after=60,
        )

    @staticmethod
    def not_ready(app: str, cause: str) -> Problem:
        return Problem(
            status=503,
            code="not-ready",
            title="This app is not ready yet",
            detail="It was to be started, and did not get ready. Try again in a moment.",
            cause=f"{app}: {cause}",
            retry_after=5,
        )

    @staticmethod
    def starting() -> Problem:
        return Problem(
            status=503,
            code="router-starting",
            title="The platform is starting",
            detail="It does not know its apps yet. Try again in a moment.",
            cause="the router has not been given a route table",
            retry_after=1,
        )

    @staticmethod
    def controller_away(cause: str) -> Problem:
        return Problem(
            status=503,
            code="controller-away",
            title="The controller is restarting",
            detail="Apps are being served; the API is back in a moment. Try again.",
            cause=cause,
            retry_after=1,
            api=True,
        )
