"""A fresh bubblewrap sandbox for each submission: no network, its own view of the files, limits on everything that can run out.

One sandbox per submission costs the import of torch each time, about two seconds of a core. A warm process that serves many would
save them, but it would also carry what one student's code leaves behind into the next one's grading; so there is none.
"""

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from grader import wire
from grader.errors import NoSandbox

__all__ = ["Ended", "Limits", "Worker", "require"]

HERE = Path(__file__).resolve().parent
LIBRARY = HERE.parents[2] / "switcher_lib"
LONGEST_MESSAGE = 96 << 20
SLOW = "slow"
ALONE = 2                       # processes below bubblewrap: its own first one in the sandbox, and the worker
INSTALL = "On Debian and Ubuntu: sudo apt-get install bubblewrap. On macOS and Windows: grade in a Linux virtual machine or container."


@dataclass(frozen=True)
class Limits:
    """What one submission may use.

    Parameters
    ----------
    cpu : int, default 60
        Seconds of processor time, from when the worker is ready: it has imported what the cells need.
    wall : float, default 90
        Seconds by the clock, from when the worker is ready. Whoever needs more is tried once again with twice as many: the machine may
        have been busy.
    start : float, default 300
        Seconds that the worker may need to be ready; more is a fault of the machine, not of the submission.
    cell, call : float, default 10
        Seconds of processor time for one answer cell, and for one call of an answer (and five times that by the clock): longer costs that
        item only.
    memory : int
        Bytes of data for one process; the sandbox as a whole may hold half as much again.
    disk : int
        Bytes in its only writable folder.
    processes : int
        Processes and threads in the sandbox.
    """

    cpu: int = 60
    wall: float = 90.0
    start: float = 300.0
    cell: float = 10.0
    call: float = 10.0
    memory: int = 1536 << 20
    disk: int = 32 << 20
    processes: int = 24


class Ended(Exception):
    """The worker is gone or was ended; the message says why, for the student.

    Attributes
    ----------
    caught : bool
        It was the submission's doing; otherwise the grader's or the machine's.
    slow : bool
        The clock ran out, which may be the doing of either.
    """

    def __init__(self, reason, caught=True, slow=False):
        super().__init__(reason)
        self.caught, self.slow = caught, slow


# ------------------------------------------------------------------------------------------------------ what is available

def _command(limits):
    """bubblewrap's command line up to the program to run."""
    seen = []
    prefixes = {Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve(), Path(sys.executable).resolve().parents[1]}
    for prefix in sorted(prefixes | {Path(sys.prefix), Path(sys.base_prefix)}):
        if not str(prefix).startswith("/usr/") and str(prefix) != "/usr":
            seen += ["--ro-bind", str(prefix), str(prefix)]
    for name in ("lib", "lib64", "lib32", "bin"):
        top = Path("/") / name
        if top.is_symlink():
            seen += ["--symlink", os.readlink(top), str(top)]
        elif top.is_dir():
            seen += ["--ro-bind", str(top), str(top)]
    for file in ("/etc/ld.so.cache",):
        seen += ["--ro-bind-try", file, file]
    for name in ("worker.py", "wire.py", "probes.py"):
        seen += ["--ro-bind", str(HERE / name), f"/course/{name}"]
    return ["bwrap", "--unshare-all", "--unshare-user", *_if_known("--disable-userns"), "--uid", "1000", "--gid", "1000", "--hostname", "grading",
            "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv", "--ro-bind", "/usr", "/usr", *seen,
            "--ro-bind", str(LIBRARY), "/course/switcher_lib", "--proc", "/proc", "--dev", "/dev",
            "--size", str(1 << 20), "--tmpfs", "/dev/shm", "--remount-ro", "/dev", "--size", str(limits.disk), "--tmpfs", "/answer",
            "--remount-ro", "/", "--chdir", "/answer",
            "--setenv", "HOME", "/answer", "--setenv", "TMPDIR", "/answer", "--setenv", "PYTHONPATH", "/course", "--setenv", "LANG", "C.UTF-8",
            "--setenv", "PYTHONDONTWRITEBYTECODE", "1", "--setenv", "OMP_NUM_THREADS", "1", "--setenv", "MKL_NUM_THREADS", "1",
            "--setenv", "SWITCHER_OFFLINE", "1", "--setenv", "SWITCHER_DATA", "/answer/none", "--setenv", "MPLBACKEND", "agg",
            "--setenv", "MPLCONFIGDIR", "/answer", "--setenv", "CUDA_VISIBLE_DEVICES", "", "--setenv", "PATH", "/usr/bin"]


@lru_cache(maxsize=8)
def _if_known(option):
    """An option as a list, or an empty list where this bubblewrap is too old for it."""
    told = subprocess.run(["bwrap", "--help"], capture_output=True, text=True)
    return [option] if option in told.stdout + told.stderr else []


def sweep():
    """Remove the control groups that graders which were killed have left; they are empty."""
    for folder in Path("/sys/fs/cgroup").glob("**/grading-*-*") if os.access("/sys/fs/cgroup", os.W_OK) else ():
        pid = folder.name.split("-")[1]
        if pid.isdigit() and not Path("/proc", pid).exists():
            with contextlib.suppress(OSError):
                folder.rmdir()


class Group:
    """A control group that bounds a whole sandbox, where this machine lets us make one; otherwise `Group.make` gives None."""

    def __init__(self, folders):
        self.folders = folders

    @classmethod
    def make(cls, limits, name):
        total = limits.memory + limits.memory // 2
        root = Path("/sys/fs/cgroup")
        made = []
        try:
            if (root / "cgroup.controllers").exists():                     # version 2
                own = Path("/proc/self/cgroup").read_text().strip().rpartition("::")[2].lstrip("/")
                for parent in (root / own, (root / own).parent):
                    if {"memory", "pids"} <= set((parent / "cgroup.subtree_control").read_text().split()):
                        folder = parent / name
                        folder.mkdir()
                        made.append(folder)
                        (folder / "memory.max").write_text(str(total))
                        with contextlib.suppress(OSError):
                            (folder / "memory.swap.max").write_text("0")
                        (folder / "pids.max").write_text(str(limits.processes + 4))
                        return cls(made)
                return None
            for controller, file, value in (("pids", "pids.max", limits.processes + 4), ("memory", "memory.limit_in_bytes", total)):
                folder = root / controller / name                          # version 1
                folder.mkdir()
                made.append(folder)
                (folder / file).write_text(str(value))
            return cls(made)
        except OSError:
            cls(made).remove()
            return None

    def remove(self):
        for folder in self.folders:
            for _ in range(50):                      # its last process may take a moment to go
                try:
                    folder.rmdir()
                    break
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(0.02)


_checked, _checking = {}, threading.Lock()


def require():
    """Make sure that a sandbox holds here, by trying; the answer is kept for the process.

    Raises
    ------
    NoSandbox
        If bubblewrap is missing or cannot isolate, or if nothing here can bound the number of processes.
    """
    with _checking:
        if "problem" not in _checked:
            _checked["problem"] = _problem()
    if _checked["problem"]:
        raise NoSandbox(f"Strangers' code is not run here: {_checked['problem']} Nothing was graded. {INSTALL}")


PROBE = """
import os, socket, sys
def refused(action):
    try: action()
    except OSError: return True
    return False
def connect():
    with socket.socket() as s: s.settimeout(1); s.connect(("1.1.1.1", 80))
def write(): open("/course/x", "w")
faults = []
if not refused(connect) or [n for _, n in socket.if_nameindex() if n != "lo"]: faults.append("the network is open")
if not refused(write): faults.append("files outside its folder can be written")
if os.path.exists("/home") or os.path.exists(sys.argv[1]): faults.append("files of this machine can be seen")
children = []
try:
    for i in range(200):
        pid = os.fork()
        if not pid:
            import time; time.sleep(20); os._exit(0)
        children.append(pid)
    faults.append("the number of processes is not bounded")
except OSError: pass
print("; ".join(faults) or "holds")
"""


def _problem():
    if not sys.platform.startswith("linux"):
        return f"this is {sys.platform}, and the sandbox needs Linux."
    if shutil.which("bwrap") is None:
        return "bubblewrap is not installed."
    limits = Limits(processes=20)
    group = Group.make(limits, f"grading-check-{os.getpid()}")
    code = f"import resource; resource.setrlimit(resource.RLIMIT_NPROC, (20, 20))\n{PROBE}"
    try:
        command = [*_command(limits), "--", sys.executable, "-c", code, str(HERE / "secret.py")]
        process = subprocess.Popen(_inside(group, command), text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE)
        try:
            out, err = process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return "the trial sandbox did not answer."
    finally:
        if group:
            group.remove()
    if out.strip() == "holds":
        return None
    why = out.strip() or (err.strip().splitlines() or ["no reason given"])[-1]
    return f"the trial sandbox does not hold ({why[:200]})."


def _inside(group, command):
    """The command, begun by a shell that first moves itself into the group: so it bounds bubblewrap and all that follows."""
    if group is None:
        return command
    move = 'while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs" || exit 97; shift; done; shift; exec "$@"'
    return ["/bin/sh", "-c", move, "sh", *map(str, group.folders), "--", *command]


# --------------------------------------------------------------------------------------------------------------- a worker

class Worker:
    """One sandbox with one submission in it. Use as a context manager; leaving it ends every process inside."""

    def __init__(self, cells, limits=None):
        require()
        self.limits = limits or Limits()
        self.deadline = time.monotonic() + self.limits.start
        self.token = os.urandom(12).hex()
        self._killed, self._ready = None, False
        self._buffer = b""
        self._group = Group.make(self.limits, f"grading-{os.getpid()}-{self.token[:8]}")
        rlimits = {"DATA": self.limits.memory, "FSIZE": self.limits.disk, "CPU": self.limits.cpu, "CORE": 0, "NOFILE": 256,
                   "NPROC": self.limits.processes}
        command = [*_command(self.limits), "--", sys.executable, "/course/worker.py", *(f"{k}={v}" for k, v in rlimits.items())]
        self.process = subprocess.Popen(_inside(self._group, command), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, start_new_session=True)
        self._selector = selectors.DefaultSelector()
        os.set_blocking(self.process.stdout.fileno(), False)
        self._selector.register(self.process.stdout, selectors.EVENT_READ)
        self._watching = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        self.cells = cells

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self._watching.set()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)         # bwrap; its sandbox dies with it
        self.process.kill()
        self.process.wait()
        self._watcher.join()
        self._selector.close()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()
        if self._group:
            self._group.remove()
            self._group = None

    def _watch(self):
        """From outside: processes and memory of the whole sandbox, where no control group bounds them; and how near the end is."""
        total = self.limits.memory + self.limits.memory // 2
        while not self._watching.wait(0.1):
            if time.monotonic() > self.deadline:
                return self._kill(SLOW)
            count, memory = _usage(self.process.pid)
            if self._ready and count > ALONE:        # before, bubblewrap itself takes a few to set up
                return self._kill("starts other processes")
            if memory > total:
                return self._kill(f"uses more than {total >> 20} MB of memory")

    def _kill(self, reason):
        self._killed = reason
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    # -------- messages

    def _send(self, message):
        data = wire.dumps(message).encode() + b"\n"
        try:
            self.process.stdin.write(data)
            self.process.stdin.flush()
        except (BrokenPipeError, OSError):
            self._gone()

    def _receive(self):
        # With a long first message the loop must still notice the end: the watcher kills, and a closed pipe reads empty
        while b"\n" not in self._buffer:
            if not self._selector.select(timeout=1.0):
                if time.monotonic() > self.deadline + 2:
                    self._kill(SLOW)
                continue
            try:
                piece = os.read(self.process.stdout.fileno(), 1 << 20)
            except BlockingIOError:
                continue
            if not piece:
                self._gone()
            self._buffer += piece
            if len(self._buffer) > LONGEST_MESSAGE:
                self._kill("sends more than an answer can hold")
                self._gone()
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            message = wire.loads(line.decode())
        except (wire.Malformed, UnicodeDecodeError):
            raise Ended("writes into the channel between grader and answer") from None
        if isinstance(message, list) or not isinstance(message, dict):
            raise Ended("writes into the channel between grader and answer")
        if isinstance(message.get("caught"), str):
            raise Ended(message["caught"][:200])
        return message

    def _gone(self):
        self.process.wait()
        if self._killed is SLOW:
            if not self._ready:
                raise Ended("the sandbox did not start in time", caught=False)
            raise Ended(f"takes longer than {self.limits.wall:g} s by the clock, and cannot be interrupted", slow=True)
        if self._killed:
            raise Ended(self._killed)
        status = self.process.returncode
        if not self._ready:
            raise Ended(f"the sandbox did not start (exit status {status})", caught=False)
        if status in (-signal.SIGKILL, 128 + signal.SIGKILL):
            raise Ended("uses more memory or processor time than there is for one submission")
        if status in (-signal.SIGXCPU, 128 + signal.SIGXCPU):
            raise Ended(f"uses more than {self.limits.cpu} s of processor time")
        raise Ended(f"ends the grading process (exit status {status})")

    def _answer(self):
        message = self._receive()
        if message.get("token") != self.token or "ready" in message:
            raise Ended("writes into the channel between grader and answer")
        return message

    def start(self):
        """Execute the cells. Returns {cell: error} for those that failed, error as [type, text, [cell, line]]."""
        self._send({"token": self.token, "cells": [list(c) for c in self.cells],
                    "limits": {"cell": self.limits.cell, "call": self.limits.call}})
        if not self._receive().get("ready"):
            raise Ended("the sandbox did not start", caught=False)
        self._ready, self.deadline = True, time.monotonic() + self.limits.wall
        failed = {}
        for name, _, _ in self.cells:
            message = self._answer()
            if "error" in message:
                failed[name] = message["error"]
        return failed

    def call(self, probe, arguments):
        """One probe on one case: {"ok": outputs} or {"error": [type, text, line]}."""
        self._send({"token": self.token, "probe": probe, "arguments": arguments})
        return self._answer()

    def has(self, names):
        """Whether the answers defined all of `names`, even if their cell stopped afterwards."""
        return self.call("defined", {"names": list(names)}).get("ok") is True

    def end(self):
        """Ask the worker to finish: one that is not there to answer has been ended by the answer's own code."""
        self._send({"token": self.token, "end": True})
        if not self._answer().get("done"):
            raise Ended("writes into the channel between grader and answer")


def _usage(pid):
    """Processes below `pid`, itself not counted, and the memory that they hold together (bytes; shared pages counted once each)."""
    parents, rss = {}, {}
    page = os.sysconf("SC_PAGE_SIZE")
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            stat = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
            parents[int(entry)] = int(stat[1])
            pages = Path(f"/proc/{entry}/statm").read_text().split()
            rss[int(entry)] = (int(pages[1]) - int(pages[2])) * page      # private pages
        except (OSError, IndexError, ValueError):
            continue
    below, level = set(), {pid}
    while level:
        level = {child for child, parent in parents.items() if parent in level} - below
        below |= level
    return len(below), sum(rss.get(p, 0) for p in below)
