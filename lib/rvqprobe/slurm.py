"""A study as Slurm jobs, chained by dependencies: each runs one notebook by the command that also runs it by hand."""

import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rvqprobe import params
from rvqprobe.params import ROOT, ParameterError
from rvqprobe.study import ENCODE, PROBE, REPORT, SPLIT, page_name, stages

SETTINGS = ROOT / "envs" / "slurm.yaml"
"""Where jobs run; another file is named by the environment variable RVQPROBE_SLURM."""
OPTIONS = {"partition": "partition", "account": "account", "time": "time", "cpus": "cpus-per-task", "memory": "mem"}
"""Settings and the options of sbatch and srun that say the same."""
WARNING = 120
"""Seconds before its time limit at which a job is told to stop and to queue again."""
KERNEL = "rvqprobe-batch"
TASK = "@TASK@"
"""Stands for the number of an array's task in the command of its jobs; ``envs/job.sh`` puts it in."""


@dataclass(frozen=True)
class Job:
    """One submission: a notebook, for a codec, in so many parts."""

    notebook: str
    codec: str | None
    name: str
    """That of its page, were it one part."""
    parts: int
    after: tuple[str, ...]
    """Names of the jobs that have to succeed before it."""


def settings() -> dict[str, str]:
    """Return what the settings file says, without what it leaves empty; ParameterError for an unknown setting."""
    file = Path(os.environ.get("RVQPROBE_SLURM") or SETTINGS)
    known = [*OPTIONS, "gpu"]
    if not file.is_file():
        raise ParameterError(f"no Slurm settings: {file} does not exist")
    content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    for name in content:
        if name not in known:
            raise ParameterError(f"{file} knows no setting {name!r}: {params.nearest(name, known)}")
    if not isinstance(content.get("time") or "", str):
        raise ParameterError(
            f'{file}: put the time in quotes, such as "08:00:00"; without them YAML reads it as a number'
        )
    return {name: str(value) for name, value in content.items() if value not in (None, "")}


def resources(gpu: bool) -> list[str]:
    """Return the options of sbatch or srun that ask for the settings' resources, with a GPU or without."""
    said = settings()
    options = [f"--{option}={said[name]}" for name, option in OPTIONS.items() if name in said]
    return [*options, f"--gres=gpu:{said['gpu']}"] if gpu and "gpu" in said else options


def jobs(study: Mapping[str, Any], shards: int) -> list[Job]:
    """Return the jobs of ``study`` in an order in which each comes after those that it waits for."""
    found: list[Job] = []
    for notebook, codec in stages(study):
        before = {
            SPLIT: (),
            ENCODE: (SPLIT,),
            PROBE: (page_name(ENCODE, codec, study),),
            REPORT: tuple(job.name for job in found if job.notebook == PROBE),
        }
        parts = shards if notebook == ENCODE else 1
        found.append(Job(notebook, codec, page_name(notebook, codec, study), parts, before[notebook]))
    return found


def command(job: Job, arguments: Sequence[str]) -> list[str]:
    """Return what a job runs; ``arguments`` are those of ``./run_all.sh``: the study and its parameters."""
    codec = [] if job.codec is None else ["--codec", job.codec]
    part = [] if job.parts == 1 else ["-p", "shard", f"{TASK} of {job.parts}"]
    return ["./run_all.sh", *arguments, *part, "--stage", job.notebook, *codec, "--kernel", KERNEL]


def submission(job: Job, study: str, arguments: Sequence[str], logs: Path, numbers: Mapping[str, str]) -> list[str]:
    """Return the sbatch command of a job; ``numbers`` are the job numbers, by name, of those before it."""
    log = f"{job.name}-%A_%a.out" if job.parts > 1 else f"{job.name}-%j.out"
    options = [
        "--parsable", f"--job-name={study}/{job.name}", f"--chdir={ROOT}", f"--output={logs / log}", "--open-mode=append",
        "--requeue", f"--signal=B:USR1@{WARNING}", *resources(job.notebook == ENCODE),
    ]  # fmt: skip
    if job.parts > 1:
        options.append(f"--array=1-{job.parts}")
    if job.after:
        options += [
            f"--dependency=afterok:{':'.join(numbers[name] for name in job.after)}",
            "--kill-on-invalid-dep=yes",
        ]
    return ["sbatch", *options, "envs/job.sh", *command(job, arguments)]


def submit(
    study: Mapping[str, Any], arguments: Sequence[str], shards: int, reports_dir: Path, again: str, dry_run: bool
) -> None:
    """Submit the jobs of ``study``, or with ``dry_run`` print what would be.

    ``again`` is the command that goes on after a failure. Raises ParameterError where sbatch is missing or refuses a job.
    """
    if params.part(study["shard"]) != (1, 1):
        raise ParameterError("--slurm divides the encoding itself: say --shards N, not -p shard")
    logs = reports_dir / study["study"] / "logs"
    numbers: dict[str, str] = {}
    for job in jobs(study, shards):
        if dry_run:
            numbers[job.name] = f"<{job.name}>"
            print(shlex.join(submission(job, study["study"], arguments, logs, numbers)))
            continue
        logs.mkdir(parents=True, exist_ok=True)
        line = submission(job, study["study"], arguments, logs, numbers)
        try:
            done = subprocess.run(
                line, cwd=ROOT, env={**os.environ, "RVQPROBE_AGAIN": again}, capture_output=True, text=True, check=False
            )
        except FileNotFoundError as error:
            raise ParameterError(
                "there is no sbatch on this machine: run it where Slurm is, or without --slurm"
            ) from error
        if done.returncode:
            submitted = f"; cancel what was submitted with: scancel {' '.join(numbers.values())}" if numbers else ""
            raise ParameterError(f"sbatch refused {job.name}: {done.stderr.strip()}{submitted}")
        numbers[job.name] = done.stdout.strip().split(";")[0]
        print(f"{numbers[job.name]}: {job.name}" + (f", {job.parts} parts" if job.parts > 1 else ""))
    if not dry_run:
        report = f"the report will be {logs.parent / 'index.html'}" if study["evaluate"] else "there will be no report"
        print(f"Watch them with squeue; what they print: {logs}; {report}")


if __name__ == "__main__":
    print(*resources(gpu=True))  # for envs/rvqprobe-batch/start.sh
