#!/usr/bin/env python3
"""What is missing to a perfect segmentation? Sorts the wrong pixels of label maps by their kind.

    trainer eval segmentation --data DATA --checkpoint RUN --save-predictions PREDICTIONS
    tools/bench/gap.py PREDICTIONS DATA/masks DATA/classes.txt [--border 4] [--json]

Label maps and masks are PNG files of class indices; the value 255 of a mask counts for nothing. A wrong pixel is, in this order: near a
border between two classes of the mask (at most --border pixels away), labelled with another class of the image, or labelled with a class
that is not in the image. For each kind: its share of all pixels, and the mIoU if these pixels were right. Needs NumPy and Pillow.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

KINDS = ["near a border", "another class of the image", "a class that is not in the image"]


def near_border(mask, distance):
    """Pixels whose square of this radius has another class."""
    padded = np.pad(mask, distance, mode="edge")
    height, width = mask.shape
    found = np.zeros(mask.shape, bool)
    for down in range(2 * distance + 1):
        for right in range(2 * distance + 1):
            found |= padded[down : down + height, right : right + width] != mask
    return found


def border_accuracy(predictions, masks, distance):
    """Of the pixels near a border in all masks of a folder, the share whose label is right."""
    right, pixels = 0, 0
    for file in sorted(masks.glob("*.png")):
        mask = np.asarray(Image.open(file))
        near = near_border(mask, distance) & (mask != 255)
        right += (np.asarray(Image.open(predictions / file.name)) == mask)[near].sum()
        pixels += near.sum()
    return float(right / pixels)


def iou(confusion):
    right = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - right
    return right / np.where(union > 0, union, np.nan)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("predictions", type=Path)
    parser.add_argument("masks", type=Path)
    parser.add_argument("classes", type=Path)
    parser.add_argument("--border", type=int, default=4)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    names = [line.split(",")[0] for line in options.classes.read_text().splitlines() if line.strip()]
    count = len(names)

    confusion = np.zeros((count, count), np.int64)
    # The same if the wrong pixels of one kind were right.
    mended = np.zeros((len(KINDS), count, count), np.int64)
    wrong, pixels = np.zeros(len(KINDS)), 0
    for file in sorted(options.masks.glob("*.png")):
        mask = np.asarray(Image.open(file)).astype(np.int64)
        labels = np.asarray(Image.open(options.predictions / file.name)).astype(np.int64)
        if labels.shape != mask.shape:
            parser.error(f"{file.name}: {labels.shape} in the predictions, {mask.shape} in the masks")
        counts = mask != 255
        border, inside = near_border(mask, options.border), np.isin(labels, mask[counts])
        off = (labels != mask) & counts
        kinds = [off & border, off & ~border & inside, off & ~border & ~inside]
        table = lambda found: np.bincount(mask[counts] * count + found[counts], minlength=count * count).reshape(count, count)
        confusion += table(labels)
        for number, kind in enumerate(kinds):
            wrong[number] += kind.sum()
            mended[number] += table(np.where(kind, mask, labels))
        pixels += counts.sum()

    of_class, result = iou(confusion), {}
    result["miou"] = np.nanmean(of_class)
    result["wrong"] = {kind: {"share": share, "miou_if_right": np.nanmean(iou(after))} for kind, share, after in zip(KINDS, wrong / pixels, mended)}
    result["classes"] = dict(zip(names, of_class))
    pairs = confusion / pixels
    np.fill_diagonal(pairs, 0)
    largest = np.dstack(np.unravel_index(np.argsort(-pairs, axis=None)[:10], pairs.shape))[0]
    result["confusions"] = [[names[truth], names[label], pairs[truth, label]] for truth, label in largest]
    if options.json:
        return print(json.dumps(result, default=float))
    print(f"mIoU {100 * result['miou']:.1f} %, {100 * wrong.sum() / pixels:.1f} % of the pixels are wrong")
    for kind, of_kind in result["wrong"].items():
        print(f"  {kind:<34}{100 * of_kind['share']:>6.1f} % of the pixels; mIoU without them {100 * of_kind['miou_if_right']:.1f} %")
    print("IoU: " + ", ".join(f"{name} {100 * value:.0f}" for name, value in sorted(result["classes"].items(), key=lambda item: item[1])))
    print("Most pixels: " + ", ".join(f"{truth} -> {label} {100 * share:.1f} %" for truth, label, share in result["confusions"]))


if __name__ == "__main__":
    main()
