"""`lite push`: a run's adapters on the Hugging Face hub."""

from __future__ import annotations

import tempfile
from pathlib import Path

from lite.terminal import ArgumentParser, printable


def push(arguments: list[str]) -> None:
    """`lite push ORGANISATION/NAME`."""
    parser = ArgumentParser(
        prog="lite push",
        description="Share a run's adapters on the Hugging Face hub, with a model card that has the report's figures. "
        "Others use them with --adapters, plain PEFT or vLLM. Log in first: hf auth login",
    )
    parser.add_argument("repo", metavar="ORGANISATION/NAME")
    parser.add_argument("--run", type=Path, required=True, help="A run folder, such as runs/tiny/stage2.")
    parser.add_argument("--base", metavar="ID", help="The base's hub id, if it was trained on a local copy.")
    parser.add_argument("--private", action="store_true", help="Make a new repository private.")
    parser.add_argument("--dry_run", action="store_true", help="Upload nothing: write the folder, to look at.")
    parser.add_argument("--output_dir", type=Path, help="With --dry_run: a new folder. [NAME]")
    options = parser.parse_args(arguments)

    from lite.train.push import prepare, upload

    if options.dry_run:
        folder = options.output_dir or Path(options.repo.rpartition("/")[2])
        print(f"Written, not uploaded: {printable(str(prepare(options.run, folder, options.repo, options.base)))}")
        return
    with tempfile.TemporaryDirectory(prefix="lite-push-") as folder:
        prepare(options.run, Path(folder), options.repo, options.base)
        print(f"Uploaded: {printable(upload(Path(folder), options.repo, options.private))}")
