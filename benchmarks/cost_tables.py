"""Time and memory as Markdown, for docs/: every function takes what a program of this folder wrote as JSON."""

from __future__ import annotations

from tables import markdown


def scoring(result: dict) -> str:
    """How fast P(relevant) is read."""
    case = result["cases"]
    speeds = {kind: case[kind]["shared question (lite)"]["speedup"] for kind in case}
    difference = max(case[kind]["shared question (lite)"]["largest_score_difference"] for kind in case)
    told = ", ".join(f"{speed:.1f} ({kind})" for kind, speed in speeds.items())
    return (
        f"Against one `generate` call per document on a CPU it is faster by a factor of {told}; scores differ by at "
        f"most {difference:.0e} (`python benchmarks/scoring.py`)."
    )


def memory(result: dict) -> str:
    """The estimates of all recipes."""
    rows = [(f"`{profile}`", *(f"{peak:.1f}" for peak in by_stage.values())) for profile, by_stage in result.items()]
    return markdown(["recipe", "stage 1, GiB", "stage 2, GiB"], rows)


def grpo_step(result: dict) -> str:
    """A training step against TRL's, over the length of the prompt."""
    rows = [
        (
            case["prompt"], *(f"{case['seconds'][kind]['step']:.1f}" for kind in ("stock", "lite")),
            f"{case['ratio']['step']:.1f}", *(f"{case['memory_mib'][kind]:,.0f}" for kind in ("stock", "lite")),
        )
        for case in result["cases"]
        if (case["completion"], case["group"]) == (64, 8)
    ]  # fmt: skip
    difference = max(case["gradient_difference"] for case in result["cases"])
    return "\n\n".join(
        [
            markdown(
                ["prompt tokens", "TRL, s", "lite, s", "times as fast", "TRL, MiB over the model", "lite, MiB"], rows
            ),
            f"{result['device']}; 8 completions of 64 tokens. Gradients differ from TRL's by at most {difference:.0e} "
            "of their size (`python benchmarks/grpo_step.py`).",
        ]
    )


def merged(result: dict) -> str:
    """What merging a small model saves on a CPU."""
    rows = [
        (task, f"{part['as_they_are_s']:.2f}", f"{part['merged_s']:.2f}", f"{part['times_as_fast']:.1f}")
        for task, part in result["tasks"].items()
    ]
    return markdown(["task, CPU", "adapters on 4 bits, s", "merged, s", "times as fast"], rows)


def decoding(result: dict) -> str:
    """Operations per position that is sampled, by system."""
    named = {
        "transformers": "transformers' `generate`",
        "before": f"lite's loop before static buffers (`{result['before']}`)",
        "loop": "lite's loop, without a graph",
        "graph": "lite's loop, each position as one graph",
    }
    rows = [
        (
            named[system], *(f"{counts[adapters]['operations']:,}" for adapters in ("2", "0")),
            f"{counts['2']['operations'] / result['systems']['before']['2']['operations']:.1%}",
            f"{counts['2']['launches']:,}", f"{counts['2']['waits']:g}",
        )
        for system, counts in ((system, result["systems"][system]) for system in named)
    ]  # fmt: skip
    headings = ["", "operations, 2 adapters", "no adapter", "of before", "that launch something", "waits for the GPU"]
    return markdown(headings, rows)


def library(result: dict) -> str:
    """Time and memory to index, time of a query, and what is found."""
    named = {
        "ours": "`lite index`",
        "ours, nothing changed": "the same again, nothing changed",
        "plain loop": "a plain loop, file by file",
        "ours, with vectors": "`lite index` with `--embedding`, on the CPU",
    }
    index = [
        (named[name], f"{part['documents']:,}", f"{part['seconds']:,.3g}", f"{part['peak_mib']:,}")
        for name, part in result["index"].items()
    ]
    queries = [
        (name, *(f"{by[size]['p50_ms']:.0f} / {by[size]['p95_ms']:.0f}" for size in by))
        for name, by in result["query"].items()
        if name in ("words", "hybrid")
    ]
    sizes = [f"{int(size):,} documents" for size in result["query"]["words"]]
    embedding = result["query"].get("of which embedding the question")
    found = result["recall@20"]
    recalls = [
        (name, *(f"{found[name][kind]['value']:.2f}" for kind in found["words"]))
        for name in ("words", "hybrid", "vectors alone")
        if name in found
    ]
    return "\n\n".join(
        [
            markdown(["indexing", "documents", "seconds", "MiB, at most"], index),
            markdown(["a query, ms: median / 95th percentile", *sizes], queries),
            *([f"Embedding the question takes {embedding['p50_ms']:.0f} ms of that."] if embedding else []),
            markdown([f"recall@20 of {found['documents']} documents", *found["words"]], recalls),
            f"{result['machine']}, shared with other work: compare the figures with each other, not with your machine "
            "(`python benchmarks/library.py`).",
        ]
    )


def scale(result: dict) -> str:
    """What was measured, and the model of large corpora."""
    answers, index, a = result["answering"], result["indexing"], result["assumed"]
    measured = []
    for name in answers:
        if name == "unit":
            continue
        shown = "the plain loop" if name == "plain" else name.replace("ray,", "Ray, workers:")
        answer, read = answers[name], index[name]
        cells = f"{answer['per_second']:.1f}", f"{answer['seconds']:.0f}", f"{read['per_second']:,.0f}"
        measured.append((shown, *cells))
    modelled = [
        (
            f"{m['documents']:,.0f}", f"{m['card hours, stage 1'] + m['card hours, stage 2']:,.0f}",
            f"{m['hours to answer']:,.0f}", f"{m['bytes of predictions'] / 1e9:,.1f}",
            f"{m['bytes of the library'] / 1e9:,.1f}", f"{m['core hours to index']:,.1f}",
            f"{m['hours to index']:,.2f}",
        )
        for m in result["model"].values()
    ]  # fmt: skip
    return "\n\n".join(
        [
            markdown(["by", "answering, questions/s", "all of it, s", "indexing, documents/s"], measured),
            f"Measured with the embedded model on {result['machine']['cores']} CPU cores, {result['questions']} "
            f"questions and {2 * result['files']:,} short documents (`python benchmarks/scale.py`), shared with other "
            f"work (load average {result['machine']['load']:.1f}). *Questions/s* is the pace once models are loaded; "
            "*all of it* includes loading them in every worker.",
            markdown(
                [
                    "documents", "answering: card hours", f"hours on {a['cards']} cards", "predictions, GB",
                    "library, GB", "indexing: core hours", f"hours on {a['cores that index']} cores",
                ],
                modelled,
            ),
            "This table is arithmetic, not a measurement: bytes and core hours of the documents above, text without "
            f"OCR or vectors; Qwen3-VL-4B on cards of {a['peak of a card, operations per second'] / 1e12:.0f} Tflop/s "
            f"of which {a['share of the peak in prefill']:.0%} are reached, {a['documents per question']} documents a "
            f"question of {a['tokens per document']} tokens each. All assumptions are in "
            "`benchmarks/results/scale.json`.",
        ]
    )  # fmt: skip


def laptop(result: dict) -> str:
    """Seconds to the first word and to the end of an answer, and what prompt lookup saves."""
    steps = ("load", "filter", "first word", "whole answer")
    shown = {"load": "loading the model", "filter": f"judging {result['documents']} passages"}
    shown |= {"whole answer": f"the whole answer, {result['answer_tokens']} tokens"}
    seconds = result["seconds"]
    rows = [
        (shown.get(step, step), *(f"{seconds[step][kind]:.0f}" for kind in ("wall", "processors"))) for step in steps
    ]
    found, load = result["lookup"], result["load_average"]
    return "\n\n".join(
        [
            markdown(["after asking (loading comes before)", "seconds", "seconds of processors"], rows),
            f"{result['model']}, {result['threads']} threads on {result['cores']} cores, passages of "
            f"{result['characters']:,} characters; other work ran beside it (load average {load['before']:.0f} to "
            f"{load['after']:.0f}), so an idle machine is faster (`python benchmarks/laptop.py`). A real answer "
            f"repeats its documents, which saves passes: the embedded model needs {found['with lookup']} in place of "
            f"{found['passes']} for {found['questions']} answers"
            + (", with the same text." if found["same text"] else ", but not with the same text."),
        ]
    )


def endurance(results: dict) -> str:
    """What was done to lite, and whether it came out as if nothing had been; nothing where it was never run."""
    if not results:
        return "Not measured."
    what = {
        "kills_indexing": "`lite index` killed while the folder keeps changing: the library of an unbroken run",
        "kills_stage1": "a short run of stage 1 killed: the adapter of an unbroken run, every step once",
        "kills_stage2": "the same of stage 2",
        "hostile": "files, data sets, recipes, run folders, traces and HTTP requests made to do harm: a clear refusal",
        "users": "visitors of one demo who ask at once about files of their own: no answer holds another's",
    }
    rows = []
    for name, told in what.items():
        if name not in results:
            continue
        found = results[name]
        counts = {
            "kills": "{kills} kills", "inputs": "{inputs} inputs", "users": "{users} visitors, {answers} answers"
        }  # fmt: skip
        times = next(text.format(**found) for key, text in counts.items() if key in found)
        reached = ", ".join(found["reached"]) or "nobody"
        rows.append([told, times, "yes" if found["same"] else "**no**", reached])
    return markdown(["what happens, and what must come of it", "times", "it did", "who else was reached"], rows)
