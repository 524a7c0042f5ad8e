"""Batches: their content, their order, and how an iteration is resumed."""

import pickle
import random

import numpy as np
import pytest
import simzss_data
from simzss_data import Shards

from conftest import COUNTS, SIDE, caption, pixels

SETTINGS = {"seed": 7, "streams": 4, "window": 5, "image_size": SIDE, "crop": "centre", "threads": 2, "output": "numpy"}


def shards(folder, batch_size=8, **settings):
    return Shards(folder, batch_size, **{**SETTINGS, **settings})


def ids(batch):
    """The shard and the sample of each row, from its key."""
    return [[int(part) for part in key.split("-")] for key in batch["key"]]


def test_a_batch(folder):
    batches = list(shards(folder))
    assert len(batches) == len(shards(folder)) == sum(COUNTS) // 8
    starts = np.cumsum([0, *COUNTS])
    for step, batch in enumerate(batches):
        assert batch["position"] == (0, step)
        image = batch["image"]
        assert (image.shape, image.dtype) == ((8, 3, SIDE, SIDE), np.uint8)
        assert image.transpose(0, 2, 3, 1).flags.c_contiguous, "a view of NHWC, not a copy"
        assert (batch["text"].shape, batch["text"].dtype) == ((8, 77), np.int64)
        assert (batch["text"][:, 0] == 49406).all()
        assert batch["skipped"] == []
        for row, (shard, sample) in enumerate(ids(batch)):
            assert (image[row].transpose(1, 2, 0) == pixels(shard, sample)).all()
            assert batch["sample"][row] == starts[shard] + sample
            text = simzss_data.tag([caption(shard, sample)])["text"].to_pylist()
            assert [batch["caption"][row]] == text


def test_images_as_the_loader_has_them(folder):
    batch = next(iter(shards(folder, layout="channels_last")))
    assert batch["image"].shape == (8, SIDE, SIDE, 3)
    assert batch["image"].flags.c_contiguous and not batch["image"].flags.owndata
    assert "image" not in next(iter(shards(folder, images=False)))
    batch = next(iter(shards(folder, captions=False)))
    assert "text" not in batch and "caption" not in batch
    exported = np.from_dlpack(next(iter(shards(folder)))["image"])
    assert exported.shape == (8, 3, SIDE, SIDE)


def test_memory_lives_as_long_as_its_array(folder):
    dataset = shards(folder, batch_size=4)
    kept = [(batch["image"], batch["image"].copy()) for _ in range(3) for batch in dataset]
    del dataset
    assert all((image == copy).all() for image, copy in kept)


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_order_is_the_specified_one(folder, order, world_size):
    for epoch in range(3):
        expected = order(COUNTS, 7, 4, 5, 8, epoch)
        ranks = []
        for rank in range(world_size):
            dataset = shards(folder, rank=rank, world_size=world_size)
            dataset.set_epoch(epoch)
            assert dataset.rows == 8 // world_size
            ranks.append([ids(batch) for batch in dataset])
        found = [[row for part in parts for row in part] for parts in zip(*ranks)]
        assert found == expected


def test_resumed_anywhere_at_any_world_size(folder, order):
    """The global sequence of keys and images is that of a run that was never interrupted."""
    expected = [batch for epoch in range(3) for batch in order(COUNTS, 7, 4, 5, 8, epoch)]
    draws = random.Random(1)
    for trial in range(25):
        images, found, state = [], [], None
        while len(found) < len(expected):
            world_size = draws.choice([1, 2, 4])
            steps = min(draws.randrange(1, 8), len(expected) - len(found))
            parts, states = [], []
            for rank in range(world_size):
                dataset = shards(folder, rank=rank, world_size=world_size)
                if state is not None:
                    dataset.load_state_dict(state)
                of_rank = []
                while len(of_rank) < steps:
                    for batch in dataset:
                        of_rank.append(batch)
                        if len(of_rank) == steps:
                            break
                parts.append(of_rank)
                states.append(dataset.state_dict())
            assert all(other == states[0] for other in states), "every rank saves the same state"
            state = states[0]
            for batches in zip(*parts):
                found.append([row for batch in batches for row in ids(batch)])
                images.append(np.concatenate([batch["image"] for batch in batches]))
        assert found == expected, trial
        for rows, image in zip(found, images):
            for (shard, sample), pixel in zip(rows, image):
                assert (pixel.transpose(1, 2, 0) == pixels(shard, sample)).all()


def test_epochs_and_states(folder):
    dataset = shards(folder)
    first = [batch["key"] for batch in dataset]
    assert dataset.position == (1, 0)
    second = [batch["key"] for batch in dataset]
    assert first != second and dataset.state_dict()["epoch"] == 2
    dataset.set_epoch(1)
    assert [batch["key"] for batch in dataset] == second

    # What was only looked at comes again.
    dataset.set_epoch(0)
    assert next(iter(dataset))["key"] == first[0]
    assert [batch["key"] for batch in dataset] == first

    # A state is of what was given out, and setting its own epoch does not undo it.
    dataset.set_epoch(0)
    batches = iter(dataset)
    next(batches), next(batches)
    state = dataset.state_dict()
    assert (state["epoch"], state["step"]) == (0, 2)
    other = shards(folder)
    other.load_state_dict(state)
    other.set_epoch(0)
    assert [batch["key"] for batch in other] == first[2:]
    other.load_state_dict(state)
    other.set_epoch(1)
    assert [batch["key"] for batch in other] == second

    # After the last batch of an epoch comes the next epoch.
    other.load_state_dict({**state, "step": len(first)})
    assert next(iter(other))["key"] == second[0]


def test_a_state_of_another_order_is_refused(folder):
    state = shards(folder).state_dict()
    for change in [{"seed": 8}, {"streams": 2}, {"window": 6}]:
        dataset = shards(folder, **change)
        dataset.load_state_dict(state)
        with pytest.raises(ValueError, match=f"{next(iter(change))} was"):
            next(iter(dataset))
    dataset = Shards([folder / "00000.tar"], 8, **SETTINGS)
    len(dataset)
    with pytest.raises(ValueError, match="samples was 48 and is 13, shards was"):
        dataset.load_state_dict(state)
    with pytest.raises(ValueError, match="version"):
        dataset.load_state_dict({})


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_selection_with_weights(folder, tmp_path, world_size):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")

    def write(name, rows):
        shard, sample, weight = zip(*rows)
        file = tmp_path / name
        pq.write_table(pa.table({"shard": shard, "sample": sample, "weight": weight}), file)
        return file

    rows = [("00000.tar", 3, 2.0), ("00002", 7, 1.0), ("00002", 8, 1.0), ("00001", 0, 4.0)]
    file = write("selection.parquet", rows)
    ranks = [
        shards(folder, 2, streams=2, selection=file, rank=rank, world_size=world_size) for rank in range(world_size)
    ]
    assert [len(rank) for rank in ranks] == [4] * world_size
    keys = sorted(key for rank in ranks for batch in rank for key in batch["key"])
    assert keys == sorted(["0-003"] * 2 + ["2-007", "2-008"] + ["1-000"] * 4)

    state = ranks[0].state_dict()
    other = shards(folder, 2, streams=2, selection=write("other.parquet", [*rows[:3], ("00001", 1, 4.0)]))
    with pytest.raises(ValueError, match="selection was"):
        other.load_state_dict(state)
        len(other)
    with pytest.raises(simzss_data.Error, match="not among the shards"):
        len(shards(folder, 2, selection=write("wrong.parquet", [("7.tar", 0, 1.0)])))


def test_ranks_of_the_environment(folder, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(ValueError, match="WORLD_SIZE=None"):
        len(shards(folder))
    monkeypatch.setenv("WORLD_SIZE", "2")
    of_environment = next(iter(shards(folder)))
    assert of_environment["key"] == next(iter(shards(folder, rank=1, world_size=2)))["key"]
    assert next(iter(shards(folder, rank=0, world_size=1)))["key"][4:] == of_environment["key"]
    with pytest.raises(ValueError, match="both"):
        len(shards(folder, rank=1))
    with pytest.raises(ValueError, match="not below"):
        len(shards(folder, rank=2, world_size=2))


def test_several_datasets(folder):
    mixed = {str(folder / "{00000..00001}.tar"): 3, str(folder / "{00002..00003}.tar"): 1}
    for batch in Shards(mixed, 8, **SETTINGS):
        assert sum(shard < 2 for shard, _ in ids(batch)) == 6
    same = Shards([[folder / "00000.tar", folder / "00001.tar"], folder / "0000[23].tar"], 8, weights=[3, 1], **SETTINGS)
    assert [batch["key"] for batch in same] == [batch["key"] for batch in Shards(mixed, 8, **SETTINGS)]


@pytest.mark.parametrize("bank", [["dog", "leather couch", "rubber duck", "ball", "parrot", "café"]])
def test_mentions(folder, bank):
    for shard in sorted(folder.glob("*.tar")):
        written = simzss_data.write_sidecar(shard)
        assert written["path"] == shard.with_suffix(".concepts.parquet") and written["samples"] > 0
    found = set()
    for batch in shards(folder, bank=bank):
        mentions = batch["mentions"]
        assert mentions["offsets"].shape == (9,) and mentions["offsets"][-1] == len(mentions["label"])
        for row in range(8):
            for at in range(*mentions["offsets"][row : row + 2]):
                words = batch["caption"][row][mentions["start"][at] : mentions["end"][at]]
                name = bank[mentions["label"][at]]
                assert words.rstrip("s") == name
                assert 0 < mentions["token_start"][at] < mentions["token_end"][at] <= 77
                found.add(name)
    assert found == set(bank)
    assert len(simzss_data.Bank(bank)) == len(bank) and pickle.loads(pickle.dumps(simzss_data.Bank(bank))).names == bank


def test_pickle_has_settings_and_position_only(folder):
    dataset = shards(folder)
    batches = iter(dataset)
    next(batches)
    copy = pickle.loads(pickle.dumps(dataset))
    assert len(pickle.dumps(dataset)) < 2_000 + len(str(folder))
    assert copy.state_dict() == dataset.state_dict()
    with pytest.raises(TypeError):
        pickle.dumps(batches)


def test_samples_as_they_are_stored(folder, order):
    expected = [row for batch in order(COUNTS, 7, 4, 5, 8, 0) for row in batch]
    dataset = shards(folder)
    stored = list(dataset.samples())
    assert [sample["__key__"] for sample in stored] == [f"{shard}-{sample:03}" for shard, sample in expected]
    assert dataset.position == (1, 0)
    sample = stored[0]
    shard, number = expected[0]
    assert sample["txt"].decode() == caption(shard, number) and sample["json"] == b'{"shard": %d}' % shard
    assert sample["png"].startswith(b"\x89PNG") and sample["__url__"] == str(folder / f"{shard:05}.tar")
    # A batch that was not given out completely comes again.
    dataset.set_epoch(0)
    samples = dataset.samples()
    for _ in range(21):
        next(samples)
    state = dataset.state_dict()
    assert (state["epoch"], state["step"]) == (0, 2)
    resumed = shards(folder, rank=1, world_size=2)
    resumed.load_state_dict(state)
    keys = [sample["__key__"] for sample in resumed.samples()]
    assert keys == [sample["__key__"] for start in range(16, 48, 8) for sample in stored[start + 4 : start + 8]]


def test_errors(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="missing.tar"):
        len(Shards(tmp_path / "missing.tar", 4))
    with pytest.raises(ValueError, match="no shards"):
        len(Shards(tmp_path, 4))
    with pytest.raises(ValueError, match="fewer than one batch"):
        len(Shards(folder, 64))
    with pytest.raises(ValueError, match='crop is "middle"'):
        len(Shards(folder, 4, crop="middle"))
    with pytest.raises(ValueError, match="layout"):
        Shards(folder, 4, layout="NCHW")
    with pytest.raises(ValueError, match="3 ranks cannot share 4 streams"):
        len(shards(folder, rank=0, world_size=3))
    with pytest.raises(FileNotFoundError, match="no sidecar"):
        len(Shards(without_sidecars(folder, tmp_path / "plain"), 4, bank=["dog"]))
    with pytest.raises(TypeError):
        len(Shards(folder, "eight"))
    (tmp_path / "cut.tar").write_bytes((folder / "00000.tar").read_bytes()[:3_000])
    with pytest.raises(simzss_data.Error, match="truncated|damaged"):
        list(Shards(tmp_path / "cut.tar", 1, threads=1, image_size=SIDE))


def without_sidecars(folder, copy):
    copy.mkdir()
    for shard in folder.glob("*.tar"):
        (copy / shard.name).write_bytes(shard.read_bytes())
    return copy


def test_broken_samples_are_replaced_and_reported(folder, tmp_path):
    data = bytearray((folder / "00000.tar").read_bytes())
    at = data.index(b"\x89PNG")
    data[at : at + 4] = b"\0\0\0\0"
    (tmp_path / "00000.tar").write_bytes(data)
    skipped = [entry for batch in Shards(tmp_path, 4, **SETTINGS) for entry in batch["skipped"]]
    assert [(shard, key) for shard, key, _ in skipped] == [(str(tmp_path / "00000.tar"), "0-000")]
