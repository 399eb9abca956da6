"""Names: which known one is meant by one that is not known, and what a person calls a model."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(name: object, known: Iterable[str], most: int = 1, *, likeness: float = 0.5) -> list[str]:
    """Returns the known names that are most like ``name``, the best first; case, ``-`` and ``_`` make no difference.

    Args:
        name: What was written.
        known: The names that there are.
        most: Names returned at most.
        likeness: How like ``name`` each is at least, 0 to 1.
    """
    # imported when it is needed: hardly any run meets a wrong name
    from difflib import get_close_matches

    names = {_plain(one): one for one in known}
    return [names[found] for found in get_close_matches(_plain(name), names, most, likeness)]


def did_you_mean(name: object, known: Iterable[str], otherwise: str = "", most: int = 1) -> str:
    """Returns "did you mean 'NAME'?" with the nearest of the known names; ``otherwise`` where none is near."""
    near = nearest(name, known, most)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else otherwise


def served_name(filed: str) -> str:
    """Returns what a person calls a model: the served name, without ``vacc/`` (or EvalScope's ``eval/``) of its results."""
    organisation, _, name = filed.partition("/")
    return name if name and organisation.casefold() in {"vacc", "eval"} else filed


def _plain(name: object) -> str:
    return str(name).casefold().replace("-", "_")
