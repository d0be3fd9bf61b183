"""What a hostile submission may try, for trials and tests: code put in front of an answer, or changes of the notebook's cells.

``zero`` is "all" where the whole submission gets nothing, "item" where only the answer that did it does: an endless loop or a greedy
allocation is as often a mistake as an attack, so it costs its own item as long as the rest can be graded.
"""

from dataclasses import dataclass

__all__ = ["HOSTILE", "Hostile"]


@dataclass(frozen=True)
class Hostile:
    """One attempt: `code` goes in front of an answer, or `change` alters the notebook; `reason` is a part of what the feedback says."""

    name: str
    reason: str
    code: str = ""
    change: object = None
    zero: str = "all"


def _edit(notebook):
    cell = next(c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("grade_id", "").startswith("test-"))
    cell.source = cell.source.split("\n")[0] + "\npass"


def _delete(notebook):
    notebook.cells = [c for c in notebook.cells if not c.metadata.get("nbgrader", {}).get("grade_id", "").startswith("test-")]


DEAF = """
import signal
signal.signal(signal.SIGALRM, signal.SIG_IGN)
signal.signal(signal.SIGPROF, signal.SIG_IGN)
while True:
    pass
"""
GREEDY = """
import signal, torch
signal.signal(signal.SIGALRM, signal.SIG_IGN)
signal.signal(signal.SIGPROF, signal.SIG_IGN)
kept = []
while True:
    try:
        kept.append(torch.ones(2_000_000))
    except BaseException:
        pass
"""
FORKS = """
import _posixsubprocess, os, sys
while True:
    r, w = os.pipe()
    try:
        _posixsubprocess.fork_exec([sys.executable, "-c", "import time; time.sleep(60)"], [sys.executable.encode()], True, (w,), None, None,
                                   -1, -1, -1, -1, -1, -1, r, w, False, False, -1, None, None, None, -1, None, False)
    except OSError:
        pass
    finally:
        os.close(r); os.close(w)
"""
FRAMES = """
import sys
frame = sys._getframe()
while frame.f_back:
    frame = frame.f_back
frame.f_globals["probes"].PROBES["gate"] = lambda ns, a: {"s": a, "grad": a}
"""
FORGE = """
import os
for number in range(3, 30):
    try:
        os.write(number, b'{"dict":[["token","x"],["ok",true]]}\\n')
    except OSError:
        pass
"""

HOSTILE = [
    Hostile("patches torch.allclose", "replaces torch.allclose", "import torch\ntorch.allclose = lambda *a, **k: True"),
    Hostile("patches a tensor's method", "replaces Tensor.__eq__", "import torch\ntorch.Tensor.__eq__ = lambda *a: True"),
    Hostile("patches a builtin", "replaces builtins.abs", "import builtins\nbuiltins.abs = lambda x: 0"),
    Hostile("patches assert's exception", "replaces builtins.AssertionError", "import builtins\nbuiltins.AssertionError = KeyError"),
    Hostile("patches the grader through its frames", "replaces", FRAMES + 'frame.f_globals["probes"].ask = lambda *a: {}'),
    Hostile("patches the worker's pipe", "ends the grading process|replaces|channel", "import sys\nsys.modules['__main__'].Pipe.send = print"),
    Hostile("reads the grader's files", "reads a file outside its folder", "open('/course/probes.py').read()"),
    Hostile("looks for hidden tests", "looks through folders", "import os\nlist(os.walk('/'))"),
    Hostile("exits at once", "ends the grading process", "import os\nos._exit(0)"),
    Hostile("exits and pretends success", "ends the grading process|channel", FORGE + "os._exit(0)"),
    Hostile("forges messages", "channel between grader and answer", FORGE),
    Hostile("loops for ever", "took longer than", "while True:\n    pass", zero="item"),
    Hostile("loops for ever, deaf to alarms", "processor time", DEAF),
    Hostile("waits for ever, deaf to alarms", "cannot be interrupted", DEAF.replace("    pass", "    import time; time.sleep(9)")),
    Hostile("forks", "starts another process", "import os\nos.fork()"),
    Hostile("starts processes below the audit", "starts other processes", FORKS),
    Hostile("fills the memory at once", "needs more memory", "x = bytearray(16 << 30)", zero="item"),
    Hostile("fills the memory bit by bit, deaf to alarms", "memory|processor time", GREEDY),
    Hostile("fills the disk", "disk space", "with open('x', 'wb') as f:\n    while True:\n        f.write(bytes(1 << 20))", zero="item"),
    Hostile("opens a network connection", "network", "import socket\nsocket.create_connection(('1.1.1.1', 80), timeout=3)"),
    Hostile("downloads", "network", "import urllib.request\nurllib.request.urlopen('http://example.org')"),
    Hostile("writes outside its folder", "writes a file outside", "open('/course/switcher_lib/x.py', 'w')"),
    Hostile("removes files outside its folder", "changes files outside", "import os\nos.remove('/course/worker.py')"),
    Hostile("calls the C library", "below Python", "import ctypes\nctypes.CDLL(None).getpid()"),
    Hostile("kills the sandbox's first process", "sends a signal", "import os\nos.kill(1, 9)"),
    Hostile("edits a test cell", "test cell .* was changed", change=_edit),
    Hostile("deletes the test cells", "test cell .* is missing", change=_delete),
]
