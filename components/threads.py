"""How much of the machine TensorFlow takes, and how its work is spread.

XLA runs a program for CPUs on the thread pool of the device that the program is on. TensorFlow
makes one CPU device for the whole process, so programs would either share one thread or each
spread over all of them. Here every thread is a device of its own with a pool of one thread:
programs run beside each other, whole, as they do on several GPUs.
"""

import math
import os
import sys
from pathlib import Path
from typing import Literal

_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # Of a container: microseconds in each period, or "max".


def limit(threads: int | None) -> None:
    """Say how many threads there are. To be called before TensorFlow runs its first op.

    The results do not depend on it.

    Args:
        threads: That run ops; none: one for each CPU that the process may use. What the
            environment variables TF_NUM_INTEROP_THREADS and TF_NUM_INTRAOP_THREADS say wins.
    """
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    os.environ.setdefault("TF_OVERRIDE_GLOBAL_THREADPOOL", "1")  # A pool for each device.
    os.environ.setdefault("TF_NUM_INTEROP_THREADS", str(threads or cpus()))


def cpus() -> int:
    """How many CPUs this process may use: those it may run on, or its container's share."""
    found = len(os.sched_getaffinity(0))
    try:
        quota, period = _QUOTA.read_text().split()
        return max(1, min(found, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # No container, or one without a limit.
        return found


def count() -> int:
    """How many threads are to work at once."""
    return int(os.environ.get("TF_NUM_INTEROP_THREADS") or 0) or cpus()  # 0: as TensorFlow likes.


def make_devices() -> None:
    """Make a CPU device for each thread, if TensorFlow is imported and runs nothing yet."""
    tf = sys.modules.get("tensorflow")
    if tf is None:
        return
    limit(None)
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        one = tf.config.LogicalDeviceConfiguration()
        tf.config.set_logical_device_configuration(cpu, [one] * count())
    except RuntimeError:  # Then there is one, and what would run beside each other takes turns.
        return


def devices(kind: Literal["CPU", "GPU"]) -> list[str]:
    """Where programs can run beside each other: all devices of a kind."""
    import tensorflow as tf

    return [device.name for device in tf.config.list_logical_devices(kind)]
