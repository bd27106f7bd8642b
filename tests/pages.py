"""What holds for every page: it is well-formed HTML that needs no other file and no network."""

import re
from html.parser import HTMLParser
from pathlib import Path

VOID = ("meta", "img", "br")


class _Parser(HTMLParser):
    """Follows the elements of a page, and collects its text without style sheets."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing that is open"
        if tag in ("td", "th", "caption", "small"):
            self.text += " "

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


def read_page(file: Path, beside: tuple[str, ...] = ()) -> str:
    """The page's text, after checks of its structure; `beside`: suffixes of files that it may link to."""
    source = file.read_text(encoding="utf-8")
    parser = _Parser()
    parser.feed(source)
    parser.close()
    assert parser.open == [] and source.startswith("<!DOCTYPE html>")
    tags = [tag for tag, _ in parser.elements]
    assert [tags.count(tag) for tag in ("html", "title", "h1", "main", "header", "footer")] == [1] * 6
    assert not {"script", "iframe", "object", "link"} & set(tags) and not re.search(r"url\(|@import", source)
    for tag, attributes in parser.elements:
        if tag == "img":
            assert attributes["alt"], "every picture has an alternative text"
            assert (attributes["src"] or "").startswith("data:image/")
        if tag == "a":
            link = attributes["href"] or ""
            assert ":" not in link and link.endswith(beside)
    return re.sub(r"\s+", " ", parser.text)
