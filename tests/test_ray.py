"""Evaluation and index by a local Ray of two workers: what one process does, whatever happens to a worker."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from lite.cli import main as cli
from lite.data.sources import load_examples
from lite.evaluate import on_ray
from lite.evaluate.answers import read_predictions
from lite.library.on_ray import FILES
from lite.library.store import Library
from lite.ray import connected
from lite.schema import Example, Trace

ROOT = Path(__file__).parents[1]
QUESTIONS, PARTITION = 24, 2
WORKER = "ray::MapWorker"  # what Ray calls the process of an actor of Ray Data


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """One for all tests of this file: starting it takes longer than most of them."""
    with connected(num_cpus=2):
        yield


def command(folder: Path, *changes: str) -> list[str]:
    return [
        "evaluate", "--config", str(ROOT / "recipes/tiny/stage2.yaml"), "--limit", str(QUESTIONS), "--output_dir",
        str(folder), "--stage1_adapter", str(ROOT / "lite/tiny/adapters/stage1"), "--stage2_adapter",
        str(ROOT / "lite/tiny/adapters/stage2"), "--partition_questions", str(PARTITION), *changes,
    ]  # fmt: skip


def on_two(folder: Path, *changes: str) -> int:
    return cli.main(command(folder, "--engine", "ray", "--workers", "2", *changes))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "predictions").iterdir())}


@pytest.fixture(scope="module")
def answered(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ray")
    assert on_two(folder) == 0
    return folder


def test_two_workers_predict_what_one_process_predicts(answered: Path, tmp_path: Path) -> None:
    assert cli.main(command(tmp_path)) == 0
    alone = read_predictions(tmp_path / "predictions.jsonl")
    paths = sorted((answered / "predictions").iterdir())
    assert [path.name for path in paths] == [f"part-{n:05d}.parquet" for n in range(QUESTIONS // PARTITION)]
    together = [on_ray.read_whole_partition(path) for path in paths]
    order = [example.id for example in load_examples("flags", "test", QUESTIONS)]
    assert [i for part in together for i in part] == order
    for found in (trace for part in together for trace in part.items()):
        theirs = alone[found[0]]
        assert found[1].scores == pytest.approx(theirs.scores, abs=1e-5)
        for name in ("question", "kept", "dropped", "shown", "raw", "answer", "cited", "ranking", "documents"):
            assert getattr(found[1], name) == getattr(theirs, name)
    reports = [json.loads((folder / "report.json").read_text()) for folder in (answered, tmp_path)]
    assert reports[0] == reports[1]


def test_answered_partitions_stay_and_the_others_are_answered_again(
    answered: Path, capsys: pytest.CaptureFixture
) -> None:
    before = files(answered)
    folder = answered / "predictions"
    kept = folder / "part-00000.parquet"
    written = kept.stat().st_mtime_ns
    (folder / "part-00001.parquet").write_bytes(before["part-00001.parquet"][:100])  # damaged
    (folder / "part-00002.parquet").rename(folder / "part-00002.parquet.unfinished")  # a writer was killed
    (folder / "part-00099.parquet").write_bytes(b"of a longer run")
    capsys.readouterr()
    assert on_two(answered) == 0
    assert "10 of 12 partitions are answered already" in capsys.readouterr().out
    assert files(answered) == before
    assert kept.stat().st_mtime_ns == written


def test_a_problem_in_a_worker_is_one_message(answered: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    changes = ["--model_name_or_path", str(tmp_path / "nowhere"), "--output_dir", str(tmp_path / "results")]
    assert on_two(answered, *changes) == 1
    said = capsys.readouterr().err
    assert "Cannot load the model" in said
    assert "Traceback" not in said


def workers() -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(WORKER in part for part in process.cmdline()) and process.uids().real == os.getuid():
                found.append(process)
    return found


def while_one_is_killed(run: Callable[[], object], folder: Path, seed: int) -> None:
    """Runs what answers into `folder`, of which a worker is killed at a random moment."""
    rng = random.Random(seed)
    before = {process.pid for process in workers()}
    wanted = rng.randint(0, QUESTIONS // PARTITION // 2)  # partitions that are there when it is killed
    killed: list[int] = []
    ended = threading.Event()

    def kill() -> None:
        while not killed and not ended.wait(0.05):
            started = [process for process in workers() if process.pid not in before]
            if started and len(list(folder.glob("*.parquet"))) >= wanted:
                ended.wait(0 if wanted else 3 * rng.random())  # none is there for as long as the model is loaded
                victim = rng.choice(started)
                with contextlib.suppress(psutil.NoSuchProcess):
                    victim.kill()
                    killed.append(victim.pid)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        run()
    finally:
        ended.set()
        killer.join()
    assert killed


def test_the_partition_of_a_killed_worker_is_answered_by_another(answered: Path, tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    while_one_is_killed(lambda: on_two(tmp_path), tmp_path / "predictions", seed)
    assert files(tmp_path) == files(answered), f"{seed = }"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_files_are_identical_whenever_a_worker_is_killed(seed: int, cluster: None, tmp_path: Path) -> None:
    examples = load_examples("flags", "test", QUESTIONS)

    def start() -> Callable:  # an engine without a model, whose loading would take most of the time
        def answer(part: list[Example], progress: object, console: Console) -> list[Trace]:
            time.sleep(0.3)
            return [
                Trace(
                    question=example.question, documents=(), retrieved=(), scores={}, kept=(), dropped=(), shown=(),
                    reasoning="", cited=(), ranking=(example.documents[0].id,), answer=example.question[::-1], raw="",
                )
                for example in part
            ]  # fmt: skip

        return answer

    def run(folder: Path) -> list[Trace]:
        return on_ray.answer_on_ray(start, examples, folder / "predictions", PARTITION, 2, Console(quiet=True))

    run(tmp_path / "calm")
    while_one_is_killed(lambda: run(tmp_path / "killed"), tmp_path / "killed" / "predictions", seed)
    assert len(files(tmp_path / "calm")) == QUESTIONS // PARTITION
    assert files(tmp_path / "killed") == files(tmp_path / "calm")


# --------------------------------------------------------------------------------------------------------------- index


@pytest.fixture
def papers(tmp_path: Path) -> Path:
    """Files for four tasks, one of them damaged."""
    folder = tmp_path / "papers"
    folder.mkdir()
    for number in range(3 * FILES + 5):
        (folder / f"note{number:03d}.md").write_text(f"# Pump {number}\n\nIt needs {number} bar.\n\n# Valve\n\nRed.")
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 no")
    return folder


def index(folder: Path, library: Path | str, *changes: str) -> int:
    return cli.main(["index", str(folder), "--ocr", "off", "--library", str(library), *changes])


def contents(library: Path | str) -> list[dict]:
    table = Library.open(library)._table.search().limit(None).to_arrow()
    return sorted(table.to_pylist(), key=lambda row: row["key"])


def test_index_on_two_workers_holds_what_one_process_indexes(
    papers: Path, tmp_path: Path, static_model: str, capsys: pytest.CaptureFixture
) -> None:
    for name, engine in (("alone", "plain"), ("together", "ray")):
        assert index(papers, tmp_path / name, "--embedding", static_model, "--engine", engine, "--workers", "2") == 0
        assert "1 left out" in capsys.readouterr().out
    alone, together = contents(tmp_path / "alone"), contents(tmp_path / "together")
    assert len(alone) == 2 * (3 * FILES + 5)
    assert [row.pop("vector") for row in together] == [pytest.approx(row.pop("vector"), abs=1e-6) for row in alone]
    assert together == alone
    (papers / "note000.md").write_text("# Pump\n\nIt needs none.")
    (papers / "note001.md").unlink()
    assert index(papers, tmp_path / "together", "--engine", "ray") == 0
    assert "1 changed, 1 removed" in capsys.readouterr().out
    texts = {row["id"]: row["text"] for row in contents(tmp_path / "together")}
    assert "It needs none." in texts["papers/note000.md#part=1"]
    assert "papers/note001.md#part=1" not in texts


def test_library_in_a_bucket_is_read_while_it_is_written(papers: Path, bucket: str) -> None:
    Library.open(bucket, create=True)
    seen: list[int] = []
    written = threading.Event()

    def read() -> None:
        while not written.is_set():
            seen.append(len(Library.open(bucket)))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("lite.library.update.BATCH_ROWS", 40)  # several transactions
            assert index(papers, bucket, "--engine", "ray", "--workers", "2") == 0
    finally:
        written.set()
        reader.join()
    assert seen == sorted(seen)
    assert all(count % 2 == 0 for count in seen)  # two documents a file: never half of one
    assert len(Library.open(bucket)) == 2 * (3 * FILES + 5)
    assert Library.open(bucket).search("needs 7 bar", 1)[0].document.id == "papers/note007.md#part=1"


# ------------------------------------------------------------------------------------------------------------- imports


def loaded_by(code: str) -> set[str]:
    program = f"import sys\n{code}\nprint([m for m in ('ray', 'vllm', 'deepspeed') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1].replace("'", '"')))


def test_nothing_of_it_is_imported_unless_asked_for() -> None:
    modules = "cli.main cli.ask train.stage2 train.export evaluate.run evaluate.on_ray library.store rag".split()
    assert loaded_by("import " + ", ".join(f"lite.{module}" for module in modules)) == set()


@pytest.mark.parametrize("engine", ["ray", "ray+vllm", "vllm"])
def test_an_absent_extra_is_named(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("lite.ray.find_spec", lambda name: None)
    monkeypatch.setattr("lite.evaluate.vllm.find_spec", lambda name: None)
    monkeypatch.setattr("lite.evaluate.vllm.exported_cards", lambda stage1, exported: ({}, {}))
    exported = str(ROOT / "lite/tiny/adapters/stage2")
    assert cli.main(command(tmp_path, "--engine", engine, "--exported", exported)) == 1
    # vLLM pins what lite pins otherwise: it wants an environment of its own
    how = "pip install 'mmrag-lite[ray]'" if engine.startswith("ray") else "docs/scaling.md shows how to install it"
    assert how in capsys.readouterr().err
