"""The report's notebook in a real JupyterLab, in a real browser."""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from conftest import ROOT

pytestmark = pytest.mark.needs("chromium")


@pytest.fixture
def address(demo: Path, tmp_path: Path) -> Iterator[str]:
    """Where JupyterLab is, as ``./run_all.sh lab`` prints it."""
    environment = {**os.environ, "RVQPROBE_RESULTS": str(demo / "results"), "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "rvqprobe", "lab", "--no-browser", "--allow-root"]
    log, found = tmp_path / "lab.log", None
    with (
        log.open("w") as file,
        subprocess.Popen(command, env=environment, stderr=file, start_new_session=True) as server,
    ):
        for _ in range(600):
            if server.poll() is not None or (found := re.search(r"http://127\.0\.0\.1:\S+token=\w+", log.read_text())):
                break
            time.sleep(0.1)
        assert found, log.read_text()
        yield found[0]
        os.killpg(server.pid, signal.SIGTERM)


def test_04_report_runs_in_jupyterlab(address: str, browser: Browser) -> None:
    host, token = re.fullmatch(
        r"(http://127\.0\.0\.1:\d+)/lab/tree/notebooks/01_split\.ipynb\?(token=\w{20,})", address
    ).groups()
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{host}/api/contents/notebooks")
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.route(
        "**/api/contents/**", lambda route: route.abort() if route.request.method == "PUT" else route.continue_()
    )
    elsewhere: list[str] = []
    page.on(
        "request",
        lambda request: elsewhere.append(request.url) if not re.match(rf"{host}|data:|blob:", request.url) else None,
    )
    page.goto(f"{host}/lab/tree/notebooks/04_report.ipynb?{token}")
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for(timeout=60_000)
    page.get_by_text("rvqprobe", exact=True).first.wait_for(timeout=60_000)  # the kernel, found without asking
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    page.locator(".jp-InputPrompt", has_text="[15]:").wait_for(timeout=120_000)
    page.wait_for_function("document.querySelectorAll('.jp-OutputArea .js-plotly-plot .main-svg').length >= 11 * 2")
    assert page.locator(".jp-OutputArea .js-plotly-plot").count() == 11
    assert (
        page.locator(
            ".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr'], .jp-OutputArea-output pre .ansi-red-fg"
        ).count()
        == 0
    )
    assert "A linear probe reads" in " ".join(page.locator(".jp-OutputArea").all_text_contents()) and elsewhere == []
    page.close()
    assert '"outputs": []' in (ROOT / "notebooks" / "04_report.ipynb").read_text()
