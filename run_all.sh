#!/usr/bin/env bash
# ./run_all.sh [STUDY] [-p NAME VALUE]...   set up, then run params/STUDY.yaml (default: demo) to its report
# ./run_all.sh fetch STUDY [--alignments ARCHIVE]   set up, then get what params/STUDY.yaml needs: speech and weights
# ./run_all.sh estimate STUDY               set up, then say what params/STUDY.yaml will take on this machine
# ./run_all.sh setup [DEVICE]               set up only; fails where torch does not run on DEVICE (cuda, say)
# ./run_all.sh lab [JUPYTERLAB ARGUMENTS]   set up, then open the notebooks in JupyterLab
# ./run_all.sh test [PYTEST ARGUMENTS]      set up, then run the tests
# ./run_all.sh --help                       this text
#
#   -p NAME VALUE     set a parameter (README, "Parameters"); may be repeated
#   --reports FOLDER  put the report elsewhere than reports/
#   --slurm           submit the notebooks as Slurm jobs (envs/slurm.yaml); --shards N: N jobs encode each codec;
#                     --dry-run: print the sbatch lines only
#   --stage NOTEBOOK  run this notebook only, with --codec CODEC and, to choose its Jupyter kernel, --kernel KERNEL
#
# Needs Python 3.11 to 3.13. Packages go to .venv here, or to the active conda environment (made from environment.yml).
#   PYTHON                 the Python that makes .venv
#   RVQPROBE_TORCH_INDEX   address of a package index with another torch build (CUDA 12, CPU only), used beside the usual one
#   RVQPROBE_RESULTS       where tables and probes are kept (default: results/ here)
#   RVQPROBE_CACHE         folder for the caches of pip, torch and Hugging Face (default: where they put them, under $HOME)
#   RVQPROBE_SLURM         settings of Slurm jobs (default: envs/slurm.yaml)
#   RVQPROBE_DATA          folder of librispeech-mini (default: ../shared/data)
set -euo pipefail
export RVQPROBE_CALLER=$PWD
cd "$(dirname "$0")"

case "${1:-}" in -h | --help) sed -n '2,/^set /{s/^# \{0,1\}//;/^set /d;p}' "$0"; exit ;; esac

python_of_right_version() {
  if [ -n "${PYTHON:-}" ]; then set -- "$PYTHON"; else set -- python3 python3.13 python3.12 python3.11; fi
  for python in "$@"; do
    if "$python" -c 'import sys; sys.exit(not (3, 11, 4) <= sys.version_info < (3, 14))' 2>/dev/null; then echo "$python"; return; fi
  done
  echo "No Python 3.11 to 3.13 found; install one, or name it: PYTHON=/path/to/python3 ./run_all.sh" >&2
  return 1
}

if [ -n "${RVQPROBE_CACHE:-}" ]; then
  export PIP_CACHE_DIR="$RVQPROBE_CACHE/pip" TORCH_HOME="$RVQPROBE_CACHE/torch" HF_HOME="$RVQPROBE_CACHE/huggingface"
  export XDG_CACHE_HOME="$RVQPROBE_CACHE" TRITON_CACHE_DIR="$RVQPROBE_CACHE/triton" NUMBA_CACHE_DIR="$RVQPROBE_CACHE/numba"
fi
if [ -n "${CONDA_PREFIX:-}" ] && [ "${CONDA_DEFAULT_ENV:-}" != base ]; then environment=$CONDA_PREFIX; else environment=.venv; fi
made_from=$(cat envs/requirements.txt pyproject.toml envs/rvqprobe-batch/* <(echo "${RVQPROBE_TORCH_INDEX:-}" "$PWD"))
if [ "$(cat "$environment/rvqprobe-made-from" 2>/dev/null)" != "$made_from" ]; then
  echo "Setting up $environment: about 6 GB, a few minutes, once." >&2
  if [ "$environment" = .venv ]; then python=$(python_of_right_version); "$python" -m venv .venv; fi
  if [ -n "${RVQPROBE_TORCH_INDEX:-}" ]; then "$environment/bin/python" -m pip uninstall -y torch torchaudio; fi
  "$environment/bin/python" -m pip install ${RVQPROBE_TORCH_INDEX:+--extra-index-url "$RVQPROBE_TORCH_INDEX"} -r envs/requirements.txt
  "$environment/bin/python" -m pip install --no-deps --editable .
  "$environment/bin/python" -m ipykernel install --sys-prefix --name rvqprobe --display-name "rvqprobe"
  "$environment/bin/python" -m jupyter_client.kernelspecapp install --sys-prefix --replace envs/rvqprobe-batch
  echo "$made_from" > "$environment/rvqprobe-made-from"
fi
# glibc's malloc: one arena, whose memory is kept for the next activation (measured on the demo: 2.8 GB and not 4.1, and faster).
export MALLOC_ARENA_MAX=1 MALLOC_TRIM_THRESHOLD_=17179869184 MALLOC_MMAP_THRESHOLD_=4294967296
exec "$environment/bin/python" -m rvqprobe "$@"
