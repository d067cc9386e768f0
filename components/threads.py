"""How TensorFlow's work is spread over CPUs. To be called before TensorFlow runs its first op."""

import os


def limit(threads: int | None) -> None:
    """Let ops run beside each other, each on one thread.

    The trainer's ops take about a millisecond each, and two CPUs run two of them in half the time
    of one; threads that share every single op meet too often for that. The results are the same.

    Args:
        threads: That run ops; none: one for each CPU. What the environment variables
            TF_NUM_INTEROP_THREADS and TF_NUM_INTRAOP_THREADS say wins.
    """
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    if threads:
        os.environ.setdefault("TF_NUM_INTEROP_THREADS", str(threads))
