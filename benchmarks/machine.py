"""Describe the machine of a benchmark, and detect other load on it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import sys
import threading
import time
from pathlib import Path

BUSY = 0.05  # fraction of processor time used by other processes


def describe() -> dict:
    """Describe the machine: processor, cores, vector instructions, memory."""
    found = {"cpu": platform.processor() or platform.machine(), "system": platform.platform()}
    flags: list[str] = []
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines():
            key, _, value = (part.strip() for part in line.partition(":"))
            if key == "model name":
                found["cpu"] = value
            elif key in ("flags", "Features"):
                flags = value.split()
    vectors = ("avx", "avx2", "fma", "avx512f", "asimd", "sve")
    return {**found, "cores": cores(), "vectors": [v for v in vectors if v in flags]}


def cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def taken_by_others(seconds: float = 0.5) -> float:
    """Return the fraction of processor time that other processes use, from 0 to 1.

    One thread per core computes hashes, which does not need Python's lock. The difference between
    its processor time and the elapsed time was used by others.
    """
    lost, block = [], bytes(1 << 20)

    def work():
        start, own = time.perf_counter(), time.thread_time()
        while time.perf_counter() - start < seconds:
            hashlib.sha256(block).digest()
        lost.append(1 - (time.thread_time() - own) / (time.perf_counter() - start))

    threads = [threading.Thread(target=work) for _ in range(cores())]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return max(0.0, sum(lost) / len(lost))


def wait_for_quiet(longest_s: float) -> bool:
    """Wait until the machine is idle; return False if it is still busy after `longest_s`."""
    start, told = time.monotonic(), False
    while True:
        share = taken_by_others()
        if share <= BUSY:
            return True
        if time.monotonic() - start >= longest_s:
            return False
        if not told:
            print(f"Something else takes {share:.0%} of the processors; waiting.", file=sys.stderr)
            told = True
        time.sleep(5)
