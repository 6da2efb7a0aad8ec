#!/bin/sh
# usage: scripts/train/launch.sh RUN.yaml [section.key=value ...]
# All GPUs of this machine, or NPROC processes; the rest is `smolvlm launch --help`.
set -eu
NPROC="${NPROC:-$(nvidia-smi --list-gpus 2>/dev/null | wc -l)}"
[ "$NPROC" -gt 0 ] || NPROC=1
exec smolvlm launch "$@" --nproc "$NPROC"
