"""Inside the sandbox: executes a student's answers and calls what they define. Knows no expected value.

Everything here is in reach of the student's code. Nothing that it sends is believed to be more than an answer; what it notices of
tampering is told at once, but the judge does not depend on it.
"""

import builtins
import errno
import math
import os
import resource
import signal
import sys
import time
import types

SELF = os.path.abspath(__file__)
HOME = os.environ.get("HOME", "/tmp")
STANDARD = os.path.dirname(os.__file__)             # the standard library: who calls it is asked, not it


class TooLong(BaseException):
    """An alarm, as an exception that a plain ``except Exception`` does not swallow."""


class Pipe:
    """Messages of one line each. The judge's token comes back with every answer, so that a stray print is no answer."""

    def __init__(self, reading, writing):
        self.source, self.target = os.fdopen(reading, "rb"), writing
        self._write, self._dumps = os.write, wire.dumps

    def receive(self):
        line = self.source.readline()
        if not line:
            os._exit(0)
        return wire.loads(line.decode(), torch.from_numpy)

    def send(self, message):
        data = self._dumps(message).encode() + b"\n"
        while data:
            data = data[self._write(self.target, data):]


def who(depth=2):
    """The innermost caller outside the standard library: its file, or "" while something is imported."""
    frame = sys._getframe(depth)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith("<frozen importlib"):
            return ""
        if not (name.startswith(STANDARD) and "site-packages" not in name) and not name.startswith("<frozen"):
            return name
        frame = frame.f_back
    return ""


def watch(pipe):
    """An audit hook, which cannot be taken off again: what no answer needs ends the worker, with its reason."""
    dangerous = {"socket.connect": "opens a network connection", "socket.bind": "opens a network connection",
                 "socket.getaddrinfo": "asks for a network address", "socket.gethostbyname": "asks for a network address",
                 "socket.sendto": "sends to the network", "os.fork": "starts another process", "os.forkpty": "starts another process",
                 "os.posix_spawn": "starts another process", "subprocess.Popen": "starts another process",
                 "os.system": "starts another process", "os.exec": "replaces the grader's process", "pty.spawn": "starts another process",
                 "os.kill": "sends a signal to a process", "os.killpg": "sends a signal to a process"}
    changes = {"os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.chmod", "os.chown", "os.truncate",
               "shutil.rmtree", "shutil.move", "shutil.copyfile"}
    looks = {"os.listdir", "os.scandir", "glob.glob"}
    foreign = {"ctypes.dlopen", "ctypes.dlsym", "ctypes.cdata"}

    def inside(path):
        try:
            full = os.path.realpath(os.path.join(HOME, os.fsdecode(path)))
        except (TypeError, ValueError):
            return True                              # a file descriptor
        return full == HOME or full.startswith(HOME + "/") or full in ("/dev/null", "/dev/urandom")

    def hook(event, args):
        if event in dangerous:
            end(dangerous[event])
        elif event == "open":
            path, mode, flags = args
            if not isinstance(path, (str, bytes)) or inside(path):
                return
            writing = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)) if isinstance(flags, int) else False
            if who().startswith("<answer"):
                end(f"{'writes' if writing else 'reads'} a file outside its folder ({os.fsdecode(path)[:80]})")
        elif event in changes:
            if not all(inside(p) for p in args if isinstance(p, (str, bytes))) and who().startswith("<answer"):
                end("changes files outside its folder")
        elif event in looks:
            if args and isinstance(args[0], (str, bytes)) and not inside(args[0]) and who().startswith("<answer"):
                end(f"looks through folders that are not its own ({os.fsdecode(args[0])[:80]})")
        elif event in foreign and who().startswith("<answer"):
            end("reaches below Python into the machine's libraries")

    leave, send = os._exit, pipe.send

    def end(reason):
        send({"caught": reason})
        leave(3)

    sys.addaudithook(hook)


def snapshot(modules):
    """Every attribute of what an answer may use but must not replace, by identity."""
    seen = {}
    for module in modules:
        label = getattr(module, "__qualname__", getattr(module, "__name__", "?"))
        kind = isinstance(module, type)
        # of a class what it inherits, too: an attribute of its own would hide it
        for names in [vars(base) for base in reversed(module.__mro__)] if kind else [vars(module)]:
            for name, value in list(names.items()):
                if not name.startswith("__") or module is builtins or (kind and callable(value)):
                    seen[label, name] = value
    return seen


def guarded():
    """Modules and classes whose attributes must stay as they are."""
    nn, optim = torch.nn, torch.optim
    return [builtins, torch, nn.functional, torch.autograd, torch.func, torch.linalg, torch.Tensor, nn.Module, nn.Linear, nn.Parameter,
            nn.Sequential, nn.BatchNorm1d, nn.BatchNorm2d, optim.Optimizer, optim.SGD, optim.Adam, torch.testing, torch.random,
            wire, probes, sys.modules["__main__"], Pipe, os, sys.modules["json"]]


def changed(before, modules):
    after = snapshot(modules)
    ignored = {("builtins", "_"), ("torch", "__warningregistry__")}
    # Modules load parts of themselves on first use: what is new is no harm, what is another is
    return [f"{m}.{n}" for (m, n), v in before.items()
            if (m, n) not in ignored and after.get((m, n)) is not v and not own_wrapper(after.get((m, n)), v)]


def own_wrapper(new, old):
    """Whether torch itself has wrapped a function of its own, as it does when an optimizer takes its first step."""
    file = getattr(getattr(new, "__code__", None), "co_filename", "")
    return getattr(new, "__wrapped__", None) is old and file.startswith(os.path.dirname(torch.__file__) + "/")


class Runner:
    """Executes cells and probes, one at a time, each with its own time limit."""

    def __init__(self, pipe, limits):
        self.pipe, self.limits = pipe, limits
        self.answers = types.ModuleType("answers")
        self.space = self.answers.__dict__
        sys.modules["answers"] = self.answers        # so that classes have a module that exists

    def timed(self, seconds, action):
        def ring(number, frame):
            raise TooLong

        # Processor time, so that a busy machine costs nobody points; and a clock, for what waits instead of computing
        for number in (signal.SIGPROF, signal.SIGALRM):
            signal.signal(number, ring)
        signal.setitimer(signal.ITIMER_PROF, seconds)
        signal.setitimer(signal.ITIMER_REAL, 5 * seconds)
        try:
            return {"ok": action()}
        except TooLong:
            return {"error": ["TooLong", f"took longer than {seconds:g} s", None]}
        except (SystemExit, KeyboardInterrupt) as error:
            return {"error": [type(error).__name__, "ends the program instead of answering", None]}
        except MemoryError:
            return {"error": ["MemoryError", "needs more memory than there is for one submission", None]}
        except BaseException as error:               # whatever it is, it is the answer's
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EFBIG):
                return {"error": ["OSError", "writes more than the disk space of one submission", line_of(error)]}
            return {"error": [type(error).__name__, text_of(error), line_of(error)]}
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)

    def cell(self, name, source, is_answer):
        label = f"<answer {name}>" if is_answer else f"<given {name}>"

        def action():
            import linecache
            code = compile(plain(source), label, "exec")
            linecache.cache[label] = (len(source), None, source.splitlines(True), label)
            exec(code, self.space)

        return self.timed(self.limits["cell"], action)

    def probe(self, name, arguments):
        def action():
            torch.manual_seed(0)
            return probes.ask(name, self.space, arguments)

        return self.timed(self.limits["call"], action)


def plain(source):
    """IPython's own lines, such as ``%pip``, mean nothing here."""
    return "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in source.split("\n"))


def text_of(error):
    try:
        return str(error)[:300]
    except BaseException:
        return ""


def line_of(error):
    """The last line of an answer on the way to an error."""
    found, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename.startswith("<answer"):
            found = [trace.tb_frame.f_code.co_filename[8:-1], trace.tb_lineno]
        trace = trace.tb_next
    if found is None and isinstance(error, SyntaxError) and str(error.filename).startswith("<answer"):
        found = [str(error.filename)[8:-1], error.lineno]
    return found


def prepare(cells, cpu):
    """Pay what the machine has to pay, and start the submission's account of processor time (`cpu` seconds, or None)."""
    if any("optim" in source for _, source, _ in cells):
        torch.optim.SGD([torch.zeros(1)])    # the first optimizer imports a compiler: seconds of them
    if cpu is not None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        limit = math.ceil(used.ru_utime + used.ru_stime) + cpu
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 2))    # two seconds to the hard end: the first signal tells why


def serve(reading, writing, cpu):
    pipe = Pipe(reading, writing)
    order = pipe.receive()
    prepare(order["cells"], cpu)
    pipe.send({"ready": True})
    limits = order["limits"]
    sys.setrecursionlimit(2000)
    watch(pipe)
    modules, before = guarded(), snapshot(guarded())
    runner = Runner(pipe, limits)
    for name, source, is_answer in order["cells"]:
        pipe.send({"token": order["token"], "cell": name, "began": time.monotonic(), **runner.cell(name, source, is_answer)})
        altered = changed(before, modules)
        if altered:
            pipe.send({"caught": f"replaces {altered[0]}"})
            os._exit(3)
    while True:
        order = pipe.receive()
        if order.get("end"):
            pipe.send({"token": order["token"], "done": True})
            os._exit(0)
        answer = runner.probe(order["probe"], order["arguments"])
        altered = changed(before, modules)
        if altered:
            pipe.send({"caught": f"replaces {altered[0]}"})
            os._exit(3)
        pipe.send({"token": order["token"], **answer})


if __name__ == "__main__":
    given = {key: int(value) for key, value in (pair.split("=") for pair in sys.argv[1:])}
    for kind in ("DATA", "FSIZE", "NPROC", "CORE", "NOFILE"):
        if kind in given:
            resource.setrlimit(getattr(resource, f"RLIMIT_{kind}"), (given[kind], given[kind]))
    # The pipe keeps numbers of its own; what answers print goes nowhere
    reading, writing = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    import torch

    import probes
    import wire

    torch.set_num_threads(1)
    serve(reading, writing, given.get("CPU"))
