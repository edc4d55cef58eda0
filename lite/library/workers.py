"""Many files read side by side, each within its limits of time and memory, whatever is in them."""

from __future__ import annotations

import logging
import os
import resource
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, TimeoutError
from itertools import chain, islice
from pathlib import Path
from threading import Thread

from loky import ProcessPoolExecutor
from loky.process_executor import TerminatedWorkerError

from lite.library.ocr import ocr_installed
from lite.library.readers import DEFAULT_LIMITS, Limits, Part, Unreadable, as_document, read_file
from lite.library.walk import LeftOut, kinds_sentence, walk
from lite.schema import Document, LiteError

logger = logging.getLogger(__name__)

FEW = 6  # files up to which a second reader takes longer to start than it saves
WATCH_SECONDS = 0.2  # between looks for the process that started a reader


def read_files(
    paths: Iterable[Path], ocr: bool, limits: Limits, workers: int | None = None
) -> Iterator[tuple[Path, list[Part] | Unreadable]]:
    """Every file once, with its documents or with why there are none; nearly in order.

    Files are read in other processes: one that takes too long, wants too much memory or brings its reader down is
    reported like any other bad file, and the rest goes on.
    """
    waiting = iter(paths)
    first = list(islice(waiting, FEW + 1))
    waiting = chain(first, waiting)
    running: deque[tuple[Path, Future]] = deque()
    alone: deque[Path] = deque()  # in flight when a process died: read one by one, to find out whose fault it was
    workers = workers or (1 if len(first) <= FEW else max(1, min(4, os.cpu_count() or 1)))
    pool = _pool(workers, limits)
    try:
        while True:
            while not alone and len(running) < 2 * workers and (path := next(waiting, None)) is not None:
                running.append((path, pool.submit(_attempt, path, ocr, limits)))
            if not running:
                if not alone:
                    return
                path = alone.popleft()
                running.append((path, pool.submit(_attempt, path, ocr, limits)))
                single = True
            else:
                single = False
            path, future = running.popleft()
            try:
                result = future.result(timeout=limits.seconds)
            except (TerminatedWorkerError, TimeoutError) as error:
                pool.shutdown(kill_workers=True)
                pool = _pool(workers, limits)
                late = isinstance(error, TimeoutError)
                if not (late or single or not running):
                    alone.append(path)  # any of those in flight may have done it
                    alone.extend(other for other, _ in running)
                    running.clear()
                    continue
                alone.extend(other for other, _ in running)
                running.clear()
                result = Unreadable(
                    f"reading it took more than {limits.seconds} seconds."
                    if late
                    else f"its reader crashed, or wanted more than {limits.gigabytes} GB of memory."
                )
            yield path, result
    finally:
        pool.shutdown(kill_workers=True)


def read_documents(
    paths: Iterable[Path | str], ocr: bool | None = None, limits: Limits = DEFAULT_LIMITS
) -> list[Document]:
    """The documents of some files, to ask about: `rag.ask(question, documents=read_documents(["a.pdf"]))`.

    Args:
        paths: Files; a folder stands for the files in it and below that are of a kind that is read.
        ocr: Whether to read the text in images and scans; None: where the extra `ocr` is installed.
        limits: What a file may cost.

    Raises:
        LiteError: A file cannot be read.
    """
    files: list[Path] = []
    left_out = LeftOut()
    for path in map(Path, paths):
        if not path.exists():
            raise LiteError(f"{path} does not exist.")
        files += walk(path, left_out) if path.is_dir() else [path]
    if left_out.problems:
        raise LiteError(left_out.problems[0])
    if left_out.kinds:
        logger.warning("Not read: %s.", kinds_sentence(left_out.kinds))
    documents = []
    for path, parts in read_files(files, ocr_installed() if ocr is None else ocr, limits):
        if isinstance(parts, Unreadable):
            raise LiteError(f"{path}: {parts}")
        for part in parts:
            if part.note:
                logger.warning("%s: %s", path, part.note)
        documents += [as_document(part, str(path), path.stem) for part in parts]
    return documents


def _attempt(path: Path, ocr: bool, limits: Limits) -> list[Part] | Unreadable:
    try:
        return read_file(path, ocr, limits)
    except Unreadable as error:
        return error
    except MemoryError:
        return Unreadable(f"reading it takes more than {limits.gigabytes} GB of memory.")
    except Exception as error:  # whatever a parser throws at a hostile file concerns this file only
        return Unreadable(f"it is damaged ({type(error).__name__}: {str(error)[:200]}).")


def _pool(workers: int, limits: Limits) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, timeout=60, initializer=_start_reader, initargs=(limits.gigabytes, os.getpid()))


def _start_reader(gigabytes: int, parent: int) -> None:
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (gigabytes << 30, gigabytes << 30))
    Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process when the one that started it is gone, killed perhaps, in the middle of whatever it reads.

    Linux has a signal for it, but sends it when the thread that started the reader ends, too.
    """
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    os._exit(1)
