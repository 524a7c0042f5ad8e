"""The examples that train with accelerate and PyTorch Lightning: interrupted, and resumed on another number of processes."""

import sys

import pytest

from conftest import EXAMPLES, keys_of_steps

torch = pytest.importorskip("torch", reason="PyTorch is not installed")


def check(train, folder, saved):
    """`train` makes a command of the number of processes and the options."""
    whole = keys_of_steps(train(1, [folder]))
    assert len(whole) == 12 and all(len(names) == 8 for names in whole.values())
    found = keys_of_steps(train(2, [folder, *saved, "--stop-after", 8]))
    assert len(found) == 8
    found |= keys_of_steps(train(1, [folder, *saved]))
    assert found == whole


def test_accelerate(folder, tmp_path):
    pytest.importorskip("accelerate", reason="accelerate is not installed")

    def train(processes, options):
        launch = ["-m", "accelerate.commands.launch", "--cpu", "--num_machines", 1, "--mixed_precision", "no"]
        launch += ["--dynamo_backend", "no", "--num_processes", processes, "--main_process_port", 29641]
        return [sys.executable, *launch, EXAMPLES / "train_accelerate.py", *options]

    check(train, folder, ["--save", tmp_path / "state"])


def test_lightning(folder, tmp_path):
    pytest.importorskip("pytorch_lightning", reason="PyTorch Lightning is not installed")

    def train(processes, options):
        return [sys.executable, EXAMPLES / "train_lightning.py", *options, "--processes", processes]

    check(train, folder, ["--checkpoints", tmp_path / "checkpoints"])
