"""The demo's second tab: what a run folder says of its training, as curves, tables and samples."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path

import gradio as gr
import pandas as pd

from lite.demo import view
from lite.runs import read_metrics

logger = logging.getLogger(__name__)

SAMPLES = 8  # completions shown of a step
LONGEST = 1500  # characters of each
NOT_TERMS = ("step", "advantage")  # numbers in completions/*.parquet that are no reward
NO_RUNS = (
    '<p class="hint">No run yet. <code>bash recipes/stage1.sh</code>, then <code>bash recipes/stage2.sh</code>, train '
    "the profile that fits this machine; their curves appear here while they train.</p>"
)


def runs_tab(page: gr.Blocks, root: Path) -> None:
    """Inside a tab: choose a run, see its curves, its tables and what the model said on the way."""
    names = find_runs(root)
    with gr.Row(elem_id="choosing"):
        run = gr.Dropdown(names, value=names[0] if names else None, label="Run", elem_id="run", scale=3)
        refresh = gr.Button("Read again", elem_id="refresh", scale=0, min_width=160)
    curves = gr.LinePlot(
        None, x="step", y="mean reward", color="term", title="Rewards while training", height=300, elem_id="curves",
        buttons=[], visible=False,
    )  # fmt: skip
    tables = gr.HTML(elem_id="tables")
    step = gr.Slider(
        1, 2, value=1, step=1, label="What the model generated at step", elem_id="step", buttons=[], visible=False
    )
    samples = gr.HTML(elem_id="samples")

    def choose(name: str | None):
        if name not in find_runs(root):
            return gr.update(value=None, visible=False), NO_RUNS, gr.update(visible=False), ""
        folder = root / name
        curves = reward_curves(folder)
        steps = sample_steps(folder)
        last = steps[-1] if steps else 1
        slider = gr.update(minimum=steps[0] if steps else 1, maximum=max(last, 2), value=last, visible=len(steps) > 1)
        plot = gr.update(value=curves, visible=curves is not None)
        return plot, report_tables(folder), slider, sample_cards(folder, last)

    def again(name: str | None):
        found = find_runs(root)
        name = name if name in found else found[0] if found else None
        return gr.update(choices=found, value=name), *choose(name)

    def move(name: str | None, at: int):
        return sample_cards(root / name, int(at)) if name in find_runs(root) else ""

    quiet = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": 4}
    run.input(choose, run, [curves, tables, step, samples], **quiet)
    gr.on([refresh.click, page.load], again, run, [run, curves, tables, step, samples], **quiet)
    step.release(move, [run, step], samples, **quiet)


def find_runs(root: Path) -> list[str]:
    """Folders below `root` that hold a run or a table of runs, the newest first."""
    files = [path for name in ("metrics.jsonl", "report.json") for path in root.glob(f"*/**/{name}")]
    newest: dict[str, float] = {}
    for path in files:
        folder = str(path.parent.relative_to(root))
        if not re.search(r"checkpoint-|cold_start", folder):
            newest[folder] = max(newest.get(folder, 0.0), path.stat().st_mtime)
    return sorted(newest, key=newest.__getitem__, reverse=True)


def reward_curves(folder: Path) -> pd.DataFrame | None:
    """`step`, `term`, `mean reward`: a row per logged step and reward term; None where nothing was logged."""
    rows = [
        {"step": row["step"], "term": key.split("/")[1], "mean reward": value}
        for row in read_metrics(folder / "metrics.jsonl")
        if isinstance(row, dict) and _is_number(row.get("step"))
        for key, value in row.items()
        if re.fullmatch(r"rewards/.*/mean", key) and _is_number(value)
    ]
    return pd.DataFrame(rows) if rows else None


def report_tables(folder: Path) -> str:
    """Before and after, from `report.json`: every system's figures with their intervals, and the gain."""
    from lite.evaluate.report import evidence_sentence  # here: with what it imports it would double the start-up time

    report = _read_json(folder / "report.json")
    if report is None:
        return '<p class="hint">Its report comes at the end of the training.</p>'
    try:
        if "systems" in report:
            html = _table("Systems on the test questions", report["systems"])
            html += _table(f"{report['full']}, minus", report["against"], signed=True) if report["against"] else ""
            if report.get("evidence", {}).get("questions"):
                html += view.message(evidence_sentence(report["evidence"]), "note")
            return html
        names = ("chance", "bm25", "base", "trained")
        html = _table("Filter on the data set's own pools", {name: report[name] for name in names})
        html += _table("Filter on hard pools", {name: report["hard_pools"][name] for name in names})
        gains = {"own pools": report["difference"], "hard pools": report["hard_pools"]["difference"]}
        return html + _table("trained minus base", gains, signed=True)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        logger.warning("%s holds a report that cannot be shown (%r).", folder, error)
        return view.message(f"The report of {folder.name} cannot be shown: it is not one that lite wrote.")


def sample_steps(folder: Path) -> list[int]:
    """Steps whose completions were kept, ascending."""
    found = (
        re.fullmatch(r"completions_([0-9]{1,9})", path.stem) for path in (folder / "completions").glob("*.parquet")
    )
    return sorted(int(match[1]) for match in found if match)


def sample_cards(folder: Path, step: int) -> str:
    """One prompt's completions at the step nearest to `step`, best first, with every reward by itself."""
    steps = sample_steps(folder)
    if not steps:
        return ""
    nearest = min(steps, key=lambda found: abs(found - step))
    try:
        rows = pd.read_parquet(folder / "completions" / f"completions_{nearest:05d}.parquet")
        return view.samples(nearest, *_best_first(rows))
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        logger.warning("%s, step %d: its completions cannot be read (%s).", folder, nearest, error)
        return view.message("The completions of this step cannot be read.")


def _best_first(rows: pd.DataFrame) -> tuple[str, list[dict]]:
    """The first prompt, and what the page shows of its completions."""
    group = rows[rows["prompt"] == rows["prompt"].iloc[0]].sort_values("advantage", ascending=False)[:SAMPLES]
    terms = [name for name in group.select_dtypes("number").columns if name not in NOT_TERMS]
    completions = [
        {
            "text": str(row["completion"])[:LONGEST],
            "failure": failure if isinstance(failure := row.get("format_failure"), str) else "",
            "rewards": [(name, _number(row[name])) for name in (*terms, "advantage")],
        }
        for row in group.to_dict("records")
    ]
    return str(group["prompt"].iloc[0]).strip(), completions


def _table(title: str, systems: Mapping[str, Mapping[str, Mapping[str, float]]], signed: bool = False) -> str:
    from lite.evaluate.report import cell

    figures = list(dict.fromkeys(name for found in systems.values() for name in found))
    rows = [
        (system, [cell(found[name], signed) if name in found else "–" for name in figures])
        for system, found in systems.items()
    ]
    return view.table(title, figures, rows)


def _number(value: float | None) -> str:
    return "–" if value is None or value != value else f"{value:.2f}"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _read_json(path: Path) -> dict | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        logger.warning("%s is damaged (%s).", path, error)
        return None
