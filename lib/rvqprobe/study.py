"""Runs a study: its notebooks through papermill, one after another, each with its log and HTML."""

import io
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TextIO

import papermill
from traitlets.config import Config

from rvqprobe import codecs, corpus, findings, params
from rvqprobe.params import NOTEBOOKS, ROOT

KERNEL = "rvqprobe"
LOG_SECONDS = 10.0
"""A progress bar leaves at most one line in so many seconds in a log."""


class StageFailed(RuntimeError):
    """A notebook stopped with an error; the message names it, its log and the command to go on."""


class Log:
    """Takes a notebook's output: as it is to a terminal, in whole lines to a log file (and to what is no terminal)."""

    def __init__(self, file: TextIO, terminal: TextIO) -> None:
        self.file, self.terminal = file, terminal
        self.line, self.kept = "", 0.0

    def write(self, text: str) -> None:
        """Take a piece of output; a line that a carriage return overwrites is kept every ``LOG_SECONDS``."""
        if self.terminal.isatty():
            self.terminal.write(text)
        for character in text:
            if character == "\n" or (character == "\r" and self.line and time.monotonic() - self.kept > LOG_SECONDS):
                self.say(self.line)
            if character in "\r\n":
                self.line = ""
            else:
                self.line += character

    def say(self, line: str) -> None:
        """Write one whole line."""
        self.kept = time.monotonic()
        for file in [self.file] if self.terminal.isatty() else [self.file, self.terminal]:
            print(line, file=file, flush=True)

    def flush(self) -> None:
        """Flush the terminal."""
        self.terminal.flush()


def stages(study: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """Return the (notebook, codec) of a study in their order; those of a ``shard`` end with the encoding."""
    split, encode, probe, summary = NOTEBOOKS
    if params.part(study["shard"]) != (1, 1):
        return [(split, None), *((encode, codec) for codec in study["codecs"])]
    per_codec = [stage for codec in study["codecs"] for stage in ((encode, codec), (probe, codec))]
    return [(split, None), *per_codec, *([(summary, None)] if study["evaluate"] else [])]


def check_inputs(study: Mapping[str, Any]) -> None:
    """Raise, before anything starts, ParameterError for an unknown codec or MissingInput for missing data."""
    for codec in study["codecs"]:
        codecs.require(codec, params.path(study["checkpoints_dir"]))
    corpus.require(params.path(study["corpus_dir"]), params.path(study["alignments_dir"]), study["subset"])


def run(study: Mapping[str, Any], reports_dir: Path, again: str) -> Path:
    """Run all notebooks of ``study`` and return the index of the report in ``reports_dir/<study>/``.

    ``again`` is the command that goes on after a failure. Raises StageFailed at the first notebook that fails.
    """
    check_inputs(study)
    folder, title = reports_dir / study["study"], study["title"]
    pages: list[Future[Path]] = []
    with ThreadPoolExecutor(1) as aside:  # a codec is probed while the next one encodes
        for notebook, codec in stages(study):
            for page in pages:
                if page.done() or notebook == NOTEBOOKS[3]:
                    page.result()  # raises what went wrong aside
            stage = (notebook, codec, study, folder, again)
            if notebook == NOTEBOOKS[2]:
                pages.append(aside.submit(lambda stage: _export(execute(*stage, quiet=True), title), stage))
            else:
                pages.append(aside.submit(_export, execute(*stage), title))
    from rvqprobe import report

    return report.write_index(folder, title, findings.caution(study["codecs"]), [page.result() for page in pages[::-1]])


def _export(notebook: Path, title: str) -> Path:
    from rvqprobe import report  # two seconds of imports that the first notebook need not wait for

    return report.to_html(notebook, f"{title}: {notebook.stem}")


def execute(
    notebook: str, codec: str | None, study: Mapping[str, Any], folder: Path, again: str, quiet: bool = False
) -> Path:
    """Run one notebook into ``folder`` and return it, executed; StageFailed where it ends with an error.

    Its output goes to a log beside it and, unless ``quiet``, to the terminal.
    """
    name = notebook if codec is None else f"{notebook}-{params.codec_name(codec)}"
    if params.part(study["shard"]) != (1, 1):
        name += "-" + study["shard"].replace(" ", "-")  # each part has its own
    values = {**study, **({} if codec is None else {"codec": codec})}
    output, log = folder / f"{name}.ipynb", folder / "logs" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with log.open("w") as file, tempfile.TemporaryDirectory() as sockets:
        console = Log(file, io.StringIO() if quiet else sys.stdout)
        console.say(f"── {name}")
        try:
            papermill.execute_notebook(
                ROOT / "notebooks" / f"{notebook}.ipynb", output, kernel_name=KERNEL, cwd=str(ROOT), progress_bar=False,
                parameters={p.name: values[p.name] for p in params.of(notebook)}, stdout_file=console, stderr_file=console,
                config=Config({"KernelManager": {"transport": "ipc", "ip": f"{sockets}/kernel"}}),
            )  # fmt: skip
        except Exception as error:  # of the notebook, or the death of its kernel
            console.say(str(error))
            raise StageFailed(
                f"{notebook} failed ({getattr(error, 'ename', type(error).__name__)}): see the notebook {output} and its log {log}; to go on: {again}"
            ) from error
        console.say(took := f"   {name}: {time.monotonic() - started:.1f} s")
        if quiet:
            print(took)
    return output
