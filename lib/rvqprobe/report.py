"""HTML: an executed notebook as one file that needs no network, and the page that links them."""

import html
import json
from itertools import count
from pathlib import Path
from typing import Any

import nbformat
import plotly.offline
from nbconvert import HTMLExporter
from nbconvert.filters import markdown2html
from nbconvert.preprocessors import CoalesceStreamsPreprocessor, Preprocessor

from rvqprobe.figures import MIME
from rvqprobe.store import atomic

POLICY = "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:"
STYLE = """
body { max-width: 62rem; margin: 0 auto; padding: 0 1rem; }
@media print { .jp-InputArea { display: none } .jp-OutputArea-child, .js-plotly-plot { break-inside: avoid } }
"""


class Readable(Preprocessor):
    """Turns Plotly's notebook output into HTML that the one embedded plotly.js draws; keeps a bar's last state only."""

    def preprocess(self, nb: Any, resources: Any) -> tuple[Any, Any]:
        """Replace every figure output and overwritten line of the notebook."""
        number = count(1)
        nb, resources = CoalesceStreamsPreprocessor().preprocess(nb, resources)
        outputs = [output for cell in nb.cells for output in cell.get("outputs", [])]
        for data in (output["data"] for output in outputs if MIME in output.get("data", {})):
            figure, name = data[MIME], f"figure-{next(number)}"
            content = json.dumps({key: figure[key] for key in ("data", "layout")}).replace("</", "<\\/")
            height = figure["layout"].get("height", 450)
            script = f"Plotly.newPlot('{name}', Object.assign({content}, {{config: {{responsive: true, displaylogo: false}}}}))"
            data.clear()
            data["text/html"] = f"<div id='{name}' style='height:{height}px'></div><script>{script}</script>"
        return nb, resources


def to_html(notebook: Path, title: str) -> Path:
    """Write the executed ``notebook`` beside itself as one HTML file that opens without a network; return its path."""
    urls = dict.fromkeys(("require_js_url", "mathjax_url", "jquery_url", "mermaid_js_url"), "")
    exporter = HTMLExporter(template_name="lab", **urls)
    exporter.register_preprocessor(Readable, enabled=True)
    body, _ = exporter.from_notebook_node(nbformat.read(notebook, as_version=4), {"metadata": {"name": title}})
    head = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><style>{STYLE}</style>'
    if MIME in notebook.read_text():
        head += f"<script>{plotly.offline.get_plotlyjs()}</script>"
    before, after = body.split("</head>", 1)
    path = notebook.with_suffix(".html")
    with atomic(path) as temporary:
        temporary.write_text(f"{before}{head}</head>{after}")
    return path


def write_index(folder: Path, title: str, caution: str, pages: list[Path]) -> Path:
    """Write ``folder/index.html``: ``caution`` (Markdown), then links to ``pages``; return its path."""
    links = "".join(f"<li><a href='{html.escape(path.name)}'>{html.escape(path.stem)}</a></li>" for path in pages)
    question = "How do phoneme identity, speaker identity and pitch spread over the RVQ layers of neural audio codecs?"
    with atomic(folder / "index.html") as temporary:
        temporary.write_text(
            f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{html.escape(title)}</title>"
            "<meta name='viewport' content='width=device-width'><style>body{font-family:system-ui,sans-serif;"
            "max-width:40rem;margin:2rem auto;padding:0 1rem;line-height:1.5}</style></head><body>"
            f"<h1>{html.escape(title)}</h1>{markdown2html(caution)}<p>{question}</p><p>Begin with the report; the notebooks before it show "
            f"how its numbers came about.</p><ul>{links}</ul></body></html>\n"
        )
    return folder / "index.html"
