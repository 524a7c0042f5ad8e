"""How many values of the loader's decoded photos and crops differ from Pillow's, and by how much.

    python tools/bench/pillow.py PHOTOS    (a folder of JPEGs; needs Pillow and NumPy)

Pillow 12 and 13 resize some regions in another order (docs/loader.md); what was used is printed.
Crops to 224 px: the centre, and random ones of 90 to 100 % of the area, of 8 to 100 %, and of 0.2 to 2 % (enlarged).
"""

import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import PIL
from PIL import Image


def expected(photo, kind, left, top, width, height, size):
    if kind == "decoded":
        return photo
    if kind != "centre":
        return photo.crop((left, top, left + width, top + height)).resize((size, size), Image.Resampling.BICUBIC)
    # torchvision's Resize and CenterCrop, which call Pillow.
    short = min(width, height)
    photo = photo.resize((size * width // short, size * height // short), Image.Resampling.BICUBIC)
    left, top = (round((side - size) / 2) for side in photo.size)
    return photo.crop((left, top, left + size, top + size))


photos = sorted(str(path) for path in Path(sys.argv[1]).resolve().glob("*.jpg"))
root = Path(__file__).resolve().parents[2]
command = ["cargo", "run", "--release", "--locked", "--quiet", "-p", "simzss-loader", "--example", "crops", "--", *photos]
counts = defaultdict(lambda: np.zeros(256, dtype=np.int64))
with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE) as program:
    while line := program.stdout.readline().decode():
        path, kind, *numbers = line.rsplit(" ", 7)
        *numbers, length = map(int, numbers)
        ours = np.frombuffer(program.stdout.read(length), dtype=np.uint8).astype(np.int64)
        theirs = np.asarray(expected(Image.open(path).convert("RGB"), kind, *numbers)).astype(np.int64).ravel()
        counts[kind] += np.bincount(np.abs(ours - theirs), minlength=256)
if program.returncode:
    sys.exit("the loader's example crops failed")
print(f"{len(photos)} photos, Pillow {PIL.__version__}")
for kind, count in counts.items():
    shares = ", ".join(f"{100 * count[by] / count.sum():.4f} % by {by}" for by in range(1, 256) if count[by])
    print(f"{kind}: {count.sum()} values, {shares or 'all equal'}")
