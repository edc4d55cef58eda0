"""Explainable multimodal retrieval-augmented generation, trained on one 24 GB GPU.

from lite import Library, Rag

library = Library.open("library", create=True)
library.index("papers")
print(Rag.load("laptop").ask("What is the pressure of pump 2?", library=library).answer)
"""

import logging
import os
import sys
from importlib import import_module

__version__ = "0.1.0"

# Nothing about a user or a run is sent anywhere. Each library reads its switch when it is imported, so this comes
# first; `setdefault` leaves the choice to whoever sets one of them.
for switch, value in {
    "HF_HUB_DISABLE_TELEMETRY": "1",  # also TRL's, and the list of coding agents that huggingface_hub downloads
    "GRADIO_ANALYTICS_ENABLED": "False",
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "UNSLOTH_DISABLE_STATISTICS": "1",
}.items():
    os.environ.setdefault(switch, value)
if os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1" and "huggingface_hub.constants" in sys.modules:
    sys.modules["huggingface_hub.constants"].HF_HUB_DISABLE_TELEMETRY = True

# On a CPU it asks for a package that fetches a kernel from the hub; all works without.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

# The front door. Names are imported when they are asked for: `import lite` takes milliseconds, `lite.Rag` seconds.
_HOMES = {
    "Document": "lite.schema",
    "Event": "lite.rag",
    "Evidence": "lite.rag",
    "Library": "lite.library.store",
    "LiteError": "lite.schema",
    "Rag": "lite.rag",
    "Trace": "lite.schema",
    "read_documents": "lite.library.workers",
}
__all__ = ["Document", "Event", "Evidence", "Library", "LiteError", "Rag", "Trace", "__version__", "read_documents"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list:
    return sorted({*globals(), *__all__})
