"""Runs a study: its notebooks through papermill, each with its log and its page."""

import re
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, TextIO

import nbformat
import papermill
from traitlets.config import Config

from rvqprobe import codecs, corpus, findings, params
from rvqprobe.params import NOTEBOOKS, ROOT, ParameterError
from rvqprobe.store import MissingInput

SPLIT, ENCODE, PROBE, REPORT = NOTEBOOKS
KERNEL = "rvqprobe"
SIDE_BY_SIDE = 2
"""Codecs that are encoded and probed at once: one's start, labels and probes fill what another's encoding leaves idle
(the demo on two cores: 101 s and not 119)."""
LOG_SECONDS = 10.0
"""A progress bar leaves at most one line in so many seconds."""


class StageFailed(RuntimeError):
    """A notebook stopped with an error; the message names it, its log and the command to go on."""


class Log:
    """Takes a notebook's output in whole lines: into its log, and after its name to standard output."""

    def __init__(self, file: TextIO, name: str) -> None:
        self.file, self.name = file, name
        self.line, self.kept = "", 0.0

    def write(self, text: str) -> None:
        """Take a piece of output; a line that a carriage return overwrites is kept every ``LOG_SECONDS``."""
        for character in text:
            if character == "\n" or (character == "\r" and self.line and time.monotonic() - self.kept > LOG_SECONDS):
                self.say(self.line)
            if character in "\r\n":
                self.line = ""
            else:
                self.line += character

    def say(self, text: str) -> None:
        """Write whole lines."""
        self.kept = time.monotonic()
        self.file.write(f"{text}\n")
        sys.stdout.write("".join(f"{self.name} │ {line}\n" for line in text.splitlines() or [""]))
        self.flush()

    def flush(self) -> None:
        """Flush both."""
        self.file.flush()
        sys.stdout.flush()


def stages(study: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """Return the (notebook, codec) of a study in their order; those of a ``shard`` end with the encoding."""
    if params.part(study["shard"]) != (1, 1):
        return [(SPLIT, None), *((ENCODE, codec) for codec in study["codecs"])]
    per_codec = [stage for codec in study["codecs"] for stage in ((ENCODE, codec), (PROBE, codec))]
    return [(SPLIT, None), *per_codec, *([(REPORT, None)] if study["evaluate"] else [])]


def page_name(notebook: str, codec: str | None, study: Mapping[str, Any]) -> str:
    """Return the name, without its ending, of an executed notebook; each part of a study has its own."""
    part = [] if params.part(study["shard"]) == (1, 1) else [study["shard"].replace(" ", "-")]
    return "-".join([notebook, *([] if codec is None else [params.codec_name(codec)]), *part])


def check_inputs(study: Mapping[str, Any]) -> None:
    """Raise, before anything starts, ParameterError for an unknown codec or MissingInput for missing data.

    The message says how to get them; nothing is downloaded here.
    """
    try:
        for codec in study["codecs"]:
            codecs.require(codec, params.path(study["checkpoints_dir"]))
        corpus.require(params.path(study["corpus_dir"]), params.path(study["alignments_dir"]), study["subset"])
    except MissingInput as error:
        raise MissingInput(f"{error}. To get what the study needs: ./run_all.sh fetch {study['study']}") from error


def run(study: Mapping[str, Any], reports_dir: Path, again: str) -> Path:
    """Run all notebooks of ``study`` and return the index of the report in ``reports_dir/<study>/``.

    ``again`` is the command that goes on after a failure. Raises StageFailed where a notebook fails, once the codecs that
    were begun beside it are done.
    """
    check_inputs(study)
    folder, order = reports_dir / study["study"], stages(study)

    def pages(codec: str | None, notebooks: tuple[str, ...]) -> None:
        for notebook, of in order:
            if of == codec and notebook in notebooks:
                _export(execute(notebook, codec, study, folder, again), study)

    pages(None, (SPLIT,))
    pool = ThreadPoolExecutor(1 if study["workers"] == 1 else SIDE_BY_SIDE)
    try:
        begun = [pool.submit(pages, codec, (ENCODE, PROBE)) for codec in study["codecs"]]
        for done in as_completed(begun):
            done.result()
    except StageFailed:
        pool.shutdown(cancel_futures=True)
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # an interrupted run waits for nothing
    pages(None, (REPORT,))
    return folder / "index.html" if (REPORT, None) in order else _contents(study, folder)


def _export(notebook: Path, study: Mapping[str, Any]) -> Path:
    """Write an executed notebook's page; that of the last one is the index, and its figures become files."""
    from rvqprobe import report  # two seconds of imports that the first notebook need not wait for

    content = nbformat.read(notebook, as_version=4)
    name = "index" if notebook.stem == REPORT else notebook.stem
    pages = [page for page in ("index", *_names(study, notebook.parent)) if page != name]
    path = report.to_html(content, notebook.with_name(f"{name}.html"), study["title"], pages)
    if name == "index":
        print(report.save_figures(content, notebook.parent / "figures"), flush=True)
    return path


def _contents(study: Mapping[str, Any], folder: Path) -> Path:
    """Write the index of a study that has no report."""
    from rvqprobe import report

    why = "This run ends before the report; these are the pages of its notebooks."
    cell = nbformat.v4.new_markdown_cell(f"{findings.caution(study['codecs'])}\n\n{why}")
    pages = _names(study, folder)
    return report.to_html(nbformat.v4.new_notebook(cells=[cell]), folder / "index.html", study["title"], pages)


def _names(study: Mapping[str, Any], folder: Path) -> list[str]:
    """Return the names of the pages beside the index: of each notebook, or of the parts that it ran in."""
    found: list[str] = []
    for stage in (stage for stage in stages(study) if stage[0] != REPORT):
        name = page_name(*stage, study)
        parts = sorted(
            page.stem for page in folder.glob(f"{name}-*.ipynb") if re.fullmatch(r"-\d+-of-\d+", page.stem[len(name) :])
        )
        found += parts if parts and not (folder / f"{name}.ipynb").exists() else [name]
    return found


def run_stage(
    notebook: str, codec: str | None, study: Mapping[str, Any], reports_dir: Path, again: str, kernel: str
) -> Path:
    """Run one notebook of ``study`` and return its page.

    Raises ParameterError where the study has no such stage, StageFailed where the notebook fails.
    """
    if (notebook, codec) not in stages(study):
        known = [" --codec ".join(filter(None, stage)) for stage in stages(study)]
        raise ParameterError(
            f"no stage {' --codec '.join(filter(None, (notebook, codec)))}: known are {', '.join(known)}"
        )
    return _export(execute(notebook, codec, study, reports_dir / study["study"], again, kernel), study)


def execute(
    notebook: str, codec: str | None, study: Mapping[str, Any], folder: Path, again: str, kernel: str = KERNEL
) -> Path:
    """Run one notebook into ``folder`` and return it, executed; StageFailed where it ends with an error.

    Its output goes to a log beside it and to standard output.
    """
    name = page_name(notebook, codec, study)
    values = {**study, **({} if codec is None else {"codec": codec})}
    output, log = folder / f"{name}.ipynb", folder / "logs" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with log.open("w") as file, tempfile.TemporaryDirectory() as sockets:
        console = Log(file, name)
        console.say("begins")
        try:
            papermill.execute_notebook(
                ROOT / "notebooks" / f"{notebook}.ipynb", output, kernel_name=kernel, cwd=str(ROOT), progress_bar=False,
                parameters={p.name: values[p.name] for p in params.of(notebook)}, stdout_file=console, stderr_file=console,
                config=Config({"KernelManager": {"transport": "ipc", "ip": f"{sockets}/kernel"}}),
            )  # fmt: skip
        except Exception as error:  # of the notebook, or the death of its kernel
            console.say(str(error))
            raise StageFailed(
                f"{notebook} failed ({getattr(error, 'ename', type(error).__name__)}): see the notebook {output} and its log {log}; to go on: {again}"
            ) from error
        console.say(f"took {time.monotonic() - started:.1f} s")
    return output
