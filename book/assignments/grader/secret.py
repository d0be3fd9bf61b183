"""The course's secret: one random line outside the repository, from which every number, visible and hidden, is drawn.

The sources of the assignments are public, reference answers included. What a course can keep to itself is the secret: with
another one the numbers in the student version are others, and so are the hidden cases.
"""

import hashlib
import hmac
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from grader.errors import GraderError

__all__ = ["DEFAULT_FILE", "PUBLIC", "Secret", "create", "find"]

VARIABLE, FILE_VARIABLE = "ASSIGNMENTS_SEED", "ASSIGNMENTS_SEED_FILE"
DEFAULT_FILE = Path("~/.config/reading-the-weights/course-seed")
SHORTEST = 16                   # characters: below that, hidden cases could be found by trying secrets
CREATE = "`make assignments-seed` makes one (SEED_FILE=PATH puts it elsewhere)"


@dataclass(frozen=True)
class Secret:
    """Draws that nobody can foresee who has not got the secret.

    Parameters
    ----------
    value : bytes
        The secret itself. It is never written to a student version, a feedback page or the sandbox.
    """

    value: bytes

    def __repr__(self):         # a secret that prints itself ends up in a log
        return f"Secret(fingerprint={self.fingerprint!r})"

    def digest(self, *scope):
        """Thirty-two bytes that belong to `scope`; draws of one scope tell nothing about another's."""
        return hmac.new(self.value, "/".join(map(str, scope)).encode(), hashlib.sha256).digest()

    def rng(self, *scope):
        """A NumPy generator that belongs to `scope`, such as ("2", "gate", "hidden")."""
        return np.random.default_rng(list(self.digest(*scope)))

    @property
    def fingerprint(self):
        """Eight characters that tell two courses apart and give nothing away."""
        return self.digest("fingerprint").hex()[:8]


PUBLIC = Secret(b"public")      # what the committed sources show; no course may use it


def _in_a_work_tree(path):
    folder = path if path.is_dir() else path.parent
    return any((up / ".git").exists() for up in (folder, *folder.parents))


def _checked(text, source):
    text = text.strip()
    if len(text) < SHORTEST:
        raise GraderError(f"The course's secret in {source} has {len(text)} characters; at least {SHORTEST} are needed. {CREATE}.")
    if text.encode() == PUBLIC.value:
        raise GraderError(f"The course's secret in {source} is the public one of the sources. {CREATE}.")
    return Secret(text.encode())


def _file(path=None):
    return Path(path or os.environ.get(FILE_VARIABLE) or DEFAULT_FILE).expanduser().absolute()


def create(path=None):
    """Write a new secret to a file that only you can read, and return its path.

    Raises
    ------
    GraderError
        If the file lies inside a git work tree, or is there already: a new secret would make the running course ungradable.
    """
    path = _file(path)
    if _in_a_work_tree(path):
        raise GraderError(f"SEED_FILE={path} lies inside a git work tree, where the secret would be published with the next commit. "
                          f"Choose a place outside, such as {DEFAULT_FILE}.")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise GraderError(f"{path} is there already. Submissions of a running course can be graded with its own secret only; "
                          "for a new course choose another SEED_FILE, or move the old one away.") from None
    with os.fdopen(handle, "w") as file:
        file.write(secrets.token_urlsafe(32) + "\n")
    return path


def find(path=None):
    """The course's secret: from `path`, from $ASSIGNMENTS_SEED, or from the file that $ASSIGNMENTS_SEED_FILE names.

    Raises
    ------
    GraderError
        If there is none, it is too short, or its file can be read by others or lies inside a git work tree.
    """
    if path is None and os.environ.get(VARIABLE):
        return _checked(os.environ[VARIABLE], f"${VARIABLE}")
    path = _file(path)
    if not path.is_file():
        raise GraderError(f"No course secret: neither ${VARIABLE} nor {path}. {CREATE}.")
    if _in_a_work_tree(path):
        raise GraderError(f"The course's secret {path} lies inside a git work tree. Move it outside, for instance to {DEFAULT_FILE}.")
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise GraderError(f"The course's secret {path} can be read by others. Make it yours alone: chmod 600 {path}")
    return _checked(path.read_text(encoding="utf-8"), path)
