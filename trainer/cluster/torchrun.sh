#!/usr/bin/env bash
# One run on all GPUs of a machine, or of several, by torchrun (any PyTorch 2.x has it; no other part of Python is used).
#
#     trainer/cluster/torchrun.sh --config run.toml                                    # this machine
#     NODES=2 HEAD=node1:29400 trainer/cluster/torchrun.sh --config run.toml           # the same on each of two machines
#
# torchrun starts a process a GPU and starts all again when one is lost; --resume goes on from the newest checkpoint.
set -euo pipefail
nodes=${NODES:-1}
each=${PROCESSES:-gpu}             # processes a machine; `gpu` for one a GPU
rendezvous=(--standalone)
if [ "$nodes" != 1 ]; then
    rendezvous=(--rdzv-backend=c10d --rdzv-endpoint="${HEAD:?the first machine and a free port, as node1:29400}")
fi
exec torchrun --nnodes="$nodes" --nproc-per-node="$each" --max-restarts="${RESTARTS:-3}" "${rendezvous[@]}" \
    --no-python "${TRAINER:-trainer}" train --resume "$@"
