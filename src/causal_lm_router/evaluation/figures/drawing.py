"""Drawings of a run: the confusion of labels and routes, and the learning curve; each a PNG that appears whole."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from causal_lm_router.files import write_bytes

BLUE, ORANGE, GREY = "#2166ac", "#d95f02", "#555555"


def shorten_names(names: Sequence[str], max_chars: int = 32) -> list[str]:
    """Return the names with the middle of longer ones left out, or the names as they are where that made two alike."""
    head, tail = (max_chars - 1) // 2, max_chars // 2
    shortened = [name if len(name) <= max_chars else f"{name[:head]}…{name[-tail:]}" for name in names]
    return shortened if len(set(shortened)) == len(names) else list(names)


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all, with room for what hangs over its edges."""
    content = io.BytesIO()
    with warnings.catch_warnings():
        # Characters the font lacks are drawn as boxes: no reason to fail, or to write to the terminal, over a drawing.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(content, format="png", dpi=120, bbox_inches="tight")
    write_bytes(path, content.getvalue())


def plain_label(text: str) -> str:
    """Return the text so that a legend shows it as it is: a dollar sign would begin a formula, `_` hide the entry."""
    return f" {text}".replace("$", r"\$") if text.startswith("_") else text.replace("$", r"\$")
