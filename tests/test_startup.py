"""Commands that only ask a model start without what transformers and bitsandbytes import for other uses."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import transformers.utils

from lite.startup import slim_imports

PROGRAM = """
import sys
from lite.startup import slim_imports
with slim_imports():
    from lite.rag import Rag
    print(Rag.load("tiny") and [name for name in ("sklearn", "torch._inductor.compile_fx") if name in sys.modules])
"""


def test_what_is_changed_for_the_imports_is_undone() -> None:
    before = torch.compile, transformers.utils.is_sklearn_available

    def function() -> None: ...

    with slim_imports():
        assert torch.compile(function) is torch.compile(dynamic=False)(function) is function
        assert not transformers.utils.is_sklearn_available()
    with pytest.raises(ImportError), slim_imports():
        raise ImportError
    assert (torch.compile, transformers.utils.is_sklearn_available) == before


@pytest.mark.slow
def test_a_model_loads_without_scikit_learn_and_the_compiler() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True, timeout=300)
    assert done.stdout.splitlines()[-1] == "[]"
