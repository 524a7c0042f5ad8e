"""A small CLIP on several processes, interrupted and resumed at any number of them.

    torchrun --nproc-per-node 2 train_ddp.py SHARDS [--epochs 2] [--batch-size 8] [--size 32] [--checkpoint FILE] [--stop-after N]

Works on a CPU (Gloo) and on GPUs (NCCL). The checkpoint has the place in the data; a run that is started again with the same
checkpoint, on any number of processes, sees the samples that it would have seen without the interruption.
"""

import argparse
import os

import torch
import torch.distributed as dist
import torch.nn.functional as F
from simzss_data import Shards
from torch import nn
from torch.nn.parallel import DistributedDataParallel


class Clip(nn.Module):
    def __init__(self, width=32):
        super().__init__()
        self.image = nn.Sequential(nn.Conv2d(3, width, 8, stride=8), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.text = nn.EmbeddingBag(49408, width, padding_idx=0)

    def forward(self, image, text):
        image = self.image(image.float() / 255)
        return F.normalize(image, dim=-1), F.normalize(self.text(text), dim=-1)


def contrastive(image, text):
    """CLIP's loss, within the rows of this process."""
    logits = 10 * image @ text.T
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("shards")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=8, help="over all processes")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--checkpoint")
    parser.add_argument("--stop-after", type=int, help="number of steps")
    options = parser.parse_args()

    gpu = torch.cuda.is_available()
    dist.init_process_group("nccl" if gpu else "gloo")
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if gpu else torch.device("cpu")
    torch.manual_seed(0)
    model = DistributedDataParallel(Clip().to(device))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    # Rank and number of processes are those of torch.distributed.
    data = Shards(options.shards, options.batch_size, image_size=options.size, streams=8)
    if options.checkpoint and os.path.exists(options.checkpoint):
        state = torch.load(options.checkpoint, map_location=device)
        model.module.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        data.load_state_dict(state["data"])

    steps = 0
    while data.position.epoch < options.epochs:
        for batch in data:
            loss = contrastive(*model(*(batch[name].to(device, non_blocking=True) for name in ("image", "text"))))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            print(f"rank {dist.get_rank()}: {tuple(batch['position'])} {' '.join(batch['key'])} loss {loss.item():.3f}", flush=True)
            steps += 1
            if steps == options.stop_after:
                break
        if options.checkpoint and dist.get_rank() == 0:
            state = {"model": model.module.state_dict(), "optimizer": optimizer.state_dict(), "data": data.state_dict()}
            torch.save(state, options.checkpoint)
        if steps == options.stop_after:
            break
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
