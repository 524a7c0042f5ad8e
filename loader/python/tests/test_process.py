"""What happens to the threads: at forks, signals and the end of the interpreter. Each test is a process of its own.

With SIMZSS_SOAK=1 in the environment, interpreters end in the middle of a batch 200 times, and memory is watched for a thousand epochs.
"""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from conftest import SIDE, run

SOAK = bool(os.environ.get("SIMZSS_SOAK"))
HEAD = f"""
import os, sys, time
from simzss_data import Shards, tag
def shards(**settings):
    return Shards(sys.argv[1], 4, **{{"image_size": {SIDE}, "threads": 2, "output": "numpy", **settings}})
"""


def passes(code, *arguments, timeout=60):
    done = run(HEAD + textwrap.dedent(code), *arguments, timeout=timeout)
    assert done.returncode == 0, done.stderr
    return done


def test_a_fork_is_told_and_can_start_anew(folder):
    passes(
        """
        dataset = shards()
        batches = iter(dataset)
        batch = next(batches)
        samples = dataset.samples()
        next(samples)
        child = os.fork()
        if child == 0:
            for iteration in (batches, samples):
                for _ in range(4):
                    try:
                        next(iteration)
                    except RuntimeError as error:
                        assert "fork" in str(error), error
                        break
                    except StopIteration:
                        os._exit(4)
                else:
                    os._exit(3)
            del batches, batch, samples
            assert len(list(dataset)) == len(dataset) == 12
            assert len(list(dataset.samples())) == 48
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert len(list(batches)) == 11
        """,
        folder,
    )


def test_taggers_in_a_fork(folder):
    """nlprule has threads that a fork lacks; the others have none."""
    passes(
        """
        def tagged(tagger):
            return tag(["two dogs near a red car"] * 600, tagger=tagger)["mentions"].to_pylist()[599]
        assert tagged("perceptron") and tagged("brill")
        try:
            has_nlprule = bool(tagged("nlprule"))
        except ValueError as error:
            assert "nlprule-data.sh" in str(error)
            has_nlprule = False
        child = os.fork()
        if child == 0:
            assert tagged("perceptron") and tagged("brill")
            if has_nlprule:
                try:
                    tagged("nlprule")
                except RuntimeError as error:
                    assert "fork" in str(error)
                else:
                    os._exit(3)
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        """,
        folder,
    )


def test_multiprocessing_with_fork_and_spawn(folder, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        HEAD
        + textwrap.dedent(
            """
            import multiprocessing
            def work(dataset, queue):
                queue.put([key for batch in dataset for key in batch["key"]])
            if __name__ == "__main__":
                dataset = shards()
                keys = [key for batch in dataset for key in batch["key"]]
                dataset.set_epoch(0)
                for method in ("fork", "spawn"):
                    context = multiprocessing.get_context(method)
                    queue = context.Queue()
                    process = context.Process(target=work, args=(dataset, queue))
                    process.start()
                    assert queue.get(timeout=50) == keys
                    process.join()
                    assert process.exitcode == 0
            """
        )
    )
    done = subprocess.run([sys.executable, script, folder], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def stuck(tmp_path, folder):
    """A folder with a shard that nobody writes: opening the pipe waits forever."""
    os.mkfifo(tmp_path / "00000.tar")
    return tmp_path


def interrupted(code, folder):
    process = subprocess.Popen(
        [sys.executable, "-c", HEAD + textwrap.dedent(code), str(folder)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )
    assert process.stdout.readline() == "ready\n", process.stderr.read()
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    _, error = process.communicate(timeout=20)
    assert time.monotonic() - started < 5
    assert process.returncode in (-signal.SIGINT, 130, 1) and "KeyboardInterrupt" in error, error


def test_control_c_while_shards_are_opened(stuck):
    interrupted(
        """
        print("ready", flush=True)
        len(shards())
        """,
        stuck,
    )


def test_control_c_while_waiting_for_a_batch(folder, tmp_path):
    # The shard is counted from its _stats.json, and opened when its first sample is needed.
    os.mkfifo(tmp_path / "00000.tar")
    (tmp_path / "00000_stats.json").write_text('{"successes": 13}')
    code = """
        batches = iter(shards())
        print("ready", flush=True)
        next(batches)
        """
    interrupted(code, tmp_path)


def test_an_exception_in_the_consumer(folder):
    done = run(
        HEAD
        + textwrap.dedent(
            """
            for batch in shards():
                raise KeyError("mine")
            """
        ),
        folder,
    )
    assert done.returncode == 1 and done.stderr.rstrip().endswith("KeyError: 'mine'"), done.stderr


@pytest.mark.parametrize("how", ["pass", "sys.exit(0)", "keep = globals()", "del dataset", "import gc; gc.collect()"])
def test_the_interpreter_ends_in_the_middle(folder, how):
    for _ in range(40 if SOAK else 5):
        done = passes(
            f"""
            dataset = shards()
            batches, samples = iter(dataset), dataset.samples()
            batch, sample = next(batches), next(samples)
            cycle = [batches, batch]
            cycle.append(cycle)
            {how}
            """,
            folder,
        )
        assert done.stderr == ""


def test_the_interpreter_ends_while_threads_wait(stuck, folder):
    """Daemon threads: one waits for a shard that does not come, the others work all the time."""
    for _ in range(5):
        done = passes(
            """
            import threading
            def wait():
                len(Shards(sys.argv[2], 4))
            def work():
                dataset = shards(output="numpy")
                while True:
                    for batch in dataset:
                        pass
            def tags():
                while True:
                    tag(["Two dogs and a cat"] * 3_000)
            for target in (wait, work, work, tags):
                threading.Thread(target=target, daemon=True).start()
            time.sleep(0.3)
            """,
            folder,
            stuck,
        )
        assert done.stderr == ""


def test_threads_take_turns(folder):
    passes(
        """
        import threading
        dataset = shards()
        batches = iter(dataset)
        keys, errors = [], []
        def work():
            while True:
                try:
                    keys.extend(next(batches)["key"])
                except StopIteration:
                    return
                except RuntimeError as error:
                    assert "another thread" in str(error), error
                    time.sleep(0.001)
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        assert len(keys) == len(set(keys)) == 48, len(keys)
        """,
        folder,
    )


def test_the_lock_is_free_while_waiting(stuck):
    passes(
        """
        import threading
        threading.Thread(target=lambda: len(shards()), daemon=True).start()
        time.sleep(0.2)
        started = time.monotonic()
        for _ in range(20):
            time.sleep(0.001)
        assert time.monotonic() - started < 0.5
        """,
        stuck,
    )


def test_nothing_leaks(folder):
    """Memory and threads after hundreds of epochs are those after a few."""
    passes(
        """
        def resident():
            with open("/proc/self/statm") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        dataset = shards()
        def epochs(times):
            for _ in range(times):
                for batch in dataset:
                    kept = batch
                for sample in dataset.samples():
                    pass
                for batch in dataset:
                    break
        epochs(100)
        before = resident()
        epochs(int(sys.argv[2]))
        grown = resident() - before
        assert grown < 4 << 20, f"{grown} bytes more"
        assert len(os.listdir("/proc/self/task")) < 20
        assert len(os.listdir("/proc/self/fd")) < 60
        """,
        folder,
        1000 if SOAK else 300,
        timeout=600,
    )


def test_imports_neither_torch_nor_pyarrow():
    done = run(
        """
        import sys, simzss_data
        simzss_data.tag(["a dog"]).to_pylist()
        assert not {"torch", "pyarrow", "numpy"} & set(sys.modules)
        """
    )
    assert done.returncode == 0, done.stderr
