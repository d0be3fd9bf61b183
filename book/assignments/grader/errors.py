"""What can go wrong that is not a student's answer."""

__all__ = ["GraderError", "NoSandbox"]


class GraderError(Exception):
    """The command cannot go on; the message says what to do. Shown without a traceback."""


class NoSandbox(GraderError):
    """Strangers' code was to be run and nothing here can contain it."""
