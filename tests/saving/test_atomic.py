"""Saving under bad conditions: an interruption always leaves one complete file and no others."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from seqnet.saving import atomic, hdf5

SCRIPT = Path(__file__).parent / "saving_process.py"


def write(path, number):
    hdf5.write(path, {"number": number}, {"a": np.full(20_000, number), "b": np.ones((2, 2))})


def number_in(path):
    header, arrays = hdf5.read(path)
    assert (arrays["a"] == header["number"]).all()
    return header["number"]


def start(task, folder):
    return subprocess.Popen(
        [sys.executable, SCRIPT, task, folder],
        stdout=subprocess.PIPE,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        text=True,
    )


def result(process):
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 0
    return json.loads(output)


class Steps:
    """The steps of saving; one of them fails or is interrupted."""

    def __init__(self, failing, error):
        self.left, self.error, self.names = failing, error, []

    def take(self, name):
        self.names.append(name)
        self.left -= 1
        if self.left == 0:
            raise self.error

    def around(self, name, function):
        def step(*arguments, **options):
            self.take(name)
            return function(*arguments, **options)

        return step


class Watched:
    """A file that counts each method call as a step."""

    def __init__(self, file, steps):
        self.file, self.steps, self.name = file, steps, file.name

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def __getattr__(self, name):
        found = getattr(self.file, name)
        return self.steps.around(name, found) if callable(found) and name != "fileno" else found


ERRORS = [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EIO, "Input/output error"),
    KeyboardInterrupt(),
    MemoryError(),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_failure_at_any_step_leaves_one_complete_file(tmp_path, error):
    path = tmp_path / "model.h5"
    create, kept, names = atomic.create, 0, []
    for failing in range(1, 200):
        write(path, 1)
        steps = Steps(failing, error)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                atomic, "create", lambda *a, s=steps: Watched(s.around("create", create)(*a), s)
            )
            for name in ("fsync", "replace"):
                patch.setattr(os, name, steps.around(name, getattr(os, name)))
            patch.setattr(atomic.shutil, "copymode", steps.around("chmod", lambda *a: None))
            with contextlib.suppress(type(error)):
                write(path, 2)
        assert os.listdir(tmp_path) == ["model.h5"]
        number = number_in(path)
        assert number == (2 if "replace" in steps.names[: failing - 1] else 1)
        kept += number == 1
        names = steps.names
        if steps.left > 0:
            break
    assert steps.left > 0
    assert number == 2
    assert kept > 10
    assert names[-6:] == ["write", "flush", "fsync", "chmod", "replace", "fsync"]


def test_a_file_is_closed_before_it_is_removed_as_windows_requires(tmp_path, monkeypatch):
    files, create, unlink = [], atomic.create, Path.unlink

    def remove(path, **options):
        assert files[-1].closed
        unlink(path, **options)

    monkeypatch.setattr(atomic, "create", lambda *a: files.append(create(*a)) or files[-1])
    monkeypatch.setattr(Path, "unlink", remove)
    with pytest.raises(RuntimeError), atomic.atomic_write(tmp_path / "model.h5"):
        raise RuntimeError
    assert os.listdir(tmp_path) == []


def test_the_error_of_a_failure_says_that_nothing_was_lost(tmp_path, monkeypatch):
    path = tmp_path / "model.h5"
    write(path, 1)
    monkeypatch.setattr(os, "fsync", Steps(1, ERRORS[0]).around("fsync", os.fsync))
    with pytest.raises(
        OSError, match=r"No space left.*nothing was saved.*unchanged.*model.h5"
    ) as e:
        write(path, 2)
    assert e.value.errno == errno.ENOSPC


def test_a_kill_at_any_moment_leaves_a_complete_file(tmp_path):
    found = result(start("killed", tmp_path))
    outcomes = found["outcomes"]
    # exit code (-9: killed), the number in the file, the number of other files
    assert set(outcomes) <= {"-9 1 0", "-9 1 1", "-9 2 0", "0 2 0"}
    assert outcomes["0 2 0"] == 1
    assert outcomes["-9 1 1"] > 50, outcomes
    assert outcomes["-9 2 0"] > 5, outcomes
    assert found["files at the end"] == ["model.h5"]


def test_a_disk_that_is_full_at_any_size_leaves_a_complete_file(tmp_path):
    found = result(start("full", tmp_path))
    assert set(found["outcomes"]) == {"1 1 0", "0 2 0"}
    assert found["outcomes"]["1 1 0"] == -(-found["size"] // 512)
    assert found["files at the end"] == ["model.h5"]


def test_a_kill_at_any_size_leaves_a_complete_file(tmp_path):
    found = result(start("shot", tmp_path))
    assert set(found["outcomes"]) == {"-25 1 1", "0 2 0"}
    assert found["files at the end"] == ["model.h5"]


def test_processes_that_save_to_one_path_at_once_leave_a_complete_file(tmp_path):
    processes = [start("race", tmp_path) for _ in range(3)]
    assert [result(p)["read"] for p in processes] == [60, 60, 60]
    assert os.listdir(tmp_path) == ["model.h5"]


def test_threads_that_save_to_one_path_at_once_leave_a_complete_file(tmp_path):
    path = tmp_path / "model.h5"

    def save_and_read(number):
        write(path, number)
        return number_in(path)

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(save_and_read, range(60))) <= set(range(60))
    assert os.listdir(tmp_path) == ["model.h5"]


def test_files_left_by_a_killed_process_are_removed_and_those_of_a_running_one_are_kept(tmp_path):
    dead, living = (tmp_path / f".seqnet-{name}.part" for name in ("dead", "living"))
    dead.write_bytes(b"half")
    (tmp_path / ".seqnet-folder.part").mkdir()
    (tmp_path / "notes.part").write_bytes(b"mine")
    with open(living, "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        write(tmp_path / "model.h5", 1)
    names = [".seqnet-folder.part", ".seqnet-living.part", "model.h5", "notes.part"]
    assert sorted(os.listdir(tmp_path)) == names


def test_a_symbolic_link_is_kept(tmp_path):
    (tmp_path / "store").mkdir()
    link, target = tmp_path / "model.h5", tmp_path / "store" / "first.h5"
    link.symlink_to(Path("store") / "first.h5")
    for number in (1, 2):  # the first save creates the target of the link
        write(link, number)
        assert link.is_symlink()
        assert not target.is_symlink()
        assert number_in(link) == number_in(target) == number
    assert os.listdir(tmp_path / "store") == ["first.h5"]


def test_permissions_of_a_file_are_kept(tmp_path):
    path = tmp_path / "model.h5"
    before = os.umask(0o027)
    try:
        write(path, 1)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    path.chmod(0o600)
    write(path, 2)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_read_only_file_is_kept(tmp_path):
    path = tmp_path / "model.h5"
    write(path, 1)
    path.chmod(0o444)
    with pytest.raises(PermissionError, match=r"model.h5 is read-only"):
        write(path, 2)
    assert number_in(path) == 1
    assert os.listdir(tmp_path) == ["model.h5"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_to_is_refused(tmp_path):
    tmp_path.chmod(0o555)
    with pytest.raises(PermissionError, match=r"nothing was saved.*model.h5"):
        write(tmp_path / "model.h5", 1)
    tmp_path.chmod(0o755)


def test_paths_that_are_no_files_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for number, function in enumerate((lambda p: write(p, 1), hdf5.read)):
        with pytest.raises((OSError, ValueError)[number], match="pipe is not a regular file"):
            function(tmp_path / "pipe")
        with pytest.raises(IsADirectoryError, match="is a directory"):
            function(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"folder .*missing"):
        write(tmp_path / "missing" / "model.h5", 1)
    assert os.listdir(tmp_path) == ["pipe"]


@pytest.mark.parametrize("name", ["n" * 255, "mödel ü.h5", "*[a]?.h5", ".h5"])
def test_any_valid_file_name_is_accepted(tmp_path, name):
    write(tmp_path / name, 1)
    write(tmp_path / name, 2)
    assert number_in(tmp_path / name) == 2
    assert os.listdir(tmp_path) == [name]
