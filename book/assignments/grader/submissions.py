"""A folder of submissions: whose each is, which notebooks it holds, and what cannot be graded, said clearly."""

import re
import stat
import unicodedata
import zipfile
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from grader.errors import GraderError
from grader.notebooks import LARGEST

__all__ = ["Submission", "collect", "slug"]

NAME = re.compile(r"[^\W_][\w.@+ ,'()-]{0,99}")
MOODLE = re.compile(r"(?P<name>.+)_(?P<id>\d+)_assignsubmission_(?:file|onlinetext)_?(?P<file>.*)")
CANVAS = re.compile(r"(?P<name>[^\W\d_]+)_(?:LATE_)?(?P<id>\d+)_(?P<attempt>\d+)_(?P<file>.+)")
MOST_FILES = 40


@dataclass
class Submission:
    """Everything that one student handed in.

    Attributes
    ----------
    identifier : str
        From the folder's or file's name: Moodle's "Participant 123", Canvas's number, or the name as it is.
    name : str
        The full name, where the name of the file says it.
    sources : list of str
        The entries of the folder that it comes from.
    notebooks : list of (str, bytes)
        File name and content.
    problems : list of str
        Why (some of) it cannot be graded.
    """

    identifier: str
    name: str = ""
    sources: list = field(default_factory=list)
    notebooks: list = field(default_factory=list)
    problems: list = field(default_factory=list)


def slug(identifier):
    """A file name for an identifier: letters, digits and dashes, and a hash where something was left out."""
    plain = re.sub(r"[^A-Za-z0-9-]+", "-", identifier).strip("-")[:60] or "submission"
    return plain if plain == identifier else f"{plain}-{sha256(identifier.encode()).hexdigest()[:8]}"


def identify(name):
    """(identifier, full name, may several entries be one student's) of a folder's or file's name.

    Raises
    ------
    ValueError
        If the name is none that a student can have: the message says why.
    """
    name = unicodedata.normalize("NFC", name)
    for pattern, form in ((MOODLE, "Participant {}"), (CANVAS, "{}")):
        found = pattern.fullmatch(name)
        if found and NAME.fullmatch(found["name"]):
            return form.format(found["id"]), found["name"], True
    if not NAME.fullmatch(name) or ".." in name or name != name.strip(" ."):
        raise ValueError("a name begins with a letter or digit and holds only letters, digits, spaces and any of . @ + _ , ' ( ) -, "
                         "at most 100 characters; it is not used, since it would end up in file names and spreadsheets")
    return name, "", False


def _shown(name):
    return ascii(name)[1:-1][:80]


def collect(folder):
    """Read a folder of submissions.

    Parameters
    ----------
    folder : path
        One entry per student: a folder with notebooks (or a zip of them) in it, a notebook, or a zip. Also what Moodle ("Download all
        submissions") and Canvas ("Download submissions") give.

    Returns
    -------
    (list of Submission, list of (name, reason))
        The second: entries that belong to nobody.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise GraderError(f"SUBMISSIONS={folder} is not a folder.")
    found, refused = {}, []
    for entry in sorted(folder.iterdir(), key=lambda p: p.name):
        if entry.name.startswith(".") or entry.name == "__MACOSX":
            continue
        if entry.is_symlink():
            refused.append((_shown(entry.name), "is a link; only what lies in the folder itself is read"))
            continue
        if not entry.is_dir() and entry.suffix.lower() not in (".ipynb", ".zip"):
            refused.append((_shown(entry.name), "is neither a folder nor a notebook (.ipynb) nor a .zip"))
            continue
        try:
            identifier, name, several = identify(entry.name if entry.is_dir() else entry.name[:-len(entry.suffix)])
        except ValueError as error:
            refused.append((_shown(entry.name), str(error)))
            continue
        key = unicodedata.normalize("NFKC", identifier).casefold()
        new = Submission(identifier, name, [entry.name])
        if key in found and not several:
            found[key].sources.append(entry.name)
            found[key].problems.append(f"{len(found[key].sources)} entries are of one student: {', '.join(map(_shown, found[key].sources))}. "
                                       "Keep one of them; none was graded.")
            found[key].notebooks.clear()
            continue
        if key in found:
            found[key].sources.append(entry.name)
            new = found[key]
        else:
            found[key] = new
        try:
            new.notebooks += _notebooks(entry)
        except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError) as error:
            new.problems.append(f"{_shown(entry.name)} cannot be read: {error}")
    for each in found.values():
        if not each.notebooks and not each.problems:
            each.problems.append("holds no notebook (.ipynb)")
    if not found and not refused:
        raise GraderError(f"SUBMISSIONS={folder} is empty.")
    return list(found.values()), refused


def _notebooks(entry):
    """File names and contents of the notebooks in a folder (two levels deep), a zip, or the file itself. Links are not followed."""
    if entry.is_dir():
        files = [p for pattern in ("*", "*/*") for p in sorted(entry.glob(pattern))
                 if not p.is_symlink() and not p.parent.is_symlink() and p.is_file()
                 and not any(part.startswith(".") or part == "__MACOSX" for part in p.relative_to(entry).parts)]
        files = [p for p in files if p.suffix.lower() in (".ipynb", ".zip")]
    else:
        files = [entry]
    found = []
    for file in files[:MOST_FILES]:
        if file.suffix.lower() == ".zip":
            found += _zipped(file)
        else:
            if not stat.S_ISREG(file.stat().st_mode):
                continue
            with open(file, "rb") as opened:
                found.append((file.name, opened.read(LARGEST + 1)))
    return found


def _zipped(file):
    found = []
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist()[:1000]:
            name = Path(member.filename).name
            hidden = any((part.startswith(".") and part != "..") or part == "__MACOSX" for part in Path(member.filename).parts)
            if member.is_dir() or hidden or not name.lower().endswith(".ipynb"):
                continue
            if len(found) >= MOST_FILES:
                break
            with archive.open(member) as opened:     # only its content is used, never its path
                found.append((name, opened.read(LARGEST + 1)))
    return found
