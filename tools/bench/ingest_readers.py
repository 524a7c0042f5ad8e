#!/usr/bin/env python3
"""Checks that other programs read ingest's shards: webdataset, and the training pipeline of open_clip, which uses it.

    tools/bench/ingest_readers.py FOLDER

FOLDER has .tar shards with captions that `ingest download` or `ingest shard` wrote. webdataset must read every sample with
status "success" in the order of the tables, with its caption and an image of the size in the table. open_clip's loader must
return all of them as batches of pixels and tokens. Needs webdataset, pyarrow and open_clip_torch
(pip install webdataset pyarrow open_clip_torch pandas).
"""

import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet
import webdataset


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) == 2 else sys.exit(__doc__)
    tars = sorted(map(str, folder.glob("*.tar")))
    rows = []
    for tar in tars:
        table = pyarrow.parquet.read_table(Path(tar).with_suffix(".parquet")).to_pylist()
        rows += [row for row in table if row["status"] == "success"]

    count = 0
    samples = webdataset.WebDataset(tars, shardshuffle=False).decode("pil").to_tuple("__key__", "jpg;png;webp", "txt", "json")
    for (key, image, text, about), row in zip(samples, rows, strict=True):
        found = (key, image.size, text, about["url"], about["sha256"])
        wanted = (row["key"], (row["width"], row["height"]), row["caption"], row["url"], row["sha256"])
        if found != wanted:
            sys.exit(f"webdataset reads {found}, the table has {wanted}")
        count += 1
    print(f"webdataset {version('webdataset')}: {count} samples, equal to the tables")

    import open_clip
    from open_clip_train.data import get_wds_dataset

    preprocess = open_clip.image_transform((64, 64), is_train=False)
    arguments = SimpleNamespace(
        val_data="::".join(tars), val_num_samples=len(rows), dataset_resampled=False, seed=0, batch_size=32, workers=2,
        world_size=1, train_data_upsampling_factors=None,
    )
    data = get_wds_dataset(arguments, preprocess, is_train=False, tokenizer=open_clip.get_tokenizer("ViT-B-32"))
    count = 0
    for pixels, tokens in data.dataloader:
        if pixels.shape[1:] != (3, 64, 64) or tokens.shape != (len(pixels), 77):
            sys.exit(f"open_clip returns a batch of shapes {tuple(pixels.shape)} and {tuple(tokens.shape)}")
        count += len(pixels)
    if count != len(rows):
        sys.exit(f"open_clip reads {count} samples, the tables have {len(rows)}")
    print(f"open_clip {version('open_clip_torch')}: {count} samples in batches of pixels and tokens")


if __name__ == "__main__":
    main()
