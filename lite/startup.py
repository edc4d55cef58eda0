"""What a command can leave out of the libraries that it imports, since starting takes longer than answering."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def slim_imports() -> Iterator[None]:
    """Inside, transformers and bitsandbytes import less: for commands that only ask a model.

    transformers imports scikit-learn, and with it SciPy and pandas, for one threshold of assisted generation.
    bitsandbytes hands four functions to `torch.compile`, which imports all of torch's compiler; they are fallbacks for
    devices without kernels of its own, and do the same uncompiled. Together they are a quarter of the time. Remove when
    the libraries import them where they are used.
    """
    import torch
    import transformers.utils

    found, compiled = transformers.utils.is_sklearn_available, torch.compile
    transformers.utils.is_sklearn_available = lambda: False
    torch.compile = _uncompiled
    try:
        yield
    finally:
        transformers.utils.is_sklearn_available, torch.compile = found, compiled


def _uncompiled(function: Callable | None = None, **_: Any) -> Callable:
    return function if function is not None else lambda function: function
