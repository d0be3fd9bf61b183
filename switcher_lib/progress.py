"""One progress bar for everything that takes long: silent where nobody looks."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tqdm import tqdm


def progress_bar(total: int, description: str, show: bool = True) -> "tqdm":
    """Return a tqdm bar that is shown on a terminal and in a notebook, and silent in logs and in CI.

    Parameters
    ----------
    total : int
        Number of steps.
    description : str
        What is going on.
    show : bool, default True
        False silences it, as do ``TQDM_DISABLE`` and ``CI`` in the environment.

    Returns
    -------
    tqdm
        With ``update()`` and ``close()``.
    """
    from tqdm.auto import tqdm    # in a notebook it brings ipywidgets and IPython, which training in a script can do without
    from tqdm.notebook import tqdm_notebook

    silent = not show or os.environ.get("TQDM_DISABLE") or os.environ.get("CI")
    on_terminal_only = None    # tqdm's own word for "unless the output is no terminal"
    disable = True if silent else False if issubclass(tqdm, tqdm_notebook) else on_terminal_only
    return tqdm(total=total, desc=description, leave=False, disable=disable)
