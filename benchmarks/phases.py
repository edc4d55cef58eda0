"""Seconds and peak memory of a program by phase, on a GPU or, for trying a benchmark out, on a CPU."""

from __future__ import annotations

import time
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


def clock() -> float:
    """Seconds: of the wall where a GPU works, of this process on a CPU, so that a busy machine does not count."""
    if not torch.cuda.is_available():
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


class CudaMemory:
    """The caching allocator's own counters."""

    def __init__(self):
        self.reserved = 0  # the most that the allocator held, over all resets

    def reset(self) -> None:
        torch.cuda.reset_peak_memory_stats()

    def peak(self) -> int:
        """Bytes of tensors at their most, since `reset`."""
        self.reserved = max(self.reserved, torch.cuda.max_memory_reserved())
        return torch.cuda.max_memory_allocated()


class TensorMemory(TorchDispatchMode):
    """What a CPU's allocator does not count: the bytes of all tensors that operations made while it is entered.

    A storage counts from the operation that returns it until it is freed; views share one. What an operation needs
    inside itself is not seen.
    """

    def __init__(self):
        super().__init__()
        self.now = self.most = 0
        self.alive: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in tree_iter(result):
            if isinstance(value, torch.Tensor):
                self.count(value)
        return result

    def count(self, tensor: torch.Tensor) -> None:
        """Take a tensor into account from now on."""
        storage = tensor.untyped_storage()
        if tensor.device.type == "meta" or storage._cdata in self.alive:
            return
        size = storage.nbytes()
        self.alive.add(storage._cdata)
        weakref.finalize(storage, self._freed, storage._cdata, size)
        self.now += size
        self.most = max(self.most, self.now)

    def _freed(self, storage: int, size: int) -> None:
        self.alive.discard(storage)
        self.now -= size

    def reset(self) -> None:
        self.most = self.now

    def peak(self) -> int:
        """Bytes of tensors at their most, since `reset`."""
        return self.most


class Phases:
    """Accumulates seconds, and the peak of memory, of named phases. An inner phase does not count for its outer one.

    Args:
        memory: `CudaMemory`, `TensorMemory`, or None to measure seconds alone.
    """

    def __init__(self, memory: CudaMemory | TensorMemory | None = None):
        self.memory = memory
        self.seconds: dict[str, float] = defaultdict(float)
        self.peaks: dict[str, int] = defaultdict(int)
        self.running: list[str] = []
        self.failed: str | None = None
        self.since = clock()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what happens inside for `name`. The innermost phase that an exception leaves is `failed`."""
        self._account()
        self.running.append(name)
        try:
            yield
        except Exception:
            self.failed = self.failed or name
            raise
        finally:
            self._account()
            self.running.pop()

    def _account(self) -> None:
        """Book what passed since the last change of phase."""
        now = clock()
        if self.running:
            self.seconds[self.running[-1]] += now - self.since
            if self.memory:
                name = self.running[-1]
                self.peaks[name] = max(self.peaks[name], self.memory.peak())
        if self.memory:
            self.memory.reset()
        self.since = clock()

    def wrap(self, owner: object, method: str, name: Callable[[], str]) -> None:
        """Let every call of `owner.method` be a phase, named when it is called."""
        run = getattr(owner, method)

        def timed(*args, **kwargs):
            with self.phase(name()):
                return run(*args, **kwargs)

        setattr(owner, method, timed)

    def restart_clock(self) -> None:
        """Forget the seconds so far, of a warm-up; peaks are kept, phases that are running go on."""
        self._account()
        self.seconds.clear()
