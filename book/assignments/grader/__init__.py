"""Student versions, sandboxed grading and feedback for the book's assignments.

A submission runs in a *worker* inside a sandbox; the *judge* outside draws the cases from the course's secret, knows what is
right, and compares. Nothing that is graded against ever enters the sandbox.
"""

from grader.errors import GraderError
from grader.secret import PUBLIC, Secret

__all__ = ["GraderError", "PUBLIC", "Secret"]
