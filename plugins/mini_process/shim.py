"""The parent of one instance: it outlives the controller, so that the instance's pipes never lose their reader.

    python -I -S shim.py FOLDER        standard input: one JSON object (see `Order`), never kept on disk

It answers "ok" or one line of error on standard output, and goes to the background. From then on:

    FOLDER/lock          flock, held for as long as the shim lives
    FOLDER/state.json    {"shim": pid, "pid": pid, "started_at": seconds}
    FOLDER/exit.json     {"exit_code": n, "signal": n|null, "oom": bool, "ended_at": seconds}, written atomically
    FOLDER/log/NNNNNN    lines "SECONDS o|e TEXT"; a new number every `log_size` bytes, the last `log_files` are kept
    FOLDER/stop          seconds of grace; read at SIGTERM, which is how the shim is asked to stop the instance

The instance leads a session and process group of its own. When it ends, what is left of the group is ended too.
Only the standard library, few modules and no threads: there is one of these for every instance.
"""
# os instead of pathlib and contextlib, which would cost memory in every shim.

import errno
import fcntl
import json
import os
import select
import signal
import sys
import time

READ = 65536
LONGEST_LINE = 16384
DRAIN = 1.0  # seconds that pipes are still read after the last process of the group is gone
MEMORY_INTERVAL = 2.0
LINUX = sys.platform.startswith("linux")


class Log:
    """Numbered files of log lines. Never raises for a full disk: the lines are lost, the instance goes on."""

    def __init__(self, folder: str, size: int, files: int) -> None:
        self.folder = folder
        self.size = size
        self.files = files
        os.makedirs(folder, 0o700, exist_ok=True)
        numbers = [int(name) for name in os.listdir(folder) if name.isdigit()]
        self.number = max(numbers, default=0)
        self.written = 0
        self.descriptor = -1
        self.rotate()

    def rotate(self) -> None:
        """The next file is made only once the last one is complete: readers rely on it."""
        self.number += 1
        path = os.path.join(self.folder, f"{self.number:06d}")
        following = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        if self.descriptor >= 0:
            os.close(self.descriptor)
        self.descriptor = following
        self.written = 0
        for name in os.listdir(self.folder):
            if name.isdigit() and int(name) <= self.number - self.files:
                os.unlink(os.path.join(self.folder, name))

    def write(self, data: bytes) -> None:
        try:
            if self.written and self.written + len(data) > self.size:
                self.rotate()
            while data:
                done = os.write(self.descriptor, data)
                self.written += done
                data = data[done:]
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EMFILE):
                raise


class Stream:
    """One pipe of the instance, cut into lines."""

    def __init__(self, descriptor: int, mark: bytes, log: Log) -> None:
        self.descriptor = descriptor
        self.mark = mark
        self.log = log
        self.rest = b""
        os.set_blocking(descriptor, False)

    def read(self) -> bool:
        """Takes what is there; False at the end of the stream."""
        try:
            data = os.read(self.descriptor, READ)
        except BlockingIOError:
            return True
        if not data:
            self.flush()
            os.close(self.descriptor)
            return False
        lines = (self.rest + data).split(b"\n")
        self.rest = lines.pop()
        self.emit(lines)
        while len(self.rest) >= LONGEST_LINE:
            self.emit([self.rest[:LONGEST_LINE]])
            self.rest = self.rest[LONGEST_LINE:]
        return True

    def flush(self) -> None:
        if self.rest:
            self.emit([self.rest])
            self.rest = b""

    def emit(self, lines: list[bytes]) -> None:
        head = b"%.6f %s " % (time.time(), self.mark)
        if lines:
            self.log.write(b"".join([head + line.rstrip(b"\r") + b"\n" for line in lines]))


class Order:
    """What to start: argv (argv[0] is looked up in env's PATH), env, cwd, grace, memory (bytes or null), log_size
    (bytes a file), log_files (how many)."""

    def __init__(self, data: dict) -> None:  # type: ignore[type-arg]
        self.argv: list[str] = data["argv"]
        self.env: dict[str, str] = data["env"]
        self.cwd: str = data["cwd"]
        self.instance: str = data["instance"]
        self.grace: float = data["grace"]
        self.memory: int | None = data["memory"]
        self.log_size: int = data["log_size"]
        self.log_files: int = data["log_files"]


def write_atomically(path: str, data: object) -> None:
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump(data, file)
    os.replace(path + ".new", path)


def spawn(order: Order, stdout: int, stderr: int) -> int:
    """Forks and executes the instance in a session of its own."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        for number in (signal.SIGPIPE, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        os.chdir(order.cwd)
        os.execvpe(order.argv[0], order.argv, order.env)
    except OSError as error:
        os.write(2, f"cannot start {order.argv[0]}: {error.strerror}\n".encode())
        os._exit(127 if error.errno == errno.ENOENT else 126)
    finally:
        os._exit(126)


class Shim:
    def __init__(self, folder: str, order: Order) -> None:
        self.folder = folder
        self.order = order
        self.log = Log(os.path.join(folder, "log"), order.log_size, order.log_files)
        self.poll = select.poll()
        self.streams: dict[int, Stream] = {}
        self.wakeup, wakeup_write = os.pipe()
        os.set_blocking(self.wakeup, False)
        os.set_blocking(wakeup_write, False)
        signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        self.poll.register(self.wakeup, select.POLLIN)
        self.kill_at: float | None = None
        self.oom = False
        self.status: int | None = None

    def start(self) -> None:
        stdout, stdout_write = os.pipe()
        stderr, stderr_write = os.pipe()
        self.pid = spawn(self.order, stdout_write, stderr_write)
        os.close(stdout_write)
        os.close(stderr_write)
        for descriptor, mark in ((stdout, b"o"), (stderr, b"e")):
            self.streams[descriptor] = Stream(descriptor, mark, self.log)
            self.poll.register(descriptor, select.POLLIN | select.POLLHUP)
        state = {"shim": os.getpid(), "pid": self.pid, "started_at": time.time()}
        write_atomically(os.path.join(self.folder, "state.json"), state)

    def run(self) -> None:
        """Until the instance has ended and its exit status is written."""
        look_at_memory = time.monotonic() + MEMORY_INTERVAL
        while not self.ended():
            self.turn(MEMORY_INTERVAL if self.kill_at is None else 0.05)
            if self.kill_at is not None and time.monotonic() >= self.kill_at:
                self.signal_group(signal.SIGKILL)
            if self.order.memory and time.monotonic() >= look_at_memory:
                look_at_memory = time.monotonic() + MEMORY_INTERVAL
                self.watch_memory(self.order.memory)
        self.end_group()
        self.drain()
        if self.status is None:
            self.status = os.waitpid(self.pid, 0)[1]
        code = os.waitstatus_to_exitcode(self.status)
        ended = {
            "exit_code": 128 - code if code < 0 else code,
            "signal": -code if code < 0 else None,
            "oom": self.oom,
            "ended_at": time.time(),
        }
        self.write_exit(ended)

    def write_exit(self, ended: object) -> None:
        """Where the disk is full, a few times: without it the instance counts as killed."""
        for _ in range(10):
            try:
                return write_atomically(os.path.join(self.folder, "exit.json"), ended)
            except FileNotFoundError:
                return None  # the instance's folder is gone: nobody asks any more
            except OSError:
                time.sleep(0.5)
        return None

    def ended(self) -> bool:
        """Whether the instance's first process has; it stays a zombie, so that its group's number is not reused."""
        if LINUX:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        pid, status = os.waitpid(self.pid, os.WNOHANG)  # Python has no waitid on macOS before 3.13
        if pid:
            self.status = status
        return bool(pid)

    def turn(self, timeout: float) -> None:
        """Waits for output or a signal, and deals with it."""
        for descriptor, _ in self.poll.poll(timeout * 1000):
            if descriptor == self.wakeup:
                if signal.SIGTERM in os.read(self.wakeup, 256):
                    self.stop()
            elif not self.streams[descriptor].read():
                self.poll.unregister(descriptor)
                del self.streams[descriptor]

    def stop(self) -> None:
        grace = self.order.grace
        try:
            with open(os.path.join(self.folder, "stop"), encoding="utf-8") as file:
                grace = float(file.read())
        except (OSError, ValueError):
            pass
        if self.kill_at is None:
            self.signal_group(signal.SIGTERM)
        kill_at = time.monotonic() + grace
        self.kill_at = kill_at if self.kill_at is None else min(self.kill_at, kill_at)

    def signal_group(self, number: int) -> None:
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            pass

    def end_group(self) -> None:
        """Ends what the instance's first process left behind, in its group or (Linux) in sessions of its own."""
        deadline = time.monotonic() + DRAIN if self.kill_at is None else self.kill_at
        if self.kill_at is None:
            self.signal_group(signal.SIGTERM)  # once: to some a second one says that there is no time left
        while (self.streams or others_in_group(self.pid)) and time.monotonic() < deadline:
            self.turn(0.02)
        self.signal_group(signal.SIGKILL)
        for pid in pids_with_environment(f"MINI_INSTANCE={self.order.instance}"):
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass

    def drain(self) -> None:
        deadline = time.monotonic() + DRAIN
        while self.streams and time.monotonic() < deadline:
            self.turn(0.05)
        for stream in self.streams.values():
            stream.flush()

    def watch_memory(self, limit: int) -> None:
        """Ends the instance where its processes together use more than the limit. Linux only."""
        pids = pids_of_session(self.pid)
        if sum(map(resident, pids)) <= limit or sum(map(proportional, pids)) <= limit:
            return
        self.oom = True
        self.log.write(b"%.6f e out of memory: more than %d MB, killed\n" % (time.time(), limit >> 20))
        self.signal_group(signal.SIGKILL)


def numbers_in_proc() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()] if LINUX else []


def pids_with_environment(entry: str) -> list[int]:
    """Processes that were started with this entry in their environment, this one left out."""
    wanted, found = entry.encode(), []
    for pid in numbers_in_proc():
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                if wanted in file.read().split(b"\0") and pid != os.getpid():
                    found.append(pid)
        except OSError:
            pass
    return found


def pids_of_session(session: int) -> list[int]:
    found = []
    for pid in numbers_in_proc():
        try:
            if os.getsid(pid) == session:
                found.append(pid)
        except OSError:
            pass
    return found


def others_in_group(group: int) -> bool:
    """Whether a process group has members that live besides its leader. Linux only."""
    for pid in numbers_in_proc():
        try:
            if pid != group and os.getpgid(pid) == group and not is_zombie(pid):
                return True
        except OSError:
            pass
    return False


def is_zombie(pid: int) -> bool:
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[0] in (b"Z", b"X")


def resident(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def proportional(pid: int) -> int:
    """Resident memory with shared pages divided among those who share them, in bytes."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resident(pid)


def lock(folder: str) -> bool:
    """Takes the folder's lock for the rest of this process' life; False where somebody holds it."""
    descriptor = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for _ in range(50):  # who asks whether it is held holds it for a moment
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.02)
    return False


def main() -> int:
    folder = sys.argv[1]
    order = Order(json.load(sys.stdin))
    ready, ready_write = os.pipe()
    if os.fork():  # the launcher: waits until the instance is started, says how it went
        os.close(ready_write)
        with os.fdopen(ready, "rb") as pipe:
            answer = pipe.read() or b"the shim ended unexpectedly"
        os.write(1, answer)
        return 0 if answer == b"ok" else 1
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    errors = os.open(os.path.join(folder, "shim.err"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.dup2(errors, 2)
    os.chdir("/")
    if not lock(folder):
        os.write(ready_write, b"locked")
        return 1
    shim = Shim(folder, order)
    shim.start()
    os.write(ready_write, b"ok")
    os.close(ready_write)
    order.env.clear()
    shim.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
