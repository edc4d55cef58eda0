"""Questions answered by the workers of a Ray cluster, a partition of them at a time."""

from __future__ import annotations

import io
import logging
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from lite.ray import run_on_ray
from lite.schema import Example, Trace, digest

if TYPE_CHECKING:
    from lite.evaluate.engine import Answer

logger = logging.getLogger(__name__)

DIGEST = b"questions"  # in a partition's metadata: what it was asked
LISTS = ("cited", "ranking", "retrieved")
SCHEMA = pa.schema(
    [pa.field(name, pa.string()) for name in ("id", "question", "answer", "failure")]
    + [pa.field(name, pa.list_(pa.string())) for name in LISTS]
    + [pa.field("trace", pa.string())]
)


def answer_on_ray(
    start: Callable[[], Answer],
    examples: Sequence[Example],
    folder: Path,
    partition_questions: int,
    workers: int | None,
    console: Console,
) -> list[Trace]:
    """Answer all examples, a partition per task, into `folder/part-00000.parquet` and so on.

    A finished partition with the same questions is not answered again; a new one gets its name when it is
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
