#!/usr/bin/env bash
# One training run on all GPUs of one machine, or of several machines, with torchrun. Any PyTorch 2.x has torchrun; nothing
# else of Python is used.
#
#     trainer/cluster/torchrun.sh --config run.toml                                    # this machine
#     NODES=2 HEAD=node1:29400 trainer/cluster/torchrun.sh --config run.toml           # run this on each of two machines
#
# torchrun starts one process per GPU, and starts all of them again when one is lost; --resume continues from the newest
# checkpoint.
set -euo pipefail
nodes=${NODES:-1}
each=${PROCESSES:-gpu}             # processes per machine; `gpu` means one per GPU
rendezvous=(--standalone)
if [ "$nodes" != 1 ]; then
    rendezvous=(--rdzv-backend=c10d --rdzv-endpoint="${HEAD:?set it to the first machine and a free port, such as node1:29400}")
fi
exec torchrun --nnodes="$nodes" --nproc-per-node="$each" --max-restarts="${RESTARTS:-3}" "${rendezvous[@]}" \
    --no-python "${TRAINER:-trainer}" train --resume "$@"
