"""The training of train_ddp.py with PyTorch Lightning.

    python train_lightning.py SHARDS [--processes 2] [--epochs 2] [--batch-size 8] [--size 32] [--checkpoint FILE] [--stop-after N]

A `Shards` is Lightning's data loader as it is. Lightning keeps the state of a loader that has one in its checkpoints, and resumes in
the middle of an epoch.
"""

import argparse
import os

import pytorch_lightning as lightning
import torch
from simzss_data import Shards
from train_ddp import Clip, contrastive


class Training(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.clip = Clip()

    def training_step(self, batch, _):
        loss = contrastive(*self.clip(batch["image"], batch["text"]))
        print(f"rank {self.global_rank}: {tuple(batch['position'])} {' '.join(batch['key'])} loss {loss.item():.3f}", flush=True)
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("shards")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=8, help="over all processes")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--checkpoint")
    parser.add_argument("--stop-after", type=int, default=-1, help="number of steps")
    options = parser.parse_args()

    lightning.seed_everything(0, verbose=False)
    trainer = lightning.Trainer(
        devices=options.processes,
        strategy="ddp" if options.processes > 1 else "auto",
        max_epochs=options.epochs,
        max_steps=options.stop_after,
        # The data knows the processes.
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
    )
    data = Shards(options.shards, options.batch_size, image_size=options.size, streams=8, output="torch")
    resumed = options.checkpoint if options.checkpoint and os.path.exists(options.checkpoint) else None
    trainer.fit(Training(), data, ckpt_path=resumed)
    if options.checkpoint:
        trainer.save_checkpoint(options.checkpoint)


if __name__ == "__main__":
    main()
