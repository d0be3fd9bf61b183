"""The assignments: what is asked, which cases are drawn, what is compared, which idea is missing when it fails."""

from functools import lru_cache

from grader.tasks import a1, a2, a3, a4, a5
from grader.tasks.base import Check, Item

__all__ = ["ASSIGNMENTS", "Check", "Item", "course", "items"]

ASSIGNMENTS = {"1": a1, "2": a2, "3": a3, "4": a4, "5": a5}


@lru_cache(maxsize=64)
def course(assignment, secret):
    """The numbers of a course for one assignment: what stands in the student version, by name."""
    return ASSIGNMENTS[assignment].draw(secret.rng(assignment, "course"))


def items(assignment):
    """The graded items of an assignment, in the notebook's order."""
    return ASSIGNMENTS[assignment].ITEMS
