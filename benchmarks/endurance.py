"""What a bad day does to lite: kills, hostile inputs, ten users at once, and who is reached meanwhile.

    python -m benchmarks.endurance [--quick] [--only kills_indexing hostile ...]

- kills_indexing: `kill -9` at random moments while a folder that keeps changing is indexed; in the end the library must
  hold just what an unbroken run makes of the folder.
- kills_stage1, kills_stage2: the same while a short run on the embedded model trains; the adapter must be that of an
  unbroken run, and every step be in metrics.jsonl once.
- hostile: files, data sets, recipes, run folders, traces and HTTP requests of a stranger, see `benchmarks.hostile`.
- users: ten visitors of one demo ask five questions each at once about files of their own; no answer holds another's.

All processes are watched (benchmarks/sockets): a connection or a name look-up that would leave this machine is a fault.
Nothing here reaches further than 127.0.0.1. Writes each part into benchmarks/results/endurance.json (not with --quick);
the exit status is 1 where anything failed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "endurance.json"
LIMIT = 900  # seconds that one process may take
USERS, QUESTIONS = 10, 5

INDEXING = """
import sys
from lite import Library
library = Library.open(sys.argv[2], create=True)
print("ready", flush=True)
library.index(sys.argv[1], ocr=False)
print(*sorted(repr((d.id, d.kind, d.title, d.text)) for d in library.documents()), sep="\\n")
"""
QUICK_RUN = ["--limit", "8", "--num_generations", "4", "--save_steps", "1", "--report_to", "none"]
STAGES = {
    "stage1": ["--per_device_train_batch_size", "8"],
    "stage2": [
        "--per_device_train_batch_size", "8", "--max_completion_length", "32", "--report_orders", "1",
        "--stage1_adapter", str(ROOT / "lite/tiny/adapters/stage1"),
    ],
}  # fmt: skip


def environment(folder: Path) -> dict[str, str]:
    """Watched, online as far as the libraries know, and with no state of the user's."""
    path = os.pathsep.join(map(str, (ROOT / "benchmarks" / "sockets", ROOT)))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHONPATH"))}
    own = {"CONNECTIONS": str(folder / "connections.txt"), "HF_HOME": str(folder / "hub"), "PYTHONPATH": path}
    return kept | own | {"XDG_STATE_HOME": str(folder / "state"), "OMP_NUM_THREADS": "1"}


@contextmanager
def started(arguments: list[str], folder: Path) -> Iterator[subprocess.Popen]:
    """A Python process in a group of its own, nothing of which is left afterwards."""
    with open(folder / "errors.txt", "a") as errors:
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=folder, env=environment(folder), text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=errors,
        )  # fmt: skip
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()
        process.wait()


def run(arguments: list[str], folder: Path) -> str:
    """A process to its end; what it printed. Raises CalledProcessError with its errors."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=LIMIT
    )
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, arguments, done.stdout, done.stderr[-3000:])
    return done.stdout


# --------------------------------------------------------------------------------------------------------------- kills


def kills_indexing(folder: Path, kills: int) -> dict:
    """Kill while a changing folder is indexed, then let one run end and compare with an unbroken one."""
    rng, papers = random.Random(0), folder / "papers"
    papers.mkdir()

    def change(share: float) -> None:
        for number in range(80):
            if rng.random() < share:
                text = f"Note {number} of {rng.random()}.\n\n" + "A sentence on pumps and valves. " * 9
                (papers / f"note{number}.txt").write_text(text)

    change(1)
    arguments = ["-c", INDEXING, str(papers), str(folder / "killed")]
    start = time.monotonic()
    run(["-c", INDEXING, str(papers), str(folder / "whole")], folder)
    longest = (time.monotonic() - start) / 2
    for _ in range(kills):
        with started(arguments, folder) as process:
            process.stdout.readline()
            time.sleep(rng.uniform(0, longest))
        change(0.2)
    held = [
        run(["-c", INDEXING, str(papers), str(folder / name)], folder).splitlines()[1:] for name in ("killed", "new")
    ]
    return {"kills": kills, "documents": len(held[0]), "same": held[0] == held[1] and len({*held[0]}) == len(held[0])}


def kills_training(folder: Path, kills: int, stage: str) -> dict:
    """Kill a training at any time or after some steps, again and again, and compare with an unbroken one."""
    from lite.runs import read_card, read_metrics

    rng, steps = random.Random(0), 2 * kills + 4
    recipe = str(ROOT / "recipes" / "tiny" / f"{stage}.yaml")
    train = ["-m", "lite", "train", stage, "--config", recipe, "--max_steps", str(steps), *QUICK_RUN, *STAGES[stage]]
    start = time.monotonic()
    run([*train, "--output_dir", str(folder / "whole" / stage)], folder)
    longest = time.monotonic() - start
    killed = folder / "killed" / stage
    done = 0
    while done < kills and not (killed / "report.json").exists():
        before, more = len(read_metrics(killed / "metrics.jsonl")), rng.choice([0, 0, 1, 2])
        with started([*train, "--output_dir", str(killed)], folder) as process:
            deadline = time.monotonic() + rng.uniform(0, longest / 2) + (LIMIT if more else 0)
            while time.monotonic() < deadline and process.poll() is None:
                if more and len(read_metrics(killed / "metrics.jsonl")) >= before + more:
                    break
                time.sleep(0.05)
            done += process.poll() is None
    run([*train, "--output_dir", str(killed)], folder)
    taken = [row["step"] for row in read_metrics(killed / "metrics.jsonl")]
    hashes = {read_card(run_folder / "adapter")["hash"] for run_folder in (killed, folder / "whole" / stage)}
    return {"kills": done, "steps": steps, "same": len(hashes) == 1 and taken == list(range(1, steps + 1))}


# ---------------------------------------------------------------------------------------------------------------- demo


@contextmanager
def demo(folder: Path) -> Iterator[int]:
    """The port of a demo that answers with the embedded model."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with started(["-m", "lite", "demo", "--profile", "tiny", "--port", str(port)], folder) as process:
        if "http" not in process.stdout.readline():
            raise RuntimeError("The demo did not start.")
        yield port


def hostile(folder: Path, kills: int) -> dict:
    """All inputs of `benchmarks.hostile`; the demo must live on after its part."""
    from benchmarks.hostile import SECRET, requests

    found = json.loads(run(["-m", "benchmarks.hostile", str(folder)], folder).splitlines()[-1])
    secret = folder / "secret.txt"
    secret.write_text(SECRET)
    with demo(folder) as port:
        asked = requests(port, secret)
        again = requests(port, secret)  # it lives on, and answers alike
    failed = found["failed"] + asked["failed"] + [f"again: {line}" for line in again["failed"]]
    return {"inputs": found["inputs"] + asked["asked"], "failed": failed, "same": not failed}


def users(folder: Path, kills: int) -> dict:
    """Ten visitors with a file of their own each; every page must show the own one and no other."""
    from gradio_client import Client, handle_file

    from lite.demo.app import MINE

    def visit(number: int) -> list[str]:
        client = Client(f"http://127.0.0.1:{port}", verbose=False)
        own = folder / f"secret{number}.txt"
        own.write_text("\n\n".join(f"The capital of land {number} {q} is Town{number}x{q}." for q in range(QUESTIONS)))
        client.predict([handle_file(own)], api_name="/read")
        pages = []
        for _ in range(3 * QUESTIONS):
            if len(pages) == QUESTIONS:
                break
            question = f"What is the capital of land {number} {len(pages)}?"
            # gradio_client loses what it sends while its stream for what came before ends: ask again
            with suppress(CancelledError):
                asked = client.submit(question, MINE, 0.0, 4, api_name="/ask")
                pages.append(json.dumps(asked.result(LIMIT)))
        return pages

    with demo(folder) as port, ThreadPoolExecutor(USERS) as pool:
        pages = list(pool.map(visit, range(USERS)))
    all_answered = all(len(answers) == QUESTIONS for answers in pages)
    mixed = [
        (number, other)
        for number, shown in enumerate(pages)
        for page in shown
        for other in range(USERS)
        if (f"secret{other}" in page) != (other == number) or (other != number and f"Town{other}x" in page)
    ]
    return {"users": USERS, "answers": sum(map(len, pages)), "mixed_up": len(mixed), "same": not mixed and all_answered}


# ---------------------------------------------------------------------------------------------------------------- main

# Of each part: what it does, and how many kills it makes, quick and whole.
PARTS: dict[str, tuple[Callable[[Path, int], dict], int, int]] = {
    "kills_indexing": (kills_indexing, 2, 20),
    "kills_stage1": (lambda folder, kills: kills_training(folder, kills, "stage1"), 2, 20),
    "kills_stage2": (lambda folder, kills: kills_training(folder, kills, "stage2"), 1, 10),
    "hostile": (hostile, 0, 0),
    "users": (users, 0, 0),
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="five kills in place of fifty")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), help="these parts")
    options = parser.parse_args(arguments)
    report: dict = {}
    for name in options.only:
        part, few, many = PARTS[name]
        with tempfile.TemporaryDirectory(prefix="lite-endurance-") as place:
            folder, start = Path(place), time.monotonic()
            report[name] = part(folder, few if options.quick else many)
            noted = folder / "connections.txt"
            reached = sorted({line.split("\t")[1] for line in noted.read_text().splitlines()}) if noted.exists() else []
        report[name] |= {"reached": reached, "seconds": round(time.monotonic() - start)}
        print(f"{name}: {json.dumps(report[name])}", flush=True)
        if not options.quick:
            before = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
            RESULTS.write_text(json.dumps(before | {name: report[name]}, indent=2) + "\n")
            subprocess.run([sys.executable, str(ROOT / "benchmarks" / "readme.py")], check=True)  # its table in docs/
    return 0 if all(part["same"] and not part["reached"] for part in report.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
