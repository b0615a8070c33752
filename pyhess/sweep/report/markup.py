"""HTML from values; everything that is not our own text passes through here."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def escaped(value: object) -> Html:
    """A value as text of an element or of a quoted attribute; HTML stays as it is."""
    return value if isinstance(value, Html) else Html(html.escape(str(value), quote=True))


def joined(parts: Iterable[object]) -> Html:
    """Escaped parts, one after the other."""
    return Html("".join(escaped(part) for part in parts))


def element(name: str, *children: object, **attributes: object) -> Html:
    """An element with escaped children and attributes; ``class_`` is class, ``data_x`` is data-x.

    Examples
    --------
    >>> from pyhess.sweep.report.markup import element
    >>> element("p", "a < b", class_="note")
    '<p class="note">a &lt; b</p>'
    """
    given = "".join(f' {key.rstrip("_").replace("_", "-")}="{escaped(value)}"' for key, value in attributes.items())
    return Html(f"<{name}{given}>{joined(children)}</{name}>")


def table(head: Sequence[object], rows: Iterable[Sequence[object]], *, numbers: Iterable[int] = ()) -> Html:
    """A table; ``numbers`` are the columns that are set flush right."""
    right = set(numbers)

    def row(cell: str, values: Sequence[object]) -> Html:
        made = (element(cell, value, **({"class_": "number"} if i in right else {})) for i, value in enumerate(values))
        return element("tr", *made)

    body = [row("td", values) for values in rows]
    return element(
        "div", element("table", element("thead", row("th", head)), element("tbody", *body)), class_="scroll", tabindex="0"
    )


def details(summary: object, *children: object) -> Html:
    """A part that is folded until it is asked for."""
    return element("details", element("summary", summary), *children)


def number(value: float | int | None, digits: int = 4) -> str:
    """A number for people: "∞", and "–" where there is none."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.{digits}g}"


def count_of(count: int, one: str, many: str | None = None) -> str:
    """A number and its noun: "1 cell", "2,000 cells"."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def script_json(value: Any) -> Html:
    """JSON for a script element: no text in it can end the element or begin a comment; no NaN."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=True)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Html(text)


def plot_text(value: object) -> str:
    """Text for Plotly, which takes some tags and entities in texts for markup."""
    return str(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
