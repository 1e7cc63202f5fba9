"""A separate process that saves under bad conditions, for `test_atomic.py`.

``python saving_process.py TASK FOLDER`` runs one function below and prints what it saw as JSON.
Only the modules that save are imported, so that hundreds of forks take seconds.
"""

import contextlib
import json
import os
import resource
import signal
import sys
import types
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

if __name__ == "__main__":
    package = types.ModuleType("seqnet")
    package.__path__ = [str(Path(__file__).parents[2] / "seqnet")]
    sys.modules["seqnet"] = package
from seqnet.saving import hdf5

warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside NumPy's idle threads
SAVING = {"write", "checksum", "atomic_write", "create", "remove_leftovers", "sync_folder"}


def save(path, number):
    """Save a file like a model's, whose every part contains the number."""
    arrays = {
        f"weights/layer_{k}/kernel": np.full((30, 10 * (k + 1)), number, "float32")
        for k in range(4)
    }
    hdf5.write(path, {"number": number}, arrays)


def number_in(path):
    """Return the number in a file; raise if the file is incomplete."""
    header, arrays = hdf5.read(path)
    assert len(arrays) == 4
    assert all((a == header["number"]).all() for a in arrays.values())
    return header["number"]


def in_a_fork(action):
    """Run an action in a forked process; return its exit code, or minus its signal."""
    process = os.fork()
    if not process:
        code = 9
        try:
            signal.alarm(20)
            action()
            code = 0
        except OSError as error:
            told = "nothing was saved" in str(error) and error.filename is not None
            code = 1 if told else 2
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def outcome(path, code):
    """Return the exit code of a save, the number in the file, and the number of other files."""
    return f"{code} {number_in(path)} {len(os.listdir(path.parent)) - 1}"


def killed(folder):
    """Kill a save before every line and every call of the code that writes to the disk."""
    path, seen, last = folder / "model.h5", Counter(), 0
    for moment in range(1, 100_000):
        save(path, 1)

        def saving_until(moment=moment):
            left = moment

            def event(frame, kind, argument):
                nonlocal left
                if frame.f_code.co_qualname in SAVING:
                    left -= 1
                    if not left:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return event
                return None

            sys.settrace(event)
            sys.setprofile(event)
            save(path, 2)

        code = in_a_fork(saving_until)
        seen[outcome(path, code)] += 1
        if code == 0:
            last = moment
            break
    save(path, 3)
    return {"outcomes": seen, "moments": last, "files at the end": os.listdir(folder)}


def limited(folder, handler):
    """Save with a limit on the file size, for every multiple of 512 bytes."""
    path, seen = folder / "model.h5", Counter()
    save(path, 2)
    size = path.stat().st_size
    for limit in range(0, size + 512, 512):
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        save(path, 1)

        def saving_within(limit=limit):
            signal.signal(signal.SIGXFSZ, handler)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            save(path, 2)

        seen[outcome(path, in_a_fork(saving_within))] += 1
    save(path, 3)
    return {"outcomes": seen, "size": size, "files at the end": os.listdir(folder)}


def full(folder):
    """Save on a full disk: the system refuses further writes."""
    return limited(folder, signal.SIG_IGN)


def shot(folder):
    """Save where a further write kills the process."""
    return limited(folder, signal.SIG_DFL)


def race(folder):
    """Save to one path repeatedly while other processes do the same, and read it."""
    path, read = folder / "model.h5", 0
    for k in range(60):
        save(path, os.getpid() * 100 + k)
        number_in(path)
        read += 1
    return {"read": read}


if __name__ == "__main__":
    with contextlib.suppress(AttributeError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print(json.dumps(globals()[sys.argv[1]](Path(sys.argv[2]))))
