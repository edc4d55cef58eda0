"""`lite mcp` by the client of the official SDK: in a process of its own, as assistants start it, and in this one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from mcp import Client, StdioServerParameters

import lite.cli.serve
from lite.cli import main as cli
from lite.data import flags
from lite.library.store import Library
from lite.rag import Rag
from lite.schema import LiteError
from lite.serve.mcp import build

ROOT = Path(__file__).parents[2]
QUESTION = "What is the capital of Andorra?"
CARD = flags.load_corpus()["txt:ad:capital"]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("served") / "notes"
    folder.mkdir()
    (folder / f"{CARD.title}.txt").write_text(CARD.text)
    (folder / "Peru.txt").write_text("The capital of Peru is Lima. " + "Long. " * 900)
    Library.open(folder.parent / "library", create=True).index(folder)
    return str(folder.parent / "library")


def calls(server, *wanted: tuple[str, dict]) -> tuple[list[str], list]:
    """The names of the tools, and the result of each call."""

    async def run():
        async with Client(server) as client:
            tools = [tool.name for tool in (await client.list_tools()).tools]
            return tools, [await client.call_tool(name, arguments) for name, arguments in wanted]

    return anyio.run(run)


@pytest.mark.slow
def test_the_command_speaks_nothing_but_the_protocol(library: str) -> None:
    arguments = ["-m", "lite", "mcp", "--library", library, "--profile", "tiny"]
    command = StdioServerParameters(command=sys.executable, args=arguments, cwd=ROOT)
    tools, (found, said) = calls(command, ("search", {"query": "capital of Andorra"}), ("ask", {"question": QUESTION}))
    assert tools == ["search", "ask"]
    assert found.structured_content["result"][0]["text"] == CARD.text
    assert not said.is_error
    assert said.structured_content["answer"]


def test_answers_are_those_of_the_model(library: str) -> None:
    rag, times = Rag.load("tiny"), []
    server = build(library, lambda: times.append(1) or rag)
    _, (one, two) = calls(
        server, ("ask", {"question": QUESTION}), ("ask", {"question": "What is the capital of Peru?"})
    )
    expected = rag.ask(QUESTION, library=library)
    assert one.structured_content["answer"] == expected.answer
    assert one.structured_content["reasoning"] == expected.reasoning
    assert [source["document"] for source in one.structured_content["citations"]] == list(expected.cited)
    assert two.structured_content["answer"] == rag.ask("What is the capital of Peru?", library=library).answer
    assert times == [1]


def test_searching_needs_no_model(library: str) -> None:
    tools, (found, none, wrong, empty) = calls(
        build(library, None), ("search", {"query": "Lima", "limit": 1}), ("search", {"query": "xyzzy"}),
        ("search", {"query": "Lima", "limit": 99}), ("search", {"query": " "}),
    )  # fmt: skip
    assert tools == ["search"]
    (hit,) = found.structured_content["result"]
    assert hit["title"] == "Peru"
    assert len(hit["text"]) <= 2010
    assert none.structured_content["result"] == []
    assert wrong.is_error
    assert empty.is_error
    assert "empty" in empty.content[0].text


def test_what_goes_wrong_is_said_and_can_be_tried_again(library: str, rag: Rag, tmp_path: Path) -> None:
    shutil.copytree(library, tmp_path / "library")
    outcomes = [LiteError("The model does not fit."), rag]

    def load():
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    rag.stage1["threshold"] = 1.1  # nothing is kept: an answer without the model
    server = build(str(tmp_path / "library"), load)
    call = ("ask", {"question": QUESTION})
    _, (first, second, long) = calls(server, call, call, ("ask", {"question": "x" * 5000}))
    assert first.is_error
    assert "does not fit" in first.content[0].text
    assert second.structured_content["answer"] == "not in the documents"
    assert "5,000 characters" in long.content[0].text
    shutil.rmtree(tmp_path / "library")
    _, (gone, search) = calls(server, call, ("search", {"query": "x"}))
    assert "There is no library" in gone.content[0].text
    assert "There is no library" in search.content[0].text


def test_a_malformed_output_is_an_error(library: str, rag: Rag) -> None:
    _, (said,) = calls(build(library, lambda: rag), ("ask", {"question": QUESTION}))
    assert said.is_error
    assert "malformed" in said.content[0].text


def test_without_the_extra_a_sentence_says_what_to_install(library: str, monkeypatch, capsys) -> None:
    monkeypatch.setattr(lite.cli.serve, "find_spec", lambda name: None)
    assert cli.main(["mcp", "--library", library]) == 1
    out, err = capsys.readouterr()
    assert "pip install 'mmrag-lite[mcp]'" in err
    assert out == ""


def test_help_needs_no_extra() -> None:
    done = subprocess.run([sys.executable, "-m", "lite", "mcp", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    assert "Model Context Protocol" in done.stdout
