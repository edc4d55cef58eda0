"""Commands that only ask a model start without what transformers and bitsandbytes import for other uses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers.utils

from lite.startup import import_late, slim_imports

PROGRAM = """
import sys
from lite.startup import slim_imports
with slim_imports():
    from lite.rag import Rag
    print(Rag.load("tiny") and [name for name in ("sklearn", "torch._inductor.compile_fx") if name in sys.modules])
"""

LIBRARY = """
import sys
from lite import Library
Library.open(sys.argv[1], create=True)
print("lance_namespace_urllib3_client.api" in sys.modules)
import lance_namespace_urllib3_client
print(lance_namespace_urllib3_client.ApiClient.__name__, "lance_namespace_urllib3_client.api" in sys.modules)
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


def test_a_library_opens_without_the_client_of_a_server_which_is_there_when_asked_for(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LIBRARY, str(tmp_path / "library")]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == ["False", "ApiClient", "True"]


def test_a_package_imported_late_runs_once_and_an_unknown_one_is_left_alone(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "late").mkdir()
    (tmp_path / "late" / "__init__.py").write_text("from late.inner import runs\nruns.append(1)\nvalue = 7\n")
    (tmp_path / "late" / "inner.py").write_text("runs = []\n")
    monkeypatch.syspath_prepend(tmp_path)
    import_late("late")
    import_late("no_such_package_anywhere")
    from late.inner import runs

    assert runs == []
    import late

    assert (late.value, late.value, runs) == (7, 7, [1])
    with pytest.raises(AttributeError):
        late.missing  # noqa: B018
