"""Studies as Slurm jobs, on a real Slurm of one node that these tests start."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import papermill
import polars as pl
import pytest

from rvqprobe import __main__ as command
from rvqprobe import params, slurm
from rvqprobe.params import ParameterError
from rvqprobe.store import Layout

CONFIGURATION = """ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
SlurmctldPort=16817
SlurmdPort=16818
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SwitchType=switch/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,batch_sched_delay=0
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def wait(ready: Callable[[], object], seconds: float, what: str) -> None:
    for _ in range(int(seconds * 5)):
        if ready():
            return
        time.sleep(0.2)
    pytest.fail(f"{what} took more than {seconds:g} s")


def run(*line: str | Path) -> str:
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Path]:
    """A node that takes jobs of one core each, as many as there are cores; its folder."""
    folder = Path("/tmp") / f"slurm-{os.getpid()}"  # a socket's path has to be short
    for part in ("munge", "state", "spool"):
        (folder / part).mkdir(parents=True)
    (folder / "munge" / "key").write_bytes(os.urandom(1024))
    (folder / "munge" / "key").chmod(0o600)
    (folder / "slurm.yaml").write_text("cpus: 1\ntime: '00:20:00'\n")
    host = socket.gethostname().split(".")[0]
    (folder / "slurm.conf").write_text(CONFIGURATION.format(folder=folder, host=host, cpus=os.cpu_count()))
    paths = {name: f"--{name}-file={folder}/munge/{name}" for name in ("key", "pid", "log", "seed")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        patch.setenv("RVQPROBE_SLURM", str(folder / "slurm.yaml"))
        run("munged", "--force", f"--socket={folder}/munge/socket", *paths.values())
        run("slurmctld")
        run("slurmd")
        wait(
            lambda: "idle" in subprocess.run(["sinfo", "-h"], capture_output=True, text=True).stdout,
            60,
            "the node's start",
        )
        yield folder
        subprocess.run(["scancel", "--me"], check=False)
        for pid in (folder / "slurmd.pid", folder / "slurmctld.pid", folder / "munge" / "pid"):
            os.kill(int(pid.read_text()), signal.SIGTERM)
    shutil.rmtree(folder, ignore_errors=True)


def queue(*options: str) -> list[str]:
    return run("squeue", "-h", "-r", "-o", "%i %j %T", *options).splitlines()


def task(name: str, state: str = "RUNNING") -> list[str]:
    """Numbers of the jobs ``name`` that are in ``state``."""
    return [line.split()[0] for line in queue() if line.split()[1:] == [name, state]]


@pytest.mark.needs("slurm")
def test_the_demo_as_jobs_equals_the_local_run_even_with_jobs_that_were_killed(
    cluster: Path, demo: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setenv("RVQPROBE_RESULTS", str(tmp_path / "results"))
    codecs = ["encodec-untrained", "logmel_rvq"]
    arguments = [
        "demo",
        "-p",
        "codecs",
        f"[{', '.join(codecs)}]",
        "--reports",
        str(tmp_path),
        "--slurm",
        "--shards",
        "2",
    ]
    assert command.main(arguments) == 0
    said = capsys.readouterr().out
    assert "02_encode-encodec-untrained, 2 parts" in said and f"{tmp_path}/demo/index.html" in said
    tokens = Layout(tmp_path / "results", "demo").tokens("encodec-untrained")
    wait(lambda: list(tokens.glob("tokens-*.parquet")), 120, "the first shard")
    encoding = task("demo/02_encode-encodec-untrained")
    run("scancel", "--batch", "--signal=USR1", encoding[0])  # as Slurm does before the time limit
    if encoding[1:]:
        run("scontrol", "requeue", encoding[1])  # as an administrator, or the loss of a node
    wait(lambda: not queue(), 300, "the study")
    logs = "".join(log.read_text() for log in (tmp_path / "demo" / "logs").glob("*.out"))
    assert "stopped, to go on in a new run" in logs and "failed" not in logs
    local = pl.read_parquet(Layout(demo / "results", "demo").metrics).filter(pl.col("codec").is_in(codecs))
    assert pl.read_parquet(Layout(tmp_path / "results", "demo").metrics).equals(local)
    index = (tmp_path / "demo" / "index.html").read_text()
    for page in (
        "01_split",
        "02_encode-encodec-untrained-1-of-2",
        "02_encode-logmel_rvq-2-of-2",
        "03_probe-logmel_rvq",
    ):
        assert f'href="{page}.html"' in index and (tmp_path / "demo" / f"{page}.html").exists()


@pytest.mark.needs("slurm")
def test_a_failed_job_says_what_to_look_at_and_how_to_go_on(cluster: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("RVQPROBE_RESULTS", str(tmp_path / "results"))
    arguments = ["demo", "-p", "codecs", "[logmel_rvq]", "-p", "f0_min", "399", "--reports", str(tmp_path), "--slurm"]
    monkeypatch.setattr(
        slurm,
        "command",
        lambda job, given: [
            "./run_all.sh",
            *given,
            "-p",
            "shard",
            "99 of 99",
            "--stage",
            job.notebook,
            *(["--codec", job.codec] if job.codec else []),
        ],
    )
    assert command.main(arguments) == 0
    wait(lambda: not queue(), 120, "the jobs")
    (log,) = (tmp_path / "demo" / "logs").glob("02_encode-logmel_rvq-*.out")
    last = log.read_text().strip().splitlines()[-1]
    assert (
        "02_encode failed (ParameterError)" in last and f"{tmp_path}/demo/02_encode-logmel_rvq-99-of-99.ipynb" in last
    )
    assert f"{tmp_path}/demo/logs/02_encode-logmel_rvq-99-of-99.log" in last
    assert last.endswith(
        f"to go on: ./run_all.sh demo -p codecs '[logmel_rvq]' -p f0_min 399 --reports {tmp_path} --slurm"
    )
    assert not list((tmp_path / "demo").glob("0[34]*"))  # what waited for it never began


@pytest.mark.needs("slurm")
def test_the_batch_kernel_is_started_by_srun(cluster: Path, tmp_path: Path, monkeypatch) -> None:
    for variable in [name for name in os.environ if name.startswith("SLURM_") and name != "SLURM_CONF"]:
        monkeypatch.delenv(variable)
    cell = nbformat.v4.new_code_cell(
        "import os, sys; print(os.environ['SLURM_STEP_ID'], os.environ['SLURM_JOB_NAME'], sys.prefix)"
    )
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "where.ipynb")
    done = papermill.execute_notebook(
        tmp_path / "where.ipynb", tmp_path / "out.ipynb", kernel_name="rvqprobe-batch", progress_bar=False
    )
    assert done.cells[0].outputs[0].text.split() == ["0", "rvqprobe-kernel", sys.prefix]


def test_dry_run_prints_what_would_be_submitted(tmp_path: Path, monkeypatch, capsys) -> None:
    file = tmp_path / "slurm.yaml"
    file.write_text("partition: gpu\naccount: speech\ntime: '04:00:00'\ngpu: a100:1\ncpus: 8\nmemory: 64G\n")
    monkeypatch.setenv("RVQPROBE_SLURM", str(file))
    arguments = [
        "train-clean-100",
        "-p",
        "profile",
        "a100",
        "--slurm",
        "--shards",
        "4",
        "--dry-run",
        "--reports",
        str(tmp_path),
    ]
    assert command.main(arguments) == 0  # with neither data nor weights
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 2 * 5 + 1 and not (tmp_path / "train-clean-100").exists()
    assert all("--partition=gpu --account=speech --time=04:00:00 --cpus-per-task=8 --mem=64G" in line for line in lines)
    for line in lines:
        encodes = "--stage 02_encode" in line
        assert ("--gres=gpu:a100:1" in line) == ("--array=1-4" in line) == ("-p shard '@TASK@ of 4'" in line) == encodes
        assert "envs/job.sh ./run_all.sh train-clean-100 -p profile a100" in line and "--kernel rvqprobe-batch" in line
    assert "--dependency=afterok:<02_encode-encodec>'" in lines[2] and "--stage 03_probe --codec encodec" in lines[2]
    assert lines[-1].count("<03_probe-") == 5 and "--dependency" not in lines[0]


def test_mistakes_are_told(tmp_path: Path, monkeypatch, capsys) -> None:
    file = tmp_path / "slurm.yaml"
    file.write_text("partitoin: gpu\n")
    monkeypatch.setenv("RVQPROBE_SLURM", str(file))
    assert command.main(["demo", "--slurm", "--dry-run"]) == 1 and "did you mean partition?" in capsys.readouterr().err
    monkeypatch.setenv("RVQPROBE_SLURM", str(tmp_path / "nowhere"))
    assert command.main(["demo", "--slurm", "--dry-run"]) == 1 and "nowhere does not exist" in capsys.readouterr().err
    monkeypatch.delenv("RVQPROBE_SLURM")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert command.main(["demo", "--slurm", "--reports", str(tmp_path)]) == 1
    assert "there is no sbatch on this machine" in capsys.readouterr().err
    assert command.main(["demo", "--slurm", "-p", "shard", "1 of 2", "--dry-run"]) == 1
    assert "say --shards N, not -p shard" in capsys.readouterr().err
    file.write_text("time: 12:00:00\n")  # which YAML takes for 43,200
    monkeypatch.setenv("RVQPROBE_SLURM", str(file))
    assert command.main(["demo", "--slurm", "--dry-run"]) == 1 and "put the time in quotes" in capsys.readouterr().err
    monkeypatch.delenv("RVQPROBE_SLURM")
    for wrong in (["--dry-run"], ["--shards", "2"], ["--codec", "x"], ["--slurm", "--stage", "01_split"]):
        with pytest.raises(SystemExit):
            command.main(["demo", *wrong])
    capsys.readouterr()
    assert command.main(["demo", "--slurm", "--shards", "0"]) == 1 and "at least 1" in capsys.readouterr().err
    assert command.main(["demo", "--stage", "02_encode", "--codec", "logmel"]) == 1
    assert "known are 01_split, 02_encode --codec encodec-untrained" in capsys.readouterr().err


def test_profiles_are_defaults_that_can_be_overridden() -> None:
    def of(**given: object) -> dict:
        return params.load_study("demo", given)

    assert of()["workers"] == 0 and of(profile="sequential")["workers"] == 1
    fast = of(profile="local-fast")
    assert (fast["workers"], fast["blas_threads"], fast["max_iter"], fast["evaluate"]) == (0, 1, 300, False)
    assert of(profile="local-fast", evaluate=True, max_iter=5)["evaluate"] is True
    assert of(profile="a100")["device"] == "cuda" and of(profile="a100", device="cpu")["device"] == "cpu"
    with pytest.raises(ParameterError, match="it has to be one of sequential, local, local-fast, a100"):
        of(profile="a1000")
