"""The data of open_clip's own trainer from our shards: what `open_clip_train.data.get_data` returns for the training set.

    import open_clip_data
    data = {"train": open_clip_data.get_data("shards/", global_batch_size=512, image_size=224)}
    open_clip_train.train.train_one_epoch(model, data, ...)
"""

import torch
from simzss_data import Shards

# open_clip's, unless the model has others.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class Batches:
    """Batches as open_clip's trainer expects them: pairs of normalised images and tokens."""

    def __init__(self, shards, mean=MEAN, std=STD):
        self.shards = shards
        self.num_batches, self.num_samples = len(shards), len(shards) * shards.rows
        self.mean, self.std = (torch.tensor(values).view(1, 3, 1, 1) for values in (mean, std))

    def __len__(self):
        return self.num_batches

    def __iter__(self):
        for batch in self.shards:
            yield (batch["image"].float() / 255 - self.mean) / self.std, batch["text"]


class Data:
    """Has what open_clip's DataInfo has."""

    def __init__(self, dataloader):
        self.dataloader = dataloader
        self.sampler = None

    def set_epoch(self, epoch):
        self.dataloader.shards.set_epoch(epoch)


def get_data(shards, global_batch_size, image_size, **settings):
    """`settings` are those of `Shards`; those here are open_clip's defaults."""
    settings = {"scale": (0.9, 1.0), "context": 77, **settings}
    data = Shards(shards, global_batch_size, image_size=image_size, output="torch", **settings)
    return Data(Batches(data))
