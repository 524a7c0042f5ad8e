"""The programs that tools/bench/loader.sh compares with: webdataset, Pillow and torchvision in torch's DataLoader; datago.

    loader_peer.py shards FOLDER TIMES PHOTOS..    writes FOLDER/shards/00000.tar .. 00007.tar, and links to the photos
                                                   as FOLDER/files/NUMBER.jpg
    loader_peer.py read SHARDS                     reads the shards once and prints images per second
    loader_peer.py datago FILES                    reads the files once with datago and prints images per second
"""

import io
import json
import sys
import tarfile
import time
from pathlib import Path

SHARDS = 8


def write(folder, times, inputs):
    photos = []
    for name in map(Path, inputs):
        photos += sorted(name.glob("*.jpg")) if name.is_dir() else [name]
    photos *= times
    (folder / "shards").mkdir()
    (folder / "files").mkdir()
    for number, photo in enumerate(photos):
        (folder / "files" / f"{number:09}.jpg").symlink_to(photo.resolve())
    for shard in range(SHARDS):
        with tarfile.open(folder / "shards" / f"{shard:05}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for number, photo in list(enumerate(photos))[shard::SHARDS]:
                for extension, data in [("jpg", photo.read_bytes()), ("txt", f"a photo, number {number}".encode())]:
                    member = tarfile.TarInfo(f"{number:09}.{extension}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))


def read(shards):
    import torch
    import webdataset
    from torchvision import transforms

    torch.set_num_threads(1)
    transform = transforms.Compose([
        transforms.RandomResizedCrop(224, interpolation=transforms.InterpolationMode.BICUBIC),
        transforms.RandomHorizontalFlip(),
        transforms.PILToTensor(),
    ])
    urls = sorted(map(str, shards.glob("*.tar")))
    pipeline = webdataset.DataPipeline(
        webdataset.SimpleShardList(urls),
        webdataset.split_by_worker,
        webdataset.tarfile_to_samples(),
        webdataset.shuffle(1000),
        webdataset.decode("pilrgb"),
        webdataset.to_tuple("jpg", "txt"),
        webdataset.map_tuple(transform, lambda text: text),
        webdataset.batched(64, partial=False),
    )
    loader = torch.utils.data.DataLoader(pipeline, batch_size=None, num_workers=2, prefetch_factor=2)
    # The clock starts after the first batch, so that starting the worker processes is not measured.
    images, started = 0, None
    for pixels, _ in loader:
        if started is None:
            started = time.perf_counter()
        else:
            images += len(pixels)
    print(f"webdataset {images / (time.perf_counter() - started):.1f} images/s")


def datago(files):
    from datago import DatagoClient

    config = {
        "source_type": "file",
        "source_config": {"root_path": str(files), "random_sampling": False, "rank": 0, "world_size": 1},
        # Only square images.
        "image_config": {
            "crop_and_resize": True,
            "default_image_size": 224,
            "downsampling_ratio": 16,
            "min_aspect_ratio": 0.99,
            "max_aspect_ratio": 1.01,
            "pre_encode_images": False,
        },
        "prefetch_buffer_size": 128,
        "samples_buffer_size": 128,
        "limit": len(list(files.iterdir())),
    }
    client = DatagoClient(json.dumps(config))
    client.start()
    images, started = 0, None
    while (sample := client.get_sample()) is not None:
        if started is None:
            assert (sample.image.width, sample.image.height) == (224, 224)
            started = time.perf_counter()
        else:
            images += 1
    print(f"datago {images / (time.perf_counter() - started):.1f} images/s")
    client.stop()


if __name__ == "__main__":
    if sys.argv[1] == "shards":
        write(Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
    elif sys.argv[1] == "datago":
        datago(Path(sys.argv[2]))
    else:
        read(Path(sys.argv[2]))
