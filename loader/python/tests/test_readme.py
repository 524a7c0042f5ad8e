"""The examples of the README print what it says."""

import re
import shutil
from pathlib import Path

import pytest

from conftest import run

README = (Path(__file__).parents[1] / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("code, printed", EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example(folder, tmp_path, code, printed):
    shutil.copytree(folder, tmp_path / "shards", ignore=shutil.ignore_patterns("*.parquet"))
    done = run(f"import os, sys\nos.chdir(sys.argv[1])\n{code}", tmp_path)
    assert (done.returncode, done.stdout.replace("torch.uint8", "uint8")) == (0, printed), done.stderr


def test_there_are_examples():
    assert len(EXAMPLES) == README.count("```python")
