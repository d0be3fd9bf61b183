"""Make a notebook that stands alone, as on Colab, find all that it finds in the book's repository.

The first cell of a notebook clones the repository beside it and runs this file in its kernel. What the library needs and is not
there is installed, but never torch or torchvision; the library is imported from the clone, not installed; and the kernel moves
into the clone's folder book/, from where chapters find the stored results.
"""

import importlib
import os
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
KEPT = ("torch", "torchvision")


def installed(name):
    """Return the installed version of a package, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def missing(requirements):
    """Return those of some requirements that no installed package meets, torch and torchvision left out."""
    def met(one):
        version = installed(one.name)
        return version is not None and one.specifier.contains(version, prereleases=True)

    return [str(one) for one in map(Requirement, requirements) if one.name not in KEPT and not met(one)]


def main():
    requirements = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    wanted = missing(requirements)
    if absent := [name for name in KEPT if installed(name) is None]:
        raise ModuleNotFoundError(f"{' and '.join(absent)} must be there before this runs: pip install torch torchvision")
    if wanted:
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *wanted], check=True)
        importlib.invalidate_caches()
    sys.path.insert(0, str(ROOT))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))    # for commands: !python -m
    os.chdir(ROOT / "book")
    print(f"The book's repository is in {ROOT.name}/; installed: {', '.join(wanted) or 'nothing'}; torch {installed('torch')} as it was.")


if __name__ == "__main__":
    main()
