"""Log sinks behind bounded queues: one that is slow, hangs or is away costs the apps no time, and little memory."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mini_core.errors import MiniError
from mini_core.interfaces import LogSink
from mini_core.types import LogLine

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Gap:
    """Stands where lines of an app were dropped."""

    app: str
    at: float
    count: int


class _Queue:
    """What waits of one app. weight: of its lines."""

    def __init__(self) -> None:
        self.items: deque[LogLine | Gap] = deque()
        self.weight = 0

    def add(self, line: LogLine) -> None:
        self.items.append(line)
        self.weight += _weight(line)

    def take(self, most: int) -> list[LogLine | Gap]:
        taken = [self.items.popleft() for _ in range(min(most, len(self.items)))]
        self.weight -= sum(_weight(item) for item in taken)
        return taken

    def drop(self, line: LogLine) -> None:
        """Not even taken in."""
        self.items.append(Gap(line.app, line.at, 1 + self._gap_at(-1)))

    def drop_newest(self) -> int:
        """Gives up the last line. Returns its weight."""
        after = self._gap_at(-1)
        line = self.items.pop()
        assert isinstance(line, LogLine)
        self.weight -= _weight(line)
        self.items.append(Gap(line.app, line.at, self._gap_at(-1) + 1 + after))
        return _weight(line)

    def begin_with(self, gap: Gap) -> None:
        self.items.appendleft(Gap(gap.app, gap.at, gap.count + self._gap_at(0)))

    def _gap_at(self, end: int) -> int:
        """How many lines the gap at that end (0, -1) stands for, which is taken off; 0 where there is none."""
        if not self.items or not isinstance(gap := self.items[end], Gap):
            return 0
        del self.items[end]
        return gap.count


def _weight(item: LogLine | Gap) -> int:
    """A line counts once for each kilobyte."""
    return 1 + len(item.text) // 1024 if isinstance(item, LogLine) else 0


class Waiting:
    """Lines that wait, of all apps together at most `size`. Once it is full, who has more than a fair share loses the
    newest of it, so that an app that floods costs no other one a line. Apps take turns."""

    TURN = 100

    def __init__(self, size: int) -> None:
        self._size = size
        self._weight = 0
        self._apps: dict[str, _Queue] = {}

    def __bool__(self) -> bool:
        return bool(self._apps)

    @property
    def weight(self) -> int:
        return self._weight

    def put(self, line: LogLine) -> int:
        """Returns how many lines were dropped for it, of whatever app."""
        own, weight, dropped = self._apps.setdefault(line.app, _Queue()), _weight(line), 0
        while self._weight + weight > self._size:
            dropped += 1
            if own.weight + weight > self._size / len(self._apps):
                own.drop(line)
                return dropped
            self._weight -= max(self._apps.values(), key=lambda queue: queue.weight).drop_newest()
        own.add(line)
        self._weight += weight
        return dropped

    def take(self, most: int) -> list[LogLine | Gap]:
        """The next ones, each app's in their order."""
        taken: list[LogLine | Gap] = []
        while self._apps and len(taken) < most:
            app = next(iter(self._apps))
            queue = self._apps.pop(app)
            taken += queue.take(min(self.TURN, most - len(taken)))
            if queue.items:
                self._apps[app] = queue
        self._weight = sum(queue.weight for queue in self._apps.values())
        return taken

    def give_up(self, items: Iterable[LogLine | Gap]) -> int:
        """What was taken will not arrive. Returns how many lines that were."""
        lines = 0
        for item in reversed(list(items)):
            gap = item if isinstance(item, Gap) else Gap(item.app, item.at, 1)
            self._apps.setdefault(gap.app, _Queue()).begin_with(gap)
            lines += isinstance(item, LogLine)
        return lines


class Sink:
    """A log sink and what waits for it. A batch that it does not take is offered again, less and less often, while
    the queue fills; what it is too slow for, or away too long, is dropped, counted, and said to it in its place."""

    BATCH = 500
    GATHER = 0.1
    """Seconds in which what comes goes along in the same batch."""
    FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
    PATIENCE = 300.0
    """Seconds after which a batch is given up: the sink may refuse just that one."""
    REMEMBERED = 600.0
    """Seconds for which dropped lines count as a problem."""

    def __init__(self, sink: LogSink, size: int = 10_000) -> None:
        self.name = sink.name
        self.dropped = 0
        self.failures = 0
        self._problem = ""
        self._dropped_at = 0.0
        self._closing = threading.Event()
        self._sink = sink
        self._waiting = Waiting(size)
        self._filled = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"log-sink-{sink.name}", daemon=True)
        self._thread.start()

    def put(self, lines: Iterable[LogLine]) -> None:
        with self._filled:
            if not self._waiting:
                self._filled.notify()
            self._count(sum(self._waiting.put(line) for line in lines))

    def _count(self, dropped: int) -> None:
        if dropped:
            self.dropped += dropped
            self._dropped_at = time.monotonic()

    @property
    def problem(self) -> str:
        """What is wrong with it, or was in the last minutes; "" where nothing is."""
        lines = f"{self.dropped:,} line{'' if self.dropped == 1 else 's'} dropped"
        if self._problem:
            return f"{self._problem} ({lines})" if self.dropped else self._problem
        recently = self.dropped and time.monotonic() < self._dropped_at + self.REMEMBERED
        return f"was away, or too slow: {lines}" if recently else ""

    def _run(self) -> None:
        while (batch := self._batch()) and self._write(batch):
            pass

    def _batch(self) -> list[LogLine | Gap]:
        """The next one; empty in the end."""
        with self._filled:
            self._filled.wait_for(lambda: self._waiting or self._closing.is_set())
            full = self._waiting.weight >= self.BATCH
        if not full:
            self._closing.wait(self.GATHER)
        with self._filled:
            return self._waiting.take(self.BATCH)

    def _write(self, batch: Sequence[LogLine | Gap]) -> bool:
        """Until it is taken, or given up. False where it was not and there is no time left."""
        lines = [self._said(item) if isinstance(item, Gap) else item for item in batch]
        deadline, pause = time.monotonic() + self.PATIENCE, self.FIRST_PAUSE
        while not self._offer(lines):
            if self._closing.wait(pause):
                return False
            if time.monotonic() > deadline:
                with self._filled:
                    self._count(self._waiting.give_up(batch))
                return True
            pause = min(2 * pause, self.LONGEST_PAUSE)
        return True

    def _offer(self, lines: Sequence[LogLine]) -> bool:
        try:
            self._sink.write(lines)
        except Exception as error:  # a sink's bug is its own: counted and shown
            self.failures += 1
            self._problem = str(error) if isinstance(error, OSError | MiniError) else f"{type(error).__name__}: {error}"
            return False
        self._problem = ""
        return True

    def _said(self, gap: Gap) -> LogLine:
        lines = f"{gap.count} line{'' if gap.count == 1 else 's'}"
        text = f"{lines} dropped: the sink {self.name} was away, or too slow"
        return LogLine(at=gap.at, app=gap.app, source="platform", text=text)

    def close(self, timeout: float = 5.0) -> None:
        """Writes what is queued, as far as time allows, and closes the sink."""
        self._closing.set()
        with self._filled:
            self._filled.notify()
        self._thread.join(timeout)
        try:
            self._sink.close()
        except Exception as error:
            log.warning("log sink %s failed to close", self.name, exc_info=error)
