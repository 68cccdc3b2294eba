"""What all drawings share: colours, the styles of references, interval bars, and saving a figure."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from causal_lm_router.data.arrays import Floats
from causal_lm_router.evaluation.formatting import REFERENCE_NAMES, shorten_names
from causal_lm_router.evaluation.intervals import Estimate
from causal_lm_router.files.writing import write_bytes

Colour = tuple[float, float, float, float]
BLUE, ORANGE, GREY, LIGHT_GREY = "#2166ac", "#d95f02", "#555555", "#cccccc"
USD = 1000
"""Costs are drawn in USD per this many queries."""
MAX_COLOURS = 8
"""More lines than these cannot be told apart by colour."""


class ReferenceStyle(NamedTuple):
    """How a reference looks in every drawing."""

    label: str
    marker: str
    line: str | tuple[int, tuple[int, ...]]
    """Line style of matplotlib: a name, or offset and lengths of dashes and gaps."""


_STYLES: dict[str, tuple[str, str | tuple[int, tuple[int, ...]]]] = {
    "random": ("v", "-."),
    "best_single": ("D", ":"),
    "per_task_best": ("P", (0, (1, 1))),
    "same_cost_mixture": ("X", (0, (3, 2, 1, 2))),
    "oracle": ("^", "--"),
    "bayes": ("s", (0, (5, 1, 1, 1, 1, 1))),
}


def reference_style(name: str) -> ReferenceStyle:
    """Return the style of the reference whose key `name` begins with; words after the key stay in the label."""
    key, space, rest = name.partition(" ")
    return ReferenceStyle(plain_label(f"{REFERENCE_NAMES[key]}{space}{shorten_names([rest])[0]}"), *_STYLES[key])


def plain_label(text: str) -> str:
    """Return the text for a legend, where a dollar sign would begin a formula and a leading `_` hide the entry."""
    return f" {text}".replace("$", r"\$") if text.startswith("_") else text.replace("$", r"\$")


def line_colours(number: int) -> list[Colour]:
    """Return as many colours, dark to light, that also differ in a black-and-white print."""
    # The yellow end of the colour map is too light on white.
    return [colormaps["viridis"](position) for position in np.linspace(0, 0.88, number)]


def bar_lengths(estimates: Sequence[Estimate], scale: float = 1) -> Floats:
    """Return how far the intervals reach below and above the estimates, shape (2, estimates); 0 without an interval.

    This is what matplotlib's `errorbar` takes.
    """
    lengths = np.zeros((2, len(estimates)))
    for column, estimate in enumerate(estimates):
        if estimate.low is not None and estimate.high is not None:
            # An interval cut at the possible values may end a rounding error short of its estimate.
            lengths[:, column] = estimate.value - estimate.low, estimate.high - estimate.value
    return scale * np.maximum(0.0, lengths)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG or PDF, by the ending of `path`: the whole file or none. Equal figures are equal files."""
    content = io.BytesIO()
    # A PDF otherwise holds the date.
    metadata = {"CreationDate": None} if path.suffix == ".pdf" else None
    with warnings.catch_warnings():
        # Characters that the font lacks are drawn as boxes: no reason to fail, or to warn on the terminal.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        # "tight" makes room for what lies outside the figure's edges.
        figure.savefig(content, format=path.suffix[1:], dpi=150, bbox_inches="tight", metadata=metadata)
    write_bytes(path, content.getvalue())
