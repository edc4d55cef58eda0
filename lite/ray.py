"""What Ray needs: work spread over the machines of a cluster by Ray Data. Optional: the extra `ray`.

The driver alone writes what comes back, a partition or a batch of files at a time, each as a whole or not at all. Ray
holds the workers back when the driver does not keep up, and gives what a lost worker had in hand to another one.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import pyarrow as pa

from lite.schema import LiteError


def run_on_ray(
    rows: Sequence[dict[str, Any]], worker: type, arguments: tuple, workers: int | None, on_gpus: bool = True
) -> Iterator[dict[str, Any]]:
    """Each row, as a worker comes to it, with the bytes that `worker(*arguments)(row)` gives as `result`.

    Args:
        rows: Picklable values; they wait in Ray's object store.
        worker: A class whose instances are called with a row; one lives as long as its worker process.
        workers: How many; None: one per GPU of the cluster, or per CPU core.
        on_gpus: Whether a worker needs a GPU, where there is one.

    Raises:
        LiteError: Ray is not installed, or raised by a worker.
    """
    with connected() as ray:
        resources = ray.cluster_resources()
        cpus, gpus = resources.get("CPU", 1.0), int(resources.get("GPU", 0)) if on_gpus else 0
        count = min(workers or gpus or int(cpus), len(rows))
        found = ray.data.from_items(list(rows), override_num_blocks=len(rows)).map_batches(
            _Worker,
            fn_constructor_args=(worker, arguments),
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=count),
            num_gpus=gpus / count if gpus and count > gpus else int(bool(gpus)),
            num_cpus=min(1.0, cpus / count),
        )
        for batch in found.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=0):
            row = batch.to_pylist()[0]
            if row.pop("error"):
                raise LiteError(row["result"].decode())
            yield row


class _Worker:
    def __init__(self, worker: type, arguments: tuple):
        self.call = worker(*arguments)

    def __call__(self, batch: pa.Table) -> pa.Table:
        row = batch.to_pylist()[0]
        kept = {name: value for name, value in row.items() if not isinstance(value, bytes)}
        try:
            result, failed = self.call(row), False
        except LiteError as error:  # is for the user; as an error of a task it would come with Ray's traceback
            result, failed = str(error).encode(), True
        return pa.Table.from_pylist([kept | {"result": result, "error": failed}])


@contextmanager
def connected(**options: Any) -> Iterator[Any]:
    """The module ray, connected: to the cluster in RAY_ADDRESS, or to one that was started on this machine, or else to
    one that ends with the block.

    Args:
        options: Of `ray.init`.
    """
    if not find_spec("ray"):
        raise LiteError("The engine ray needs the extra ray: pip install 'mmrag-lite[ray]'.")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # the coming default; silences a warning
    os.environ.setdefault("RAY_worker_niceness", "0")  # 15 by default; the workers are all that is done here
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")  # 30 are too few on a busy machine
    import ray
    import ray.data

    ours = not ray.is_initialized()
    if ours:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()
