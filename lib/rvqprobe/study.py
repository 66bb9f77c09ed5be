"""Runs a study: its notebooks through papermill, one after another, each with its log and HTML."""

import sys
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TextIO

import papermill
from traitlets.config import Config

from rvqprobe import codecs, corpus, findings, params, report
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
    """Return the (notebook, codec) of a study in the order in which they run."""
    split, encode, probe, summary = NOTEBOOKS
    return [
        (split, None),
        *((encode, codec) for codec in study["codecs"]),
        *((probe, codec) for codec in study["codecs"]),
        *([(summary, None)] if study["evaluate"] else []),
    ]


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
    folder = reports_dir / study["study"]
    pages: list[tuple[str, Future[Path]]] = []
    with ThreadPoolExecutor(1) as exporter:
        for notebook, codec in stages(study):
            executed = execute(notebook, codec, study, folder, again)
            pages.append(
                (executed.stem, exporter.submit(report.to_html, executed, f"{study['title']}: {executed.stem}"))
            )
    caution = findings.caution(study["codecs"])
    return report.write_index(folder, study["title"], caution, [(name, page.result()) for name, page in pages[::-1]])


def execute(notebook: str, codec: str | None, study: Mapping[str, Any], folder: Path, again: str) -> Path:
    """Run one notebook into ``folder`` and return it, executed; StageFailed where it ends with an error."""
    name = notebook if codec is None else f"{notebook}-{params.codec_name(codec)}"
    values = {**study, **({} if codec is None else {"codec": codec})}
    output, log = folder / f"{name}.ipynb", folder / "logs" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with log.open("w") as file:
        console = Log(file, sys.stdout)
        console.say(f"── {name}")
        try:
            papermill.execute_notebook(
                ROOT / "notebooks" / f"{notebook}.ipynb", output, kernel_name=KERNEL, cwd=str(ROOT), progress_bar=False,
                parameters={p.name: values[p.name] for p in params.of(notebook)}, stdout_file=console, stderr_file=console,
                config=Config({"KernelManager": {"transport": "ipc"}}),
            )  # fmt: skip
        except papermill.PapermillExecutionError as error:
            console.say(str(error))
            raise StageFailed(
                f"{notebook} failed ({error.ename}): see the notebook {output} and its log {log}; to go on: {again}"
            ) from error
        console.say(f"   {name}: {time.monotonic() - started:.1f} s")
    return output
