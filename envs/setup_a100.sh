#!/usr/bin/env bash
# Sets up the environment on a CUDA node: checks the driver, takes the torch build that fits it, and says what it did.
#   envs/setup_a100.sh
# The pinned torch comes built for CUDA 13, which drivers from 580 on run. Older drivers, from 525 on, run its CUDA 12.6
# build, which lies in PyTorch's own package index: name that index's address (it ends in /cu126) in RVQPROBE_TORCH_INDEX.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v nvidia-smi > /dev/null; then
  echo "No nvidia-smi on this machine: run this on the GPU node, for one through srun --gres=gpu:1 --pty envs/setup_a100.sh" >&2
  exit 1
fi
if ! driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader); then
  echo "nvidia-smi finds no working driver: $driver" >&2
  exit 1
fi
driver=$(head -n 1 <<< "$driver")
gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader | head -n 1)
major=${driver%%.*}
if [ "$major" -ge 580 ]; then
  build="CUDA 13, as pinned"
  unset RVQPROBE_TORCH_INDEX
elif [ "$major" -lt 525 ]; then
  echo "The driver $driver of $gpu is too old for torch 2.11: ask for 525 or newer (580 or newer runs the pinned build)." >&2
  exit 1
elif [ -z "${RVQPROBE_TORCH_INDEX:-}" ]; then
  echo "The driver $driver of $gpu needs torch's CUDA 12.6 build: set RVQPROBE_TORCH_INDEX to the address of PyTorch's package" >&2
  echo "index for cu126 (PyTorch's page \"Get started\" shows it) and run this again." >&2
  exit 1
else
  build="CUDA 12.6, from $RVQPROBE_TORCH_INDEX"
fi
echo "GPU: $gpu, driver $driver; torch build: $build"
./run_all.sh setup cuda
echo "Set up, with the Jupyter kernels rvqprobe and rvqprobe-batch. Next: ./run_all.sh fetch train-clean-100,"
echo "then ./run_all.sh train-clean-100 -p profile a100, here or, with --slurm, as jobs."
