"""The programs that tools/bench/loader.sh and python.py compare with: webdataset in torch's DataLoader, DALI, SPDL, datago.

    loader_peer.py shards FOLDER TIMES PHOTOS..    writes FOLDER/shards/00000.tar .. 00007.tar, and links to the photos
                                                   as FOLDER/files/NUMBER.jpg
    loader_peer.py convert FOLDER FORMAT PHOTOS..  writes FOLDER/FORMAT/NUMBER.EXTENSION: the photos as progressive, png or webp
    loader_peer.py read SHARDS [decode_jpeg]       reads the shards once, with Pillow or torchvision's decode_jpeg, and prints
                                                   images per second
    loader_peer.py spdl SHARDS                     reads the shards once with SPDL and prints images per second
    loader_peer.py dali SHARDS                     reads the shards once with DALI's CPU pipeline and prints images per second
    loader_peer.py datago FILES                    reads the files once with datago and prints images per second
"""

import io
import json
import sys
import tarfile
import time
from pathlib import Path

SHARDS = 8


def listed(inputs):
    photos = []
    for name in map(Path, inputs):
        kinds = (".jpg", ".png", ".webp")
        photos += sorted(file for file in name.iterdir() if file.suffix in kinds) if name.is_dir() else [name]
    return photos


def convert(folder, form, inputs):
    from PIL import Image

    folder = folder / form
    folder.mkdir()
    for number, photo in enumerate(listed(inputs)):
        image = Image.open(photo).convert("RGB")
        if form == "progressive":
            image.save(folder / f"{number:09}.jpg", quality=90, progressive=True)
        else:
            image.save(folder / f"{number:09}.{form}", quality=90)


def write(folder, times, inputs):
    photos = listed(inputs) * times
    (folder / "shards").mkdir()
    (folder / "files").mkdir()
    for number, photo in enumerate(photos):
        (folder / "files" / f"{number:09}{photo.suffix}").symlink_to(photo.resolve())
    for shard in range(SHARDS):
        with tarfile.open(folder / "shards" / f"{shard:05}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for number, photo in list(enumerate(photos))[shard::SHARDS]:
                for extension, data in [(photo.suffix, photo.read_bytes()), (".txt", f"a photo, number {number}".encode())]:
                    member = tarfile.TarInfo(f"{number:09}{extension}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))


def read(shards, decoder):
    import torch
    import webdataset
    from torchvision import transforms
    from torchvision.io import ImageReadMode, decode_jpeg

    torch.set_num_threads(1)
    steps = [
        transforms.RandomResizedCrop(224, interpolation=transforms.InterpolationMode.BICUBIC),
        transforms.RandomHorizontalFlip(),
    ]
    if decoder == "decode_jpeg":
        decode = []
        steps.insert(0, lambda data: decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB))
    else:
        decode = [webdataset.decode("pilrgb")]
        steps.append(transforms.PILToTensor())
    transform = transforms.Compose(steps)
    urls = sorted(map(str, shards.glob("*.tar")))
    pipeline = webdataset.DataPipeline(
        webdataset.SimpleShardList(urls),
        webdataset.split_by_worker,
        webdataset.tarfile_to_samples(),
        webdataset.shuffle(1000),
        *decode,
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
    print(f"webdataset, {decoder} {images / (time.perf_counter() - started):.1f} images/s")


def spdl(shards):
    """Two threads decode; a third reads the tars."""
    import math
    import random

    from spdl import io as media
    from spdl.pipeline import PipelineBuilder

    def samples():
        for shard in sorted(shards.glob("*.tar")):
            with tarfile.open(shard) as tar:
                for member in tar:
                    if member.name.endswith(".jpg"):
                        yield tar.extractfile(member).read()

    def decode(data):
        packets = media.demux_image(data)
        width, height = packets.codec.width, packets.codec.height
        for _ in range(10):
            area = width * height * random.uniform(0.08, 1)
            ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                break
        else:
            w = h = min(width, height)
        crop = f"crop={w}:{h}:{random.randint(0, width - w)}:{random.randint(0, height - h)}:exact=1"
        flip = ",hflip" if random.random() < 0.5 else ""
        return media.decode_packets(packets, filter_desc=f"{crop},scale=224:224:flags=bicubic{flip},format=rgb24")

    def batch(frames):
        return media.to_numpy(media.convert_frames(frames))

    builder = PipelineBuilder().add_source(samples()).pipe(decode, concurrency=2).aggregate(64, drop_last=True).pipe(batch)
    pipeline = builder.add_sink(3).build(num_threads=3)
    images, started = 0, None
    with pipeline.auto_stop():
        for pixels in pipeline.get_iterator():
            assert pixels.shape == (64, 224, 224, 3), pixels.shape
            if started is None:
                started = time.perf_counter()
            else:
                images += len(pixels)
    print(f"SPDL {images / (time.perf_counter() - started):.1f} images/s")


def dali(shards):
    """Decodes only the crop, as the loader does."""
    from nvidia.dali import fn, pipeline_def, types

    @pipeline_def(batch_size=64, num_threads=2, device_id=None, prefetch_queue_depth=2)
    def crops():
        paths = sorted(map(str, shards.glob("*.tar")))
        files, _ = fn.readers.webdataset(paths=paths, ext=["jpg", "txt"], random_shuffle=True, initial_fill=1000, name="reader")
        images = fn.decoders.image_random_crop(
            files, device="cpu", random_area=[0.08, 1.0], random_aspect_ratio=[3 / 4, 4 / 3], num_attempts=10
        )
        images = fn.resize(images, size=[224, 224], interp_type=types.INTERP_CUBIC, antialias=True)
        return fn.flip(images, horizontal=fn.random.coin_flip())

    pipeline = crops()
    pipeline.build()
    batches = pipeline.epoch_size("reader") // 64
    assert pipeline.run()[0].as_array().shape == (64, 224, 224, 3)
    started = time.perf_counter()
    for _ in range(batches - 1):
        pipeline.run()
    print(f"DALI {(batches - 1) * 64 / (time.perf_counter() - started):.1f} images/s")


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
    elif sys.argv[1] == "convert":
        convert(Path(sys.argv[2]), sys.argv[3], sys.argv[4:])
    elif sys.argv[1] == "datago":
        datago(Path(sys.argv[2]))
    elif sys.argv[1] == "dali":
        dali(Path(sys.argv[2]))
    elif sys.argv[1] == "spdl":
        spdl(Path(sys.argv[2]))
    else:
        read(Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "Pillow")
