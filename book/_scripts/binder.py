"""Write binder/requirements.txt: of requirements.lock, what running the notebooks needs, with PyTorch's CPU build.

    python book/_scripts/binder.py

That is the library's dependencies in pyproject.toml, what these depend on, and so on, as the installed packages say it; not the book's
and the tests' tools. JupyterLab and the kernel are not in it: Binder's images bring their own.
"""

import re
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "binder" / "requirements.txt"
HEAD = """\
# Made by book/_scripts/binder.py (`make lock` runs it): of requirements.lock, what running the notebooks needs.
# PyTorch is the CPU build: the hosted machines have no GPU and little disk.
--extra-index-url https://download.pytorch.org/whl/cpu
"""
CPU_BUILDS = ("torch", "torchvision")
# Binder's machines, whatever this one is.
MACHINE = default_environment() | {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64", "os_name": "posix"}


def locked(text):
    """Return {canonical name: (name, version)} of a lock file."""
    return {canonicalize_name(name): (name, version) for name, version in re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE)}


def closure(roots):
    """Return the canonical names of some packages and of all that these need on Binder's machines."""
    found, waiting = set(), list(roots)
    while waiting:
        one = Requirement(waiting.pop())
        name = canonicalize_name(one.name)
        if one.marker and not one.marker.evaluate(MACHINE | {"extra": ""}) or name in found:
            continue
        found.add(name)
        waiting += metadata.requires(name) or []
    return found


def text():
    """Return what binder/requirements.txt has to hold."""
    pins = locked((ROOT / "requirements.lock").read_text(encoding="utf-8"))
    roots = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    # What the lock leaves out (CUDA's parts) is left out here too.
    names = closure(roots) & set(pins)
    return HEAD + "".join(f"{pins[name][0]}=={pins[name][1]}{'+cpu' * (name in CPU_BUILDS)}\n" for name in sorted(names))


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
