"""Common parts of the figures of all reports: colours, an empty figure, axes, ticks and a legend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The palette of Okabe and Ito, which can be distinguished with colour vision deficiency.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#444444")
REFERENCE = "#777777"  # dashed reference lines


def empty_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches, without a window or global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    empty = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(empty)
    return empty


def dress(ax: Any, x: str, y: str, title: str, size: int = 10) -> None:
    """Set labels, title and a light grid; `size` of the labels in points."""
    ax.set_xlabel(x, fontsize=size)
    ax.set_ylabel(y, fontsize=size)
    ax.set_title(title, fontsize=size + 1, loc="left")
    ax.tick_params(labelsize=size - 1)
    ax.grid(True, which="major", color="#dddddd", linewidth=0.7)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def plain_ticks(axis: Any) -> None:
    """20, 50, 100 rather than powers of ten on a logarithmic axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def one_legend(fig: Figure, axes: Any) -> None:
    """One legend at the right for all axes, each label once."""
    entries = {text: line for ax in axes for line, text in zip(*ax.get_legend_handles_labels(), strict=True)}
    fig.legend(list(entries.values()), list(entries), loc="outside right upper", fontsize=9, frameon=False)
