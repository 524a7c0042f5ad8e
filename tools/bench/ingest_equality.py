#!/usr/bin/env python3
"""Checks that `ingest` writes the same shards as img2dataset: keys, columns, statuses, captions, JSON members, pixels.

    tools/bench/ingest_equality.py PHOTOS..

Both programs download the same list from a local server: the photographs as JPEG, PNG and WebP, in grey, smaller, with
alpha, and files that are not images or do not exist. `ingest` runs with `--exact --ignore-orientation`, once per resize
mode with PNG output, where JPEG compression does not hide differences, and once with JPEG output. Fails at the first
image whose values (0 to 255) differ by more than 2 on average, and at any other difference. Needs what `ingest.py` needs;
restarts itself in the virtual environment of `ingest.py`.
"""

import functools
import http.server
import io
import json
import os
import shutil
import sys
import tarfile
import tempfile
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import ingest as bench

# Maximum mean difference of an image's values (0 to 255).
TOLERANCE = 2.0


class Quiet(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass


def variants(photos, folder):
    """Writes the images to download; returns their file names."""
    from PIL import Image

    names = []
    for number, photo in enumerate(photos):
        shutil.copyfile(photo, folder / f"{number}.jpg")
        names.append(f"{number}.jpg")
    for number, photo in enumerate(photos[:20]):
        image = Image.open(photo).convert("RGB")
        image.save(folder / f"{number}.png")
        image.save(folder / f"{number}.webp", quality=80)
        image.convert("L").save(folder / f"grey{number}.jpg", quality=90)
        image.convert("L").save(folder / f"grey{number}.png")
        image.resize((200, 150)).save(folder / f"small{number}.jpg", quality=90)
        alpha = image.copy()
        alpha.putalpha(Image.linear_gradient("L").resize(image.size))
        alpha.save(folder / f"alpha{number}.png")
        names += [f"{number}.png", f"{number}.webp", f"grey{number}.jpg", f"grey{number}.png"]
        names += [f"small{number}.jpg", f"alpha{number}.png"]
    (folder / "page.jpg").write_bytes(b"<!doctype html><html><body>no</body></html>")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.png").write_bytes(b"just text")
    return names + ["page.jpg", "text.png", "missing.jpg"]


def read(folder):
    """The tars' members by file name, the tables' rows by key, and the tables' columns with their types."""
    import pyarrow.parquet

    members, rows, columns = {}, {}, None
    for tar in sorted(folder.glob("*.tar")):
        with tarfile.open(tar) as archive:
            for member in archive:
                members[member.name] = archive.extractfile(member).read()
    for table in sorted(folder.glob("*.parquet")):
        table = pyarrow.parquet.read_table(table)
        columns = [(field.name, str(field.type)) for field in table.schema]
        rows |= {row["key"]: row for row in table.to_pylist()}
    return members, rows, columns


def same(one, other, what):
    if one != other:
        sys.exit(f"{what}: img2dataset has {one!r}, ingest {other!r}")


def compare(theirs, ours):
    import numpy
    from PIL import Image

    (members, rows, columns), (our_members, our_rows, our_columns) = read(theirs), read(ours)
    own = [("offset", "int64"), ("length", "int64")]
    same(columns, [column for column in our_columns if column not in own], "columns")
    same(sorted(rows), sorted(our_rows), "keys in the tables")
    for key, row in rows.items():
        # Each program has its own wording of errors and its own names of EXIF tags.
        for name in set(row) - {"error_message", "exif"}:
            same(row[name], our_rows[key][name], f"{name} of {key} ({row['url']})")
        same(row["error_message"] is None, our_rows[key]["error_message"] is None, f"error_message of {key}")
    same(sorted(members), sorted(our_members), "members of the tars")
    differences = []
    for name, data in members.items():
        if name.endswith(".txt"):
            same(data, our_members[name], name)
        elif name.endswith(".json"):
            their_json, our_json = json.loads(data), json.loads(our_members[name])
            same(list(their_json), list(our_json), f"fields of {name}")
            for field in set(their_json) - {"exif"}:
                same(their_json[field], our_json[field], f"{field} of {name}")
        else:
            image, our_image = (Image.open(io.BytesIO(d)) for d in (data, our_members[name]))
            same(image.mode, our_image.mode, f"mode of {name}")
            same(image.size, our_image.size, f"size of {name}")
            difference = numpy.asarray(image, dtype=float) - numpy.asarray(our_image, dtype=float)
            differences.append(numpy.abs(difference).mean())
            if differences[-1] > TOLERANCE:
                sys.exit(f"{name}: pixels differ by {differences[-1]:.2f} on average")
    for stats in sorted(theirs.glob("*_stats.json")):
        their_stats, our_stats = json.loads(stats.read_text()), json.loads((ours / stats.name).read_text())
        for field in ("count", "successes", "failed_to_download", "failed_to_resize"):
            same(their_stats[field], our_stats[field], f"{field} of {stats.name}")
    return len(rows), len(differences), max(differences), sum(differences) / len(differences)


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    python = bench.environment()
    if Path(sys.prefix).resolve() != Path(python).parents[1].resolve():
        os.execv(python, [str(python), *sys.argv])
    program = bench.build()
    photos = [f for p in map(Path, sys.argv[1:]) for f in (sorted(p.glob("*.jpg")) if p.is_dir() else [p])]
    folder = Path(tempfile.mkdtemp())
    try:
        (folder / "www").mkdir()
        names = variants(photos, folder / "www")
        handler = functools.partial(Quiet, directory=folder / "www")
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        import pyarrow
        import pyarrow.parquet

        columns = {
            "url": [f"{address}/{name}" for name in names],
            "caption": [f"the caption of {name}" for name in names],
            "number": list(range(len(names))),
        }
        # A Parquet file has types. In a CSV file each program would guess them in its own way.
        pyarrow.parquet.write_table(pyarrow.table(columns), folder / "list.parquet")
        results = []
        for mode, extension, quality in [
            ("keep_ratio", "png", 1), ("border", "png", 1), ("center_crop", "png", 1), ("keep_ratio_largest", "png", 1),
            ("no", "png", 1), ("keep_ratio", "jpg", 95),
        ]:
            theirs, ours = folder / f"theirs-{mode}-{extension}", folder / f"ours-{mode}-{extension}"
            common = ["--image_size", "256", "--resize_mode", mode, "--encode_format", extension]
            common += ["--encode_quality", str(quality)]
            bench.run([
                python, Path(python).with_name("img2dataset"), "--url_list", folder / "list.parquet", "--input_format", "parquet",
                "--url_col", "url", "--caption_col", "caption", "--output_format", "webdataset", "--output_folder",
                theirs, "--processes_count", "2", "--thread_count", "16", "--number_sample_per_shard", "200",
                "--save_additional_columns", '["number"]', "--enable_wandb", "False", *common,
            ], folder / "log")
            bench.run([
                program, "download", folder / "list.parquet", "--out", ours, "--allow-private",
                "--shard-size", "200", "--save-additional-columns", "number", "--exact", "--ignore-orientation",
                *[option.replace("_", "-") if option.startswith("--") else option for option in common],
            ], folder / "log")
            rows, images, worst, mean = compare(theirs, ours)
            results.append({"mode": mode, "type": extension, "rows": rows, "images": images, "worst": worst, "mean": mean})
            print(f"{mode:<20}{extension:<5}{rows:>5} rows are equal; {images} images: mean difference {mean:.3f} "
                  f"of 255, largest of one image {worst:.3f}", flush=True)
        print(json.dumps(results))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
