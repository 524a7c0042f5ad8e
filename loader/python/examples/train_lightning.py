"""The training of train_ddp.py with PyTorch Lightning.

    python train_lightning.py SHARDS [--processes 2] [--epochs 2] [--batch-size 8] [--size 32] [--checkpoints FOLDER] [--stop-after N]

A `Shards` is Lightning's data loader as it is. Lightning keeps the state of a loader that has one in its checkpoints, here every
four steps, and resumes in the middle of an epoch.
"""

import argparse
import sys

import pytorch_lightning as lightning
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from simzss_data import Shards
from train_ddp import Clip, contrastive


class Training(lightning.LightningModule):
    def __init__(self, stop_after):
        super().__init__()
        self.clip, self.stop_after = Clip(), stop_after

    def training_step(self, batch, _):
        if self.global_step == self.stop_after:
            sys.exit()
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
    parser.add_argument("--checkpoints", help="a folder; the newest one is continued")
    parser.add_argument("--stop-after", type=int, help="number of steps")
    options = parser.parse_args()

    lightning.seed_everything(0, verbose=False)
    trainer = lightning.Trainer(
        devices=options.processes,
        strategy="ddp" if options.processes > 1 else "auto",
        max_epochs=options.epochs,
        # The data knows the processes.
        use_distributed_sampler=False,
        callbacks=[ModelCheckpoint(options.checkpoints, every_n_train_steps=4, save_last=True)] if options.checkpoints else [],
        enable_checkpointing=bool(options.checkpoints),
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
    )
    data = Shards(options.shards, options.batch_size, image_size=options.size, streams=8, output="torch")
    trainer.fit(Training(options.stop_after), data, ckpt_path="last" if options.checkpoints else None)


if __name__ == "__main__":
    main()
