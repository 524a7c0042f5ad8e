"""With PyTorch: tensors, DataLoader, distributed processes."""

import subprocess
import sys
import textwrap

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from torch.utils.data import DataLoader, IterableDataset  # noqa: E402

from conftest import COUNTS, EXAMPLES, SIDE, keys_of_steps  # noqa: E402
from simzss_data import Shards  # noqa: E402

SETTINGS = {"seed": 7, "streams": 4, "window": 5, "image_size": SIDE, "crop": "centre", "threads": 2}


def keys(batches):
    return [key for batch in batches for key in batch["key"]]


def test_tensors_without_a_copy(folder):
    dataset = Shards(folder, 8, **SETTINGS)
    assert isinstance(dataset, IterableDataset)
    expected = list(Shards(folder, 8, **SETTINGS, output="numpy"))
    for batch, other in zip(dataset, expected, strict=True):
        image = batch["image"]
        assert image.dtype == torch.uint8 and image.shape == (8, 3, SIDE, SIDE)
        assert image.is_contiguous(memory_format=torch.channels_last)
        assert (image.numpy() == other["image"]).all() and (batch["text"].numpy() == other["text"]).all()
        assert batch["mentions"]["offsets"].dtype == torch.int32
        image.fill_(0)
    batch = next(iter(Shards(folder, 8, **SETTINGS, layout="channels_last")))
    assert batch["image"].is_contiguous() and batch["image"].shape == (8, SIDE, SIDE, 3)


def test_data_loader(folder):
    dataset = Shards(folder, 8, **SETTINGS)
    loader = DataLoader(dataset, batch_size=None, num_workers=0)
    assert len(loader) == sum(COUNTS) // 8
    first = [batch for batch in loader]
    assert first[0]["position"] == (0, 0) and first[0]["image"].is_contiguous(memory_format=torch.channels_last)
    second = [batch for batch in loader]
    assert keys(first) != keys(second)
    dataset.set_epoch(0)
    assert keys(loader) == keys(first)


def test_workers_are_refused(folder):
    loader = DataLoader(Shards(folder, 8, **SETTINGS), batch_size=None, num_workers=2)
    with pytest.raises(ValueError, match="num_workers=0"):
        next(iter(loader))


def test_stateful_data_loader(folder):
    stateful = pytest.importorskip("torchdata.stateful_dataloader", reason="torchdata is not installed")
    expected = keys(Shards(folder, 8, **SETTINGS))
    loader = stateful.StatefulDataLoader(Shards(folder, 8, **SETTINGS), batch_size=None, num_workers=0)
    batches = iter(loader)
    before = keys([next(batches), next(batches)])
    state = loader.state_dict()
    resumed = stateful.StatefulDataLoader(Shards(folder, 8, **SETTINGS), batch_size=None, num_workers=0)
    resumed.load_state_dict(state)
    assert before + keys(resumed) == expected


def test_memory_that_python_lends(folder, monkeypatch):
    """The way of pinned memory, which needs a GPU, with memory that is not pinned."""
    from simzss_data import _arrays

    given = []

    def lend(self, size):
        tensor = torch.empty(size, dtype=torch.uint8)
        given.append(tensor.data_ptr())
        return tensor, tensor.data_ptr()

    monkeypatch.setattr(_arrays.Torch, "_lend", lend)
    expected = [batch["image"] for batch in Shards(folder, 8, **SETTINGS, pin_memory=False)]
    assert not given
    images = [batch["image"] for batch in Shards(folder, 8, **SETTINGS, pin_memory=True)]
    assert len(images) == len(expected) and all((a == b).all() for a, b in zip(images, expected))
    assert [image.data_ptr() for image in images] == given[: len(images)]
    assert images[0].is_contiguous(memory_format=torch.channels_last)

    def fails(self, size):
        raise MemoryError(f"no {size} bytes")

    monkeypatch.setattr(_arrays.Torch, "_lend", fails)
    with pytest.raises(MemoryError, match=f"no {8 * SIDE * SIDE * 3} bytes"):
        next(iter(Shards(folder, 8, **SETTINGS, pin_memory=True)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_pinned_memory(folder):
    for batch in Shards(folder, 8, **SETTINGS):
        assert batch["image"].is_pinned()
        on_device = batch["image"].to("cuda", non_blocking=True)
        assert (on_device.cpu() == batch["image"]).all()


def test_ranks_of_torch_distributed(folder, tmp_path):
    """Two processes of torchrun, with Gloo."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import os, sys, torch.distributed as dist
            from simzss_data import Shards
            dist.init_process_group("gloo")
            rank = dist.get_rank()
            os.environ["RANK"] = "7"
            dataset = Shards(sys.argv[1], 8, **{SETTINGS!r})
            keys = [batch["key"] for batch in dataset]
            gathered = [None, None]
            dist.all_gather_object(gathered, keys)
            if rank == 0:
                both = [key for parts in zip(*gathered) for part in parts for key in part]
                alone = Shards(sys.argv[1], 8, rank=0, world_size=1, **{SETTINGS!r})
                assert both == [key for batch in alone for key in batch["key"]]
            dist.destroy_process_group()
            """
        )
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29611", script, folder]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def torchrun(processes, port, *arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", processes, "--master-port", port]
    return keys_of_steps([*command, *arguments])


def test_the_example_resumes_with_another_number_of_processes(folder, tmp_path):
    script, checkpoint = EXAMPLES / "train_ddp.py", tmp_path / "checkpoint.pt"
    whole = torchrun(1, 29621, script, folder, "--epochs", 2)
    assert len(whole) == 12
    found = torchrun(2, 29622, script, folder, "--epochs", 2, "--checkpoint", checkpoint, "--stop-after", 8)
    assert len(found) == 8
    found |= torchrun(1, 29623, script, folder, "--epochs", 2, "--checkpoint", checkpoint)
    assert found == whole


def test_open_clip_trains_on_shards(folder, monkeypatch):
    """An epoch of open_clip's own trainer, with a tiny model."""
    open_clip = pytest.importorskip("open_clip", reason="open_clip_torch is not installed")
    train = pytest.importorskip("open_clip_train.train", reason="open_clip_torch is not installed")
    params = pytest.importorskip("open_clip_train.params")
    monkeypatch.syspath_prepend(EXAMPLES)
    import open_clip_data

    args = params.parse_args(["--batch-size", "4", "--precision", "fp32", "--epochs", "1", "--log-every-n-steps", "1"])
    args.device, args.rank, args.local_rank, args.world_size, args.distributed = "cpu", 0, 0, 1, False
    args.distill, args.wandb, args.tensorboard, args.horovod, args.save_logs = False, False, False, False, False
    model = open_clip.model.CLIP(
        embed_dim=16,
        vision_cfg={"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16},
        text_cfg={"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
        output_dict=True,
    )
    data = {"train": open_clip_data.get_data(folder, 4, 32)}
    assert data["train"].dataloader.num_batches == 12
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    before = [parameter.clone() for parameter in model.parameters()]
    train.train_one_epoch(
        model, data, open_clip.ClipLoss(), 0, optimizer, None, lambda step: None, None, args
    )
    assert any((a != b).any() for a, b in zip(before, model.parameters()))
    assert data["train"].dataloader.shards.position == (1, 0)
