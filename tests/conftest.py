"""What tests share: real speech where it is, small made-up corpora, and skips that CI does not take for passes."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).parents[1]
MINI = Path(os.environ.get("RVQPROBE_DATA") or ROOT / "../shared/data").resolve() / "librispeech-mini"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MISSING = {
    "data": None if MINI.is_dir() else f"{MINI} is missing (set RVQPROBE_DATA)",
    "voices": None
    if shutil.which("flite") and shutil.which("espeak-ng") and shutil.which("festival")
    else "no flite, espeak-ng, festival",
    "slurm": None
    if os.getuid() == 0 and all(map(shutil.which, ("munged", "slurmctld", "slurmd", "sbatch")))
    else "no Slurm on this machine, or not its root",
    "chromium": None if CHROMIUM else "no Chromium on this machine",
}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*what): skipped where what is missing, unless RVQPROBE_REQUIRE names it")


def pytest_runtest_setup(item: pytest.Item) -> None:
    required = os.environ.get("RVQPROBE_REQUIRE", "").split()
    for what in (what for mark in item.iter_markers("needs") for what in mark.args):
        if MISSING[what] and what in required:
            pytest.fail(f"RVQPROBE_REQUIRE names {what}, but {MISSING[what]}")
        if MISSING[what]:
            pytest.skip(MISSING[what])


TEXTGRID = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = {end}
tiers? <exists>
size = 1
item []:
    item [1]:
        class = "IntervalTier"
        name = "{tier}"
        xmin = 0
        xmax = {end}
        intervals: size = {size}
{intervals}
"""


def write_textgrid(path: Path, intervals: list[tuple[str, float, float]], tier: str = "phones") -> None:
    """Write (label, start, end) as a long-format TextGrid."""
    text = "\n".join(
        f'        intervals [{i}]:\n            xmin = {a}\n            xmax = {b}\n            text = "{label}"'
        for i, (label, a, b) in enumerate(intervals, 1)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(TEXTGRID.format(end=intervals[-1][2], tier=tier, size=len(intervals), intervals=text))


@pytest.fixture
def corpus_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A corpus of tones, in shards of 9 s: 3 speakers, 12 utterances each of 1 s, phones AA1, S and silence; alignments beside it."""
    monkeypatch.setattr("rvqprobe.encoding.SHARD_SECONDS", 9.0)
    monkeypatch.setattr("rvqprobe.encoding.FEWEST_SHARDS", 1)
    rng = np.random.default_rng(0)
    for s, speaker in enumerate(("10", "20", "30")):
        for number in range(12):
            name = f"{speaker}-{speaker}5-{number:04d}"
            place = Path("tiny") / speaker / f"{speaker}5"
            time = np.arange(16000) / 16000
            tone = np.where(time < 0.5, 0.3 * np.sign(np.sin(2 * np.pi * (100 + 60 * s) * time)), 0)
            sound = tone + rng.normal(size=16000) * np.where((time > 0.5) & (time < 0.75), 0.1, 0.001)
            (tmp_path / "audio" / place).mkdir(parents=True, exist_ok=True)
            soundfile.write(tmp_path / "audio" / place / f"{name}.flac", sound, 16000)
            write_textgrid(
                tmp_path / "grids" / place / f"{name}.TextGrid", [("AA1", 0, 0.5), ("S", 0.5, 0.75), ("", 0.75, 1.0)]
            )
    return tmp_path


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the demo study ran as ``./run_all.sh`` runs it: ``results/demo`` and ``demo``, its report."""
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "rvqprobe", "demo", "--reports", str(folder)]
    environment = {**os.environ, "RVQPROBE_RESULTS": str(folder / "results")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == f"Report: {folder}/demo/index.html"
    return folder


HEADLESS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=HEADLESS)
