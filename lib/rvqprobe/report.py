"""HTML: an executed notebook as one page that needs no network, and its figures as files."""

import asyncio
import base64
import copy
import hashlib
import html
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import kaleido
import plotly.offline
from latex2mathml.converter import convert as mathml
from nbconvert import HTMLExporter
from nbconvert.preprocessors import CoalesceStreamsPreprocessor
from pygments.formatters import HtmlFormatter

from rvqprobe.look import MIME
from rvqprobe.store import atomic

PAGE = Path(__file__).parent / "page"
"""The template of a page: its markup, style and script."""
WIDTH, SCALE = 1000, 2
"""Of a figure's file: width in pixels, and how many times finer a PNG is than that."""


def figures(notebook: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each figure of an executed notebook: its name, made from its title, and its output's data by MIME type."""
    seen: list[str] = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if MIME in output.get("data", {}):
                title = output["data"][MIME]["layout"]["title"]["text"]
                name = re.sub(r"\W+", "-", title.lower()).strip("-")
                seen.append(name)
                yield (name if seen.count(name) == 1 else f"{name}-{seen.count(name)}"), output["data"]


def to_html(notebook: Any, path: Path, title: str, pages: Sequence[str] = ()) -> Path:
    """Write an executed ``notebook`` to ``path`` as one HTML file that opens without a network; return the path.

    ``pages`` are the names of pages beside it that its head links to.
    """
    nb, _ = CoalesceStreamsPreprocessor().preprocess(copy.deepcopy(notebook), {})
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            cell.source = _formulas(cell.source)
    drawn = list(figures(nb))
    for name, data in drawn:
        data["text/html"] = _plot(name, data.pop(MIME))
    plotly_js = plotly.offline.get_plotlyjs() if drawn else ""
    script = (PAGE / "page.js").read_text().rstrip("\n")
    resources = {
        "title": title,
        "pages": pages,
        "sections": list(_sections(nb)),
        "has_code": any(cell.cell_type == "code" for cell in nb.cells),
        "plotly": plotly_js,
        "script": script,
        "policy": policy(*filter(None, [plotly_js, script])),
        "highlighting": HtmlFormatter(nobackground=True).get_style_defs(".highlight"),
    }
    exporter = HTMLExporter(template_name=PAGE.name, extra_template_basedirs=[str(PAGE.parent)])
    body, _ = exporter.from_notebook_node(nb, resources)
    with atomic(path) as temporary:
        temporary.write_text(body)
    return path


def policy(*scripts: str) -> str:
    """Return a Content-Security-Policy under which a page runs these ``scripts`` and no other, and fetches nothing."""
    digests = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    return f"default-src 'none'; script-src {digests}; style-src 'unsafe-inline'; img-src data: blob:; media-src data:"


def _formulas(markdown: str) -> str:
    """Return Markdown with its LaTeX formulas as MathML, which browsers set by themselves."""
    markdown = re.sub(r"\$\$(.+?)\$\$", lambda m: mathml(m[1], display="block"), markdown, flags=re.S)
    return re.sub(r"\$([^$\n]+)\$", lambda m: mathml(m[1]), markdown)


def _sections(notebook: Any) -> Iterator[tuple[str, str]]:
    """Yield the anchor and title of each section of a notebook, as nbconvert makes them."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for title in re.findall(r"^## (.+)$", cell.source, re.M):
                yield title.replace(" ", "-"), title


def _plot(name: str, figure: dict[str, Any]) -> str:
    """Return a figure as HTML: what page.js draws, what a screen reader says, and buttons that save it."""
    title, words = (html.escape(figure["layout"][key][of]) for key, of in (("title", "text"), ("meta", "words")))
    content = json.dumps({key: figure[key] for key in ("data", "layout")}).replace("</", "<\\/")
    buttons = "".join(
        f"<button type='button' data-format='{kind}' aria-label='{kind.upper()} of the figure {title}'>{kind.upper()}</button>"
        for kind in ("csv", "png", "svg")
    )
    return (
        f"<figure class='plot' data-name='{name}'><div class='canvas' role='img' aria-label='{title}' "
        f"aria-describedby='{name}-words' style='height:{figure['layout']['height']}px'></div>"
        f"<div class='controls'><details><summary>In words</summary><p id='{name}-words'>{words}</p></details>{buttons}</div>"
        f"<script type='application/json'>{content}</script></figure>"
    )


def save_figures(notebook: Any, folder: Path) -> str:
    """Save each figure of an executed ``notebook`` in ``folder`` as PNG and SVG; return a line that says what came of it."""
    try:
        drawn = list(figures(notebook))
        asyncio.run(_save(drawn, folder))
    except Exception as error:  # whatever keeps a browser from starting or working: the report itself is there
        return (
            f"No figure files in {folder}, since no Chrome or Chromium would draw them ({type(error).__name__}): install one, or "
            "name it (BROWSER_PATH=/path/to/chrome), and run the same command again; the report's own buttons save figures too."
        )
    return f"{len(drawn)} figures as PNG and SVG in {folder}"


async def _save(drawn: Iterable[tuple[str, dict[str, Any]]], folder: Path) -> None:
    async with kaleido.Kaleido(mathjax=False) as browser:
        for name, data in drawn:
            for kind, scale in (("svg", 1), ("png", SCALE)):
                options = {"format": kind, "width": WIDTH, "height": data[MIME]["layout"]["height"], "scale": scale}
                content = await browser.calc_fig(data[MIME], opts=options)
                with atomic(folder / f"{name}.{kind}") as temporary:
                    temporary.write_bytes(content)
