"""The page: one HTML file with its style, its scripts and all data, which asks nothing of any network."""

from __future__ import annotations

import base64
import hashlib
from importlib import import_module, resources

from ...errors import MissingDependencyError
from .._opening import version
from .audit import audit_brackets, audit_certificates
from .cells import Cells
from .curves import make_charts
from .markup import Html, count_of, element, escaped, joined, script_json
from .record import failure_section, packed_csv, provenance_section, table_section, timing_section
from .sections import audit_section, bracket_section, certificate_section, summary_section
from .timing import timing_of


def page_of(cells: Cells) -> str:
    """The whole page.

    Raises
    ------
    MissingDependencyError
        If Plotly is not installed.
    """
    plotly = _plotly()
    audit, certificates, charts = audit_brackets(cells), audit_certificates(cells), make_charts(cells)
    bracket, figures = bracket_section(charts)
    audited, more = audit_section(cells, audit, certificates)
    figures += more
    certified, more = certificate_section(cells, certificates, charts)
    figures += more
    timed, more = timing_section(cells, timing_of(cells))
    figures += more
    content = cells.table()
    sections = [
        ("thresholds", "λ* along the axes", bracket),
        ("audit", "Audit of the brackets", audited),
        ("certificates", "Certificates", certified),
        ("time", "Time", timed),
        ("failures", "Cells without a result, and cells cut short", failure_section(cells)),
        ("provenance", "Provenance", provenance_section(cells)),
        ("table", "Table", table_section(cells, content)),
    ]
    data = {
        "csv": f"{cells.path.stem}.csv",
        "figures": [{"ident": one.ident, "panels": one.panels, "scales": list(one.scales)} for one in figures],
    }
    body = element(
        "main",
        element("h1", cells.name),
        element(
            "p",
            f"{count_of(cells.size, 'cell')} of the store ",
            element("code", cells.path.name),
            ". λ* is the smallest penalty strength that makes the training objective convex on the region; every cell "
            "brackets it from below by a witness and from above by a certificate.",
            class_="soft",
        ),
        element("nav", *(element("a", title, href=f"#{ident}") for ident, title, _ in sections)),
        summary_section(cells, audit),
        *(joined([element("h2", title, id=ident), part]) for ident, title, part in sections),
        element("p", f"Made by pyhess {version()}, figures by Plotly. The page needs no network.", class_="soft"),
    )
    scripts = [plotly, _resource("page.js")]
    return _document(cells.name, body, script_json(data), packed_csv(content), scripts)


def _document(title: str, body: Html, data: Html, packed: Html, scripts: list[str]) -> str:
    # Only the two scripts below may run, whatever a name may have smuggled in; and nothing may be loaded from anywhere.
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in scripts)
    policy = f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'"
    head = joined(
        [
            Html('<meta charset="utf-8">'),
            Html(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
            Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
            element("title", title),
            Html(f"<style>{_resource('page.css')}</style>"),
        ]
    )
    tail = joined(
        [
            Html(f'<script type="application/json" id="report-data">{data}</script>\n'),
            Html(f'<script type="text/plain" id="report-table">{packed}</script>\n'),
            *(Html(f"<script>{text}</script>\n") for text in scripts),
        ]
    )
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>{head}</head>\n<body>\n{escaped(body)}\n{tail}</body>\n</html>\n'


def _plotly() -> str:
    try:
        text = import_module("plotly.offline").get_plotlyjs()
    except ImportError:
        raise MissingDependencyError("the report needs plotly, which is not installed; pip install 'pyhess[report]'.") from None
    return _newlines(str(text))


def _resource(name: str) -> str:
    return _newlines(resources.files(__package__).joinpath(name).read_text(encoding="utf-8"))


def _newlines(text: str) -> str:
    """As a browser reads them before it computes a hash."""
    return text.replace("\r\n", "\n").replace("\r", "\n")
