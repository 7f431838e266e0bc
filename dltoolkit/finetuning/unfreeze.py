"""The value of ``--unfreeze``: which layers of the backbone are trained."""

from __future__ import annotations

from dltoolkit.errors import UserError


def parse(unfreeze: str) -> float | None:
    """Return the fraction of the backbone's layers that is trained; None for all of them, embeddings included.

    Raises:
        UserError: If it is neither a fraction nor ``all``.
    """
    if unfreeze == "all":
        return None
    try:
        fraction = float(unfreeze)
    except ValueError:
        fraction = -1.0
    if not 0 <= fraction <= 1:
        raise UserError(f"--unfreeze must be a number from 0 to 1, or all, not '{unfreeze}'.")
    return fraction
