"""The parts of pages: one base template and style sheet, embedded pictures, tables and verdicts."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsr import __version__
from dsr.files import whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 140
TYPES = {"png": "image/png", "svg": "image/svg+xml"}


@dataclass(frozen=True)
class Picture:
    """An image; its caption is also its alternative text."""

    source: str  # a data URL
    caption: str
    width: int | None = None  # in CSS pixels; None: the image's own
    links: Sequence[str] = ()  # files beside the page, named after the caption


@dataclass(frozen=True)
class Verdict:
    """A line with the verdict on one variable."""

    name: str
    text: str
    kind: str  # a class of the style sheet: "wins", "close", "loses", "fits", "doubt"


@dataclass(frozen=True)
class Cell:
    """A cell of a table with a class of the style sheet, and a note in small print below the text."""

    text: str
    kind: str = ""
    note: str = ""


@dataclass(frozen=True)
class Row:
    """A line of a table; its first cell is its heading."""

    cells: Sequence[str | Cell]
    kind: str = ""  # a class of the style sheet


@dataclass(frozen=True)
class Table:
    """A table with its caption; `kind` is a class of the style sheet."""

    head: Sequence[str | Cell]
    rows: Sequence[Row]
    caption: str = ""
    kind: str = ""


def write(file: Path, template: str, **content: Any) -> Path:
    """Fill a template of this folder and write the page, whole or not at all; returns `file`.

    All content is plain text, never markup. Every template needs `title` (of the page) and `facts` (lines below it).
    """
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined,
                                     trim_blocks=True, lstrip_blocks=True)  # fmt: skip
    page = environment.get_template(template).render(**content, version=__version__)
    with whole_file(file) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return file


def picture(figure: Figure, caption: str) -> Picture:
    """A figure embedded in the page as PNG, 100 CSS pixels per inch."""
    return Picture(_url("png", _image(figure, "png")), caption, round(100 * figure.get_figwidth()))


def saved_picture(figure: Figure | None, file: Path, caption: str, links: Sequence[str] = ()) -> Picture | None:
    """A figure embedded in the page and saved as `file`, PNG or SVG by its suffix.

    Without a figure, returns None and deletes the file of an earlier page.
    """
    if figure is None:
        file.unlink(missing_ok=True)
        return None
    kind = file.suffix[1:]
    image = _image(figure, kind)
    with whole_file(file) as temporary:
        temporary.write_bytes(image)
    return Picture(_url(kind, image), caption, round(100 * figure.get_figwidth()), links)


def file_picture(file: Path, caption: str) -> Picture | None:
    """An image file embedded in the page; None if there is no such file."""
    return Picture(_url(file.suffix[1:], file.read_bytes()), caption) if file.exists() else None


def _image(figure: Figure, kind: str) -> bytes:
    file = io.BytesIO()
    if layout := figure.get_layout_engine():
        figure.dpi = DPI
        layout.execute(figure)
        figure.set_layout_engine("none")  # otherwise savefig draws the figure twice
    figure.savefig(file, format=kind, dpi=DPI, metadata={"Date": None} if kind == "svg" else None)
    return file.getvalue()


def _url(kind: str, image: bytes) -> str:
    return f"data:{TYPES[kind]};base64,{base64.b64encode(image).decode()}"
