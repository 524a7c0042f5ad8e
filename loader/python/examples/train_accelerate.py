"""The training of train_ddp.py with Hugging Face's accelerate.

    accelerate launch [--num_processes 2] train_accelerate.py SHARDS [--epochs 2] [--batch-size 8] [--size 32] [--save FOLDER]
        [--stop-after N]

The data is not given to `prepare`, which would divide its batches once more: a `Shards` knows the processes. It is registered for
checkpoints instead, so that `load_state` continues at its place, also with another number of processes.
"""

import argparse
import os

import torch
from accelerate import Accelerator
from simzss_data import Shards
from train_ddp import Clip, contrastive


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("shards")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=8, help="over all processes")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--save", help="the folder of the state, which is continued")
    parser.add_argument("--stop-after", type=int, help="number of steps")
    options = parser.parse_args()

    accelerator = Accelerator()
    torch.manual_seed(0)
    model = Clip()
    model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), lr=1e-3))
    data = Shards(options.shards, options.batch_size, image_size=options.size, streams=8, output="torch")
    accelerator.register_for_checkpointing(data)
    if options.save and os.path.exists(options.save):
        accelerator.load_state(options.save)

    steps = 0
    while data.position.epoch < options.epochs and steps != options.stop_after:
        for batch in data:
            batch |= {name: batch[name].to(accelerator.device, non_blocking=True) for name in ("image", "text")}
            loss = contrastive(*model(batch["image"], batch["text"]))
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
            place, keys = tuple(batch["position"]), " ".join(batch["key"])
            print(f"rank {accelerator.process_index}: {place} {keys} loss {loss.item():.3f}", flush=True)
            steps += 1
            if steps == options.stop_after:
                break
        if options.save:
            accelerator.save_state(options.save)
    accelerator.end_training()


if __name__ == "__main__":
    main()
