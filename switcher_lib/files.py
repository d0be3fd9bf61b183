"""Files that are whole or as they were before, whatever happens while they are written."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | os.PathLike[str], part: Path | None = None) -> Iterator[Path]:
    """Give a place to write to, which takes a file's place if the block ends without an error.

    Parameters
    ----------
    path : str or Path
        The file. Its folder has to exist.
    part : Path, optional
        The place, in the same folder; None takes a name of this process.

    Yields
    ------
    Path
        The place; whatever is left of it is removed.
    """
    path = Path(path)
    part = part or path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield part
        with open(part, "rb+") as file:
            os.fsync(file.fileno())    # else a power cut may leave the new name with nothing in it
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
