"""What a stranger may hand to lite: files, data sets, recipes, run folders, traces, HTTP requests. All are made here.

    python -m benchmarks.hostile FOLDER      all but the requests; prints one JSON line

An input ends well where the command exits with one of its statuses within `SECONDS`, prints no traceback and nothing
that drives a terminal, and runs nothing that the input names. `benchmarks.endurance` runs both halves.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import shutil
import sys
import time
import traceback
import zipfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

SECONDS = 60  # for one input
EVIL = "\x1b]0;owned\x07\x1b[2J\u202e[/red]<script>alert(1)</script>"
SECRET = "the-text-that-no-stranger-may-read"
DEEP = "[" * 200_000
PYTHON_TAG = "a: !!python/object/apply:os.system ['touch owned']"


def files(folder: Path) -> None:
    """Twenty files that claim to be what they are not, or are too much of it."""
    folder.mkdir()
    ending = {
        "empty.pdf": b"", "words.pdf": b"no PDF", "cut.pdf": b"%PDF-1.7\n1 0 obj <<", "page.jpg": b"<html>",
        "script.png": b"%!PS-Adobe-3.0\n(owned) (w) file\nshowpage\n", "zero.txt": b"a\0b", "cut.gif": b"GIF89a\xff",
        "bad.csv": b'"' + b"x" * 200_000, "deep.html": b"<div>" * 20_000, "deep.md": b"> " * 20_000,
        "no.docx": b"PK\x03\x04", "no.xlsx": b"PK\x05\x06" + b"\0" * 18, "half.md": b"\xed\xa0\xbd",
        "evil.txt": EVIL.encode(), f"{'n' * 240}.txt": b"long name", "tags.html": b"<table>" * 2_000,
    }  # fmt: skip
    for name, content in ending.items():
        (folder / name).write_bytes(content)
    (folder / "evil\x1b[31m.txt").write_text("A name that colours the terminal.")
    with zipfile.ZipFile(folder / "bomb.docx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", b"<x>" + b"a" * 600_000_000)
    Image.new("1", (30_000, 30_000)).save(folder / "large.png")
    (folder / "elsewhere.txt").symlink_to("/etc/passwd")


def data_sets(folder: Path) -> Iterator[tuple[str, ...]]:
    """Commands on labelled data of their own."""
    document = '{"id": "d", "kind": "text", "text": "x"}\n'
    rows = [
        DEEP, '{"id": ' + DEEP, "{'id': 'd'}", "[1]", "7", "\ud83d", '{"id": "\\ud83d", "kind": "text", "text": "x"}',
        json.dumps({"id": "i", "kind": "image", "image": "n" * 10_000}), '{"question": "?", "relevant": "d"}',
        '{"id": "i", "kind": "image", "image": "/etc/passwd"}', '{"id": "i", "kind": "image", "image": "../../x"}',
        json.dumps({"question": EVIL, "relevant": ["d"], "answers": [EVIL], "category": EVIL}),
        '{"question": "?", "relevant": ["' + "x" * 1_000_000 + '"]}', "9" * 5000,
        '{"question": "?", "relevent": ["d"]}',
    ]  # fmt: skip
    for number, row in enumerate(rows):
        path = folder / f"own{number}.jsonl"
        path.write_bytes((document + row + "\n").encode("utf-8", "surrogatepass"))
        yield "data", "inspect" if number % 2 else "validate", str(path)


def recipes(folder: Path) -> Iterator[tuple[str, ...]]:
    """Commands on settings."""
    texts = [
        PYTHON_TAG, "env: {LD_PRELOAD: /tmp/evil.so}", "[" * 5_000, "output_dir: {a: b}", "max_steps: [1]", "\0",
        f"? [a]\n: {EVIL!r}",
    ]  # fmt: skip
    for number, text in enumerate(texts):
        path = folder / f"recipe{number}.yaml"
        path.write_text(text)
        yield "train", "stage1", "--config", str(path), "--use_cpu", "true", "--dry_run", "true"


def run_folders(folder: Path) -> Iterator[tuple[str, ...]]:
    """Commands on runs that somebody else made."""
    from lite.runs import SHIPPED

    changes = {
        "stage2/adapter/lite.json": [b"", b"[]", b'{"active": ["stage2"]}', DEEP.encode(), b"\xff"],
        "stage1/adapter/lite.json": [b"null", b"{}"],
        "stage2/adapter/adapter_model.safetensors": [b"", b"\xff" * 64],
        "stage2/adapter/adapter_config.json": [b"{}", b'{"peft_type": "LOHA"}', b'{"peft_type": "LORA", "r": "x"}'],
        "stage2/config.yaml": [PYTHON_TAG.encode(), b"[" * 5_000],
    }  # fmt: skip
    (folder / "note.txt").write_text("A note.")
    changed = [(name, content) for name, contents in changes.items() for content in contents]
    for number, (name, content) in enumerate(changed):
        run = folder / f"run{number}"
        for stage in ("stage1", "stage2"):
            shutil.copytree(SHIPPED / stage, run / stage / "adapter")
        (run / name).write_bytes(content)
        yield "ask", EVIL, "--documents", str(folder / "note.txt"), "--profile", str(run / "stage2"), "--ocr", "off"


def trace_lines() -> list[str]:
    """Traces that a page or a report may be given."""
    whole = {
        "question": "?", "documents": [{"id": "d", "kind": "text", "title": "t", "text": "x"}], "retrieved": ["d"],
        "scores": {"d": 0.5}, "kept": ["d"], "dropped": [], "shown": ["d"], "reasoning": "", "cited": [],
        "ranking": ["d"], "answer": "", "raw": "", "failure": "", "seconds": {},
    }  # fmt: skip
    changes = [
        {"scores": {"d": 10**400}}, {"scores": {"d": "1"}}, {"seconds": {"a": float("inf")}}, {"answer": "\ud83d"},
        {"kept": ["e"]}, {"documents": 7}, {"__class__": "x"}, {"question": None},
    ]  # fmt: skip
    return [DEEP, "", *(json.dumps(whole | change) for change in changes)]


def ended_badly(arguments: tuple[str, ...], folder: Path) -> str:
    """Run a command in this process; why it did not end well, or nothing."""
    from lite.cli.main import main

    out, start = io.StringIO(), time.monotonic()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            status = main(list(arguments))
        except SystemExit as end:
            status = end.code
        except BaseException:  # whatever it is, it is the finding
            return traceback.format_exc(limit=-2)
    seconds, text = time.monotonic() - start, out.getvalue()
    if status not in (0, 1, 2, 3, 4):
        return f"exit status {status}"
    if "Traceback" in text or "\x1b" in text or "\x07" in text or "\u202e" in text:
        return f"printed {text[-300:]!r}"
    if seconds > SECONDS:
        return f"took {seconds:.0f} s"
    return "something was executed" if (folder / "owned").exists() or Path("owned").exists() else ""


def requests(port: int, secret: Path) -> dict:
    """Ask a running demo on this machine for what it must not give; returns `asked` and the `failed` ones."""
    local = {"Host": f"127.0.0.1:{port}"}
    posted = local | {"Content-Type": "application/json"}
    form = local | {"Content-Type": "multipart/form-data; boundary=x"}
    paths = [
        f"/gradio_api/file={secret}", "/gradio_api/file=/proc/self/environ", "/gradio_api/file=http://127.0.0.1:1/x",
        f"/file={secret}", f"/../..{secret}", "/static/%2e%2e/x", "/gradio_api/proxy=http://127.0.0.1:1",
        "/" + "a" * 60_000,
    ]  # fmt: skip
    asked = [
        *(("GET", path, local, b"") for path in paths), ("GET", "/config", {"Host": "evil.example"}, b""),
        ("POST", "/gradio_api/queue/join", posted, DEEP.encode()),
        ("POST", "/gradio_api/queue/join", posted, b'{"data": [1], "fn_index": 1e99}'),
        ("POST", "/gradio_api/upload", form, b"--x\r\nno"),
        ("POST", "/gradio_api/upload", local | {"Origin": "http://evil.example"}, b""), ("TRACE", "/", local, b""),
    ]  # fmt: skip
    failed = []
    for method, path, headers, body in asked:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            text = answer.read(1 << 20)
            if answer.status >= 500 or SECRET.encode() in text or (answer.status < 400 and b"environ" in path.encode()):
                failed.append(f"{method} {path[:80]}: {answer.status}")
            elif headers.get("Host") == "evil.example" and answer.status < 400:
                failed.append(f"{method} {path} for another host: {answer.status}")
        except OSError as error:
            failed.append(f"{method} {path[:80]}: {error}")
        finally:
            connection.close()
    return {"asked": len(asked), "failed": failed}


def main(folder: Path) -> None:
    """One JSON line with the number of inputs and those that did not end well."""
    from lite.schema import LiteError, Trace

    files(folder / "files")
    library = str(folder / "library")
    commands = [
        ("index", str(folder / "files"), "--library", library, "--ocr", "off"),
        ("search", EVIL, "--library", library),
    ]
    for source in (data_sets, recipes, run_folders):
        commands += list(source(folder))
    failed = [f"{command[:3]}: {why}" for command in commands if (why := ended_badly(command, folder))]
    for line in trace_lines():
        try:
            Trace.from_json(line)
            failed.append(f"a trace was taken: {line[:60]}")
        except LiteError:
            pass
    count = len(commands) - 2 + len(list((folder / "files").iterdir())) + len(trace_lines())
    print(json.dumps({"inputs": count, "failed": failed}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
