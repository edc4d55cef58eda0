"""Answering and reading spread over the machines of a Ray cluster by Ray Data.

The driver alone writes what comes back, a partition or a batch of files at a time, each as a whole or not at all. Ray
holds the workers back when the driver does not keep up, and gives what a lost worker had in hand to another one.
"""

from __future__ import annotations

import io
import logging
import os
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from lite.library.readers import Limits, Part, Unreadable
from lite.library.workers import read_files
from lite.schema import Example, LiteError, Trace, digest

if TYPE_CHECKING:
    from lite.evaluate.engine import Answer

logger = logging.getLogger(__name__)

Read = tuple[Path, list[Part] | Unreadable]
FILES = 32  # that a worker reads between two reports
DIGEST = b"questions"  # in a partition's metadata: what it was asked
LISTS = ("cited", "ranking", "retrieved")
SCHEMA = pa.schema(
    [pa.field(name, pa.string()) for name in ("id", "question", "answer", "failure")]
    + [pa.field(name, pa.list_(pa.string())) for name in LISTS]
    + [pa.field("trace", pa.string())]
)


# -------------------------------------------------------------------------------------------------------------- answers


def answer_on_ray(
    start: Callable[[], Answer],
    examples: Sequence[Example],
    folder: Path,
    partition_questions: int,
    workers: int | None,
    console: Console,
) -> list[Trace]:
    """Answer all examples, a partition per task, into `folder/part-00000.parquet` and so on.

    A partition that is there with the same questions is not answered again; a new one gets its name when it is
    complete.

    Args:
        start: Loads an engine; called once by each worker.
        partition_questions: How many questions a partition has.
        workers: How many; None: one per GPU of the cluster, or per CPU core where it has none.

    Returns:
        One trace per example, in their order, without the documents' texts, the chain and the raw output, which the
        files have: a report on millions of questions needs the figures only.

    Raises:
        LiteError: Ray is not installed, or what the engine raises in a worker.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = [examples[i : i + partition_questions] for i in range(0, len(examples), partition_questions)]
    paths = [folder / f"part-{number:05d}.parquet" for number in range(len(parts))]
    for stale in set(folder.glob("part-*")) - set(paths):
        stale.unlink()
    missing = [n for n, (path, part) in enumerate(zip(paths, parts, strict=True)) if not is_answered(path, part)]
    if len(missing) < len(parts):
        console.print(f"{len(parts) - len(missing)} of {len(parts)} partitions are answered already.", highlight=False)
    if missing:
        rows = [{"partition": n, "examples": pickle.dumps(list(parts[n]))} for n in missing]
        for row in run_on_ray(rows, Answerer, (start,), workers):
            path = paths[row["partition"]]
            unfinished = path.with_name(f"{path.name}.unfinished")
            unfinished.write_bytes(row["result"])
            unfinished.replace(path)
    return [trace for path in paths for trace in read_partition(path)]


class Answerer:
    """A worker: an engine that stays loaded from partition to partition."""

    def __init__(self, start: Callable[[], Answer]):
        self.start = start
        self.answer: Answer | None = None

    def __call__(self, row: dict[str, Any]) -> bytes:
        """The Parquet file of the pickled `examples`."""
        self.answer = self.answer or self.start()
        examples = pickle.loads(row["examples"])
        traces = self.answer(examples, None, Console(quiet=True))
        columns = {name: [] for name in SCHEMA.names}
        for example, trace in zip(examples, traces, strict=True):
            values = {
                "id": example.id, "question": trace.question, "answer": trace.answer, "failure": trace.failure,
                **{name: list(getattr(trace, name)) for name in LISTS}, "trace": trace.to_json(),
            }  # fmt: skip
            for name, value in values.items():
                columns[name].append(value)
        table = pa.table(columns, schema=SCHEMA.with_metadata({DIGEST: digest(examples)}))
        file = io.BytesIO()
        pq.write_table(table, file, compression="zstd")
        return file.getvalue()


def is_answered(path: Path, examples: Sequence[Example]) -> bool:
    """Whether `path` is the finished partition of these examples."""
    if not path.exists():
        return False
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (pa.ArrowInvalid, OSError) as error:
        logger.warning("%s is damaged (%s) and is answered again.", path, error)
        return False
    return metadata.get(DIGEST, b"").decode() == digest(examples)


def read_partition(path: Path) -> list[Trace]:
    """The traces of a partition, without what only its column `trace` has."""
    rows = pq.read_table(path, columns=[name for name in SCHEMA.names if name != "trace"]).to_pylist()
    return [
        Trace(
            question=row["question"], documents=(), scores={}, kept=(), dropped=(), shown=(), reasoning="", raw="",
            answer=row["answer"], failure=row["failure"], **{name: tuple(row[name]) for name in LISTS},
        )
        for row in rows
    ]  # fmt: skip


def read_whole_partition(path: Path) -> dict[str, Trace]:
    """The whole traces of a partition by the examples' ids."""
    rows = pq.read_table(path, columns=["id", "trace"]).to_pylist()
    return {row["id"]: Trace.from_json(row["trace"]) for row in rows}


# ---------------------------------------------------------------------------------------------------------------- files


def read_on_ray(
    paths: Iterable[Path], ocr: bool, limits: Limits, root: Path, embedding: str, workers: int | None
) -> Iterator[Read]:
    """As `lite.library.workers.read_files`, on the workers of a cluster, with the vectors of the documents.

    Args:
        paths: Seen by every worker under the same name.
        root: The folder that is indexed; titles are told from it.
        embedding: The library's.
        workers: How many; None: one per GPU of the cluster where there is an embedding, else per CPU core.
    """
    every = list(paths)
    rows = [{"paths": pickle.dumps(every[i : i + FILES])} for i in range(0, len(every), FILES)]
    if rows:
        embeds = embedding != "none"
        for row in run_on_ray(rows, Reader, (ocr, limits, root, embedding), workers, on_gpus=embeds):
            yield from pickle.loads(row["result"])


class Reader:
    """A worker that reads and embeds."""

    def __init__(self, ocr: bool, limits: Limits, root: Path, embedding: str):
        self.ocr, self.limits, self.root, self.embedding = ocr, limits, root, embedding

    def __call__(self, row: dict[str, Any]) -> bytes:
        """What `read_files` yields of the pickled `paths`, pickled."""
        # In one process beside this one, as anywhere: a file may bring its reader down.
        found = list(read_files(pickle.loads(row["paths"]), self.ocr, self.limits, workers=1))
        return pickle.dumps(found if self.embedding == "none" else self._embedded(found))

    def _embedded(
        self, found: list[tuple[Path, list[Part] | Unreadable]]
    ) -> list[tuple[Path, list[Part] | Unreadable]]:
        from lite.library.embedding import embed_rows
        from lite.library.store import as_row

        readable = [(path, parts) for path, parts in found if not isinstance(parts, Unreadable)]
        rows = [as_row(part, self.root, path, "", n, "") for path, parts in readable for n, part in enumerate(parts)]
        vectors = iter(embed_rows(self.embedding, rows))
        return [
            (path, parts if isinstance(parts, Unreadable) else [replace(p, vector=tuple(next(vectors))) for p in parts])
            for path, parts in found
        ]


# ------------------------------------------------------------------------------------------------------------------ ray


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
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
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
