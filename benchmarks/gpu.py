"""What the recipes take on a real card: peak memory and seconds by phase, beside stock TRL and Unsloth.

    python benchmarks/gpu.py                        # every cell, about an hour and a half on a fast card
    python benchmarks/gpu.py --list                 # the cells' names
    python benchmarks/gpu.py --only '*4b:2:*'       # some of them; results of further calls are added to the file

It needs torch, torchvision, transformers, trl, peft, bitsandbytes, accelerate and datasets, not the package's other
requirements; where the package is not installed it is found beside this folder. Without CUDA it says so and exits 0.

The process is capped at `--cap_gib` (24), so that a larger card answers for a small one. Models are Qwen3-VL of the
published configurations with random weights (`--real`: the recipe's own), quantised to NF4 as they are filled; prompts
are random words and noise at the longest length that the recipe lets through, with all the images that fit, and every
completion has the full length. So memory is the worst case, and so are the seconds.

A cell is recipe:stage:system. Systems: `lite`; `trl`, stock GRPOTrainer with the same settings (it cannot stack: in
stage 2, too, it trains one adapter on the bare model); `lite on unsloth`, our trainer on Unsloth's loader and kernels;
`unsloth`, its own trainer; `score`, stage 1's pairs per second; `largest`, how many documents of a size still fit.
Each runs in a process of its own, and is written to benchmarks/results/gpu-<card>.json when it ends; what went wrong in
it is written there too.

Where a call may last ten minutes only, three of them tell the most, in this order:

    python benchmarks/gpu.py --minutes 9 --only 'qwen3-vl-4b:2:lite' 'qwen3-vl-4b:2:trl' 'qwen3-vl-4b:1:*'
    python -m pytest -q -m gpu tests/test_gpu.py; python benchmarks/gpu.py --minutes 7 --only 'qwen3-vl-[28]b:*:lite'
    python benchmarks/gpu.py --minutes 9 --only '*4b:2:*unsloth' '*4b:2:largest' '*[28]b:*:trl'

`--device cpu --tiny` runs every line of it on a CPU with a tiny shape, for tests: such results are never tabled.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import subprocess
import sys
import tempfile
import time
from datetime import date
from fnmatch import fnmatch
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import torch
from gpu_cell import ROOT, recipe
from readme import write_sections

RESULTS = ROOT / "benchmarks" / "results"
PROFILES = ("qwen3-vl-4b", "qwen3-vl-2b", "qwen3-vl-8b")
SYSTEMS = ("lite", "trl", "lite on unsloth", "unsloth")
PACKAGES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "datasets", "unsloth", "triton")
# (pixels of an image, generations) for which the largest number of documents is sought
LARGEST = ((512 * 512, 8), (512 * 512, 16), (1024 * 1024, 8))
ATTEMPTS = 5
# Of a prompt whose size is varied: a document's title, number and caption, and everything that is no document.
DOCUMENT_TOKENS, OTHER_TOKENS = 60, 200
TINY = {
    "max_pixels": 4096, "max_prompt_tokens": 96, "max_completion_length": 6, "num_generations": 4,
    "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "per_device_eval_batch_size": 8,
    "optim": "adamw_torch",
}  # fmt: skip
TINY_LARGEST = ((1024, 4),)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=["*"], help="Names of cells; * stands for anything.")
    parser.add_argument("--list", action="store_true", help="Print the cells' names.")
    parser.add_argument("--cap_gib", type=float, default=24, help="GiB of the card to measure for.")
    parser.add_argument("--steps", type=int, default=2, help="Timed steps per cell, behind one that warms up.")
    parser.add_argument("--minutes", type=float, default=600, help="Start no cell, and stop the one running, after.")
    parser.add_argument("--real", action="store_true", help="The recipes' own weights; downloaded if not cached.")
    parser.add_argument("--results", type=Path, default=RESULTS, help="Folder of the result file.")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="A tiny shape and short prompts.")
    arguments = parser.parse_args()
    chosen = [name for name in cells() if any(fnmatch(name, pattern) for pattern in arguments.only)]
    if arguments.list:
        print("\n".join(chosen))
        return
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("skipped: no CUDA device here; nothing was measured.")
        return
    if not chosen:
        parser.error(f"no cell is named {' or '.join(arguments.only)}; --list names them")
    deadline = time.monotonic() + 60 * arguments.minutes
    path = arguments.results / f"gpu-{slug(arguments)}.json"
    result = opened(path, heading(arguments))
    for name in chosen:
        if time.monotonic() > deadline - 30:
            print(f"{name}: not started, the minutes are over")
            continue
        result["cells"][name] = cell = measure(name, arguments, deadline)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n")
        print(f"{name}: {summary(cell)}", flush=True)
    print(f"Written: {path}")
    if arguments.results == RESULTS and not arguments.tiny:
        write_sections()


def cells() -> list[str]:
    """Names of all cells."""
    trained = [f"{profile}:{stage}:{system}" for profile in PROFILES for stage in (2, 1) for system in SYSTEMS]
    return trained + [f"{profile}:{cell}" for cell in ("1:score", "2:largest") for profile in PROFILES]


def heading(arguments: argparse.Namespace) -> dict:
    """What the results depend on besides the recipes."""
    cuda = arguments.device == "cuda"
    return {
        "card": torch.cuda.get_device_name() if cuda else "CPU",
        "card_gib": round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1) if cuda else None,
        "driver": driver() if cuda else None,
        "cpu": cpu(),
        "cap_gib": arguments.cap_gib,
        "weights": "real" if arguments.real else "random",
        "tiny": arguments.tiny,
        "versions": {"python": platform.python_version(), "cuda": torch.version.cuda} | installed(),
        "date": date.today().isoformat(),
    }


def cpu() -> str:
    """The host's processor, which launches what the GPU runs."""
    try:
        names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        return f"{names[0].partition(':')[2].strip()}, {len(names)} cores"
    except (OSError, IndexError):
        return platform.processor() or "unknown"


def driver() -> str:
    """The NVIDIA driver's version."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0].strip()
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "unknown"


def installed() -> dict[str, str | None]:
    """Versions of the packages that matter."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def slug(arguments: argparse.Namespace) -> str:
    """Of the result file's name: the card's, and what sets a file apart."""
    name = torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu"
    name = re.sub(r"\W+", "-", name.lower().replace("nvidia", "")).strip("-")
    return "-".join([name, f"{arguments.cap_gib:g}gib", *(["tiny"] if arguments.tiny else [])])


def opened(path: Path, head: dict) -> dict:
    """The results so far, if they were measured under the same conditions; else the program ends."""
    if not path.exists():
        return head | {"cells": {}}
    before = json.loads(path.read_text())
    changed = [key for key in head if key != "date" and before.get(key) != head[key]]
    if changed:
        sys.exit(f"{path} was measured with other {', '.join(changed)}. Move it away, or give another --results.")
    return before | {"date": head["date"]}


def measure(name: str, arguments: argparse.Namespace, deadline: float) -> dict:
    """One cell's result."""
    profile, stage, system = name.split(":")
    if "unsloth" in system and not find_spec("unsloth"):
        return {"status": "skipped", "reason": "unsloth is not installed"}
    changes = TINY if arguments.tiny else {}
    if system != "largest":
        return run_cell(profile, int(stage), system, changes, arguments.steps, arguments, deadline)
    found = []
    for pixels, generations in TINY_LARGEST if arguments.tiny else LARGEST:
        found.append(largest(profile, pixels, generations, changes, arguments, deadline))
    return {"status": "measured", "largest": found}


def run_cell(
    profile: str, stage: int, system: str, changes: dict, steps: int, arguments: argparse.Namespace, deadline: float
) -> dict:
    """The result that a process of `gpu_cell.py` writes, or how it ended."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "cell.json"
        command = [
            sys.executable, str(ROOT / "benchmarks" / "gpu_cell.py"), "--profile", profile, "--stage", str(stage),
            "--system", system, "--settings", json.dumps(changes), "--steps", str(steps),
            "--cap_gib", str(arguments.cap_gib), "--device", arguments.device, "--out", str(out),
            *(["--tiny"] if arguments.tiny else []), *(["--real"] if arguments.real else []),
        ]  # fmt: skip
        start = time.monotonic()
        try:
            code = subprocess.run(command, timeout=max(1, deadline - start), cwd=folder).returncode
        except subprocess.TimeoutExpired:
            return {"status": "stopped", "reason": f"the minutes were over after {time.monotonic() - start:.0f} s"}
        if not out.exists():
            return {"status": "failed", "reason": f"the process ended with status {code}"}
        return json.loads(out.read_text()) | {"wall_seconds": round(time.monotonic() - start, 1)}


def sized(settings: dict, documents: int, pixels: int, generations: int) -> dict:
    """Settings for prompts of so many image documents. The completions of a step stay as many as they are."""
    completions = settings["per_device_train_batch_size"] * settings["gradient_accumulation_steps"]
    prompt = OTHER_TOKENS + documents * (pixels // 1024 + DOCUMENT_TOKENS)
    return {
        "max_documents": documents,
        "max_pixels": pixels,
        "max_prompt_tokens": prompt,
        "num_generations": generations,
        "per_device_train_batch_size": generations,
        "gradient_accumulation_steps": max(1, completions // generations),
    }


def largest(
    profile: str, pixels: int, generations: int, changes: dict, arguments: argparse.Namespace, deadline: float
) -> dict:
    """The most documents of a stage 2 prompt that one step still fits: bisected from where the estimate puts it."""
    settings = recipe(profile, 2, changes)
    fits, too_many, attempts = 0, None, []
    documents = guess(settings, pixels, generations, arguments)
    while len(attempts) < ATTEMPTS and documents > fits and documents != too_many:
        new = changes | sized(settings, documents, pixels, generations)
        cell = run_cell(profile, 2, "lite", new, 0, arguments, deadline)
        attempts.append({"documents": documents, "status": cell["status"], "peak_gib": cell.get("peak_gib")})
        if cell["status"] == "measured":
            fits = documents
        elif cell["status"] == "out of memory":
            too_many = documents
        else:
            attempts[-1]["reason"] = cell.get("reason")
            break
        documents = (fits + too_many) // 2 if too_many else fits + max(1, fits // 4)
    return {
        "pixels": pixels,
        "generations": generations,
        "documents": fits,
        "next_does_not_fit": too_many == fits + 1,
        "attempts": attempts,
    }


def guess(settings: dict, pixels: int, generations: int, arguments: argparse.Namespace) -> int:
    """The most documents that fit by the estimate."""
    from types import SimpleNamespace

    from lite.models.memory import run_estimate
    from lite.models.shapes import shape_of

    if arguments.tiny:
        return 2
    shape = shape_of(settings["model_name_or_path"])
    for documents in range(1, 100):
        new = settings | sized(settings, documents + 1, pixels, generations) | {"shared_prompt": True}
        new["steps_per_generation"] = new["gradient_accumulation_steps"]
        view = SimpleNamespace(**new)
        if run_estimate(shape, view, view, new["max_prompt_tokens"], documents + 1, 2)["peak"] > arguments.cap_gib:
            break
    return documents


def summary(cell: dict) -> str:
    """One line on a result."""
    parts = [cell["status"], cell.get("phase"), cell.get("reason")]
    if cell["status"] == "measured" and "peak_gib" in cell:
        parts.append(f"peak {cell['peak_gib']['all']:.2f} GiB")
    if "step" in cell.get("seconds", {}):
        parts.append(f"{cell['seconds']['step']:.1f} s a step")
    if "pairs_per_second" in cell:
        parts.append(f"{cell['pairs_per_second']:.1f} pairs/s")
    if "largest" in cell:
        parts.append(
            ", ".join(f"{e['documents']} of {e['pixels']} pixels, G {e['generations']}" for e in cell["largest"])
        )
    return "; ".join(part for part in parts if part)


if __name__ == "__main__":
    main()
