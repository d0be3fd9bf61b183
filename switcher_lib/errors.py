"""What can go wrong, by name. Every message says which argument, which value, and what to do."""

import difflib
from collections.abc import Iterable


class SwitchError(RuntimeError):
    """A model, a site or a file cannot be used for switching as asked."""


class SwitchWarning(UserWarning):
    """Part of a model cannot be switched; the rest works."""


class DataError(RuntimeError):
    """A data set is missing, damaged, empty or not what it says it is."""


class TrainingStopped(RuntimeError):
    """Training cannot go on: the loss is not finite or a whole layer is switched off."""


class CertificateError(SwitchError):
    """The compacted network does not compute what the folded one computes."""


def unknown_name(argument: str, value: object, known: Iterable[str], kind: str) -> ValueError:
    """Build the ``ValueError`` for a name that is not known, with the nearest match if there is one.

    Parameters
    ----------
    argument : str
        The argument that was given.
    value : object
        What was given for it.
    known : iterable of str
        The names that are allowed.
    kind : str
        What such a name stands for, for the sentence "... is not a ``kind``".

    Returns
    -------
    ValueError
        To be raised by the caller.
    """
    known = sorted(known)
    near = difflib.get_close_matches(str(value), known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return ValueError(f"{argument}={value!r} is not a {kind}{hint} Known: {', '.join(known)}.")
