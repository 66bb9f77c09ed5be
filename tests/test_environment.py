import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from conftest import ROOT

REQUIREMENTS = (ROOT / "envs" / "requirements.txt").read_text()


def test_conda_and_pip_install_the_same() -> None:
    python, pip, packages = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert re.fullmatch(r"python=3\.1[123]", python) and pip == "pip"
    assert packages == {"pip": ["-r envs/requirements.txt"]}


def test_everything_is_pinned() -> None:
    pinned = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", REQUIREMENTS, re.M))
    assert len(REQUIREMENTS.splitlines()) == len(re.findall(r"^[\w.-]+==[^\s;]+", REQUIREMENTS, re.M))
    wanted = re.findall(r"^([\w.-]+)", (ROOT / "envs" / "requirements.in").read_text(), re.M)
    assert set(wanted) <= set(pinned) and pinned["torch"] == pinned["torchaudio"] == "2.11.0"


def test_what_is_installed_is_what_is_pinned() -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--no-index", "-r", ROOT / "envs" / "requirements.txt"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert answer.returncode == 0 and "Would install" not in answer.stdout, answer.stderr


FAKE_PYTHON = """#!/usr/bin/env bash
echo "$@" >> "$(dirname "$0")/../calls"
"""


@pytest.fixture
def conda(tmp_path: Path) -> Path:
    """A stand-in for a conda environment, whose Python writes down what it is called with."""
    python = tmp_path / "conda" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(FAKE_PYTHON)
    python.chmod(0o755)
    return tmp_path / "conda"


def run_all(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [ROOT / "run_all.sh", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_active_conda_environment_is_used_and_set_up_once(conda: Path) -> None:
    ours = {"CONDA_PREFIX": str(conda), "CONDA_DEFAULT_ENV": "rvqprobe", "RVQPROBE_TORCH_INDEX": ""}
    assert run_all("sanity", "-p", "seed", "1", **ours).returncode == 0
    calls = (conda / "calls").read_text().splitlines()
    assert calls == [
        "-m pip install -r envs/requirements.txt",
        "-m pip install --no-deps --editable .",
        "-m ipykernel install --sys-prefix --name rvqprobe --display-name rvqprobe",
        "-m jupyter_client.kernelspecapp install --sys-prefix --replace envs/rvqprobe-batch",
        "-m rvqprobe sanity -p seed 1",
    ]
    run_all("test", **ours)
    assert (conda / "calls").read_text().splitlines()[5:] == ["-m rvqprobe test"]
    run_all("test", **ours | {"RVQPROBE_TORCH_INDEX": "file:///wheels"})
    assert "--extra-index-url file:///wheels" in (conda / "calls").read_text().splitlines()[7]


def test_a_failed_set_up_is_tried_again(conda: Path) -> None:
    (conda / "bin" / "python").write_text("#!/usr/bin/env bash\nexit 3\n")
    ours = {"CONDA_PREFIX": str(conda), "CONDA_DEFAULT_ENV": "rvqprobe"}
    assert run_all("test", **ours).returncode == 3 and not (conda / "rvqprobe-made-from").exists()


def test_pip_prefers_the_build_of_another_index(tmp_path: Path) -> None:
    for version in ("2.11.0", "2.11.0+cpu"):
        folder = tmp_path / ("usual" if version == "2.11.0" else "other") / "torch"
        folder.mkdir(parents=True)
        name = f"torch-{version}-py3-none-any.whl"
        with zipfile.ZipFile(folder / name, "w") as wheel:
            info = f"torch-{version}.dist-info"
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")
        (folder / "index.html").write_text(f"<a href='{name}'>{name}</a>")
    answer = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-deps", "--isolated",
         "--index-url", f"file://{tmp_path}/usual", "--extra-index-url", f"file://{tmp_path}/other", "torch==2.11.0"],
        capture_output=True, text=True, check=False,
        env={k: v for k, v in os.environ.items() if not k.startswith("PIP_")},
    )  # fmt: skip
    assert "Would install torch-2.11.0+cpu" in answer.stdout, answer.stderr


def test_help_needs_no_set_up() -> None:
    answer = run_all("--help", PATH="/usr/bin:/bin", CONDA_PREFIX="/nowhere")
    assert answer.returncode == 0
    assert all(
        word in answer.stdout
        for word in ("[STUDY]", "-p NAME VALUE", "test", "RVQPROBE_TORCH_INDEX", "Python 3.11 to 3.13")
    )


def test_one_variable_moves_all_caches(conda: Path, tmp_path: Path) -> None:
    (conda / "bin" / "python").write_text('#!/usr/bin/env bash\nenv > "$(dirname "$0")/../environment"\n')
    run_all("setup", CONDA_PREFIX=str(conda), CONDA_DEFAULT_ENV="rvqprobe", RVQPROBE_CACHE=str(tmp_path / "cache"))
    said = dict(line.split("=", 1) for line in (conda / "environment").read_text().splitlines() if "=" in line)
    for name in ("PIP_CACHE_DIR", "TORCH_HOME", "HF_HOME", "XDG_CACHE_HOME"):
        assert said[name].startswith(str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("driver", "index", "status", "said"),
    [
        ("580.65.06", "", 0, "torch build: CUDA 13, as pinned"),
        ("550.54.15", "", 1, "needs torch's CUDA 12.6 build: set RVQPROBE_TORCH_INDEX"),
        ("550.54.15", "https://torch.example/cu126", 0, "torch build: CUDA 12.6, from https://torch.example/cu126"),
        ("470.82.01", "", 1, "too old for torch 2.11"),
        (None, "", 1, "No nvidia-smi on this machine"),
    ],
)
def test_the_gpu_set_up_fits_the_driver(
    conda: Path, tmp_path: Path, driver: str | None, index: str, status: int, said: str
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    if driver:
        (tools / "nvidia-smi").write_text(
            f'#!/bin/sh\ncase "$1" in *driver*) echo {driver} ;; *) echo NVIDIA A100-SXM4-80GB ;; esac\n'
        )
        (tools / "nvidia-smi").chmod(0o755)
    ours = {"CONDA_PREFIX": str(conda), "CONDA_DEFAULT_ENV": "rvqprobe", "RVQPROBE_TORCH_INDEX": index}
    answer = subprocess.run(
        [ROOT / "envs" / "setup_a100.sh"], env={**os.environ, **ours, "PATH": f"{tools}:/usr/bin:/bin"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert answer.returncode == status and said in answer.stdout + answer.stderr, answer.stderr
    if status == 0:
        calls = (conda / "calls").read_text()
        assert "-m rvqprobe setup" in calls and ("--extra-index-url https://torch.example/cu126" in calls) == bool(
            index
        )
        assert "A100" in answer.stdout and "rvqprobe-batch" in answer.stdout
