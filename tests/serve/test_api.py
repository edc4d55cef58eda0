"""The server as its clients meet it: OpenAI's own, open-webui's requests, rerankers', and strangers'."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import openai
import pytest
import uvicorn

from lite.data import flags
from lite.library.store import Library
from lite.rag import Rag
from lite.schema import Document, LiteError
from lite.serve import gate
from lite.serve.api import build
from lite.serve.desk import Desk
from lite.serve.server import OPTIONS
from lite.stages.prompts import MAX_QUESTION
from lite.web import listen, own_names

CODES = "ad bb kw cl dk eg fj gr hu ie".split()  # of ten countries in the bundled corpus
CARDS = {code: flags.load_corpus()[f"txt:{code}:capital"] for code in CODES}
LANDS = {code: card.title.partition(":")[0] for code, card in CARDS.items()}


@contextlib.contextmanager
def serving(desk: Desk, key: str | None = None) -> Iterator[str]:
    """The address of a server in a thread."""
    with listen("127.0.0.1", 0) as place:
        server = uvicorn.Server(uvicorn.Config(build(desk, key, own_names("127.0.0.1")), **OPTIONS))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [place]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{place.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(60)
            assert not thread.is_alive()


def done(value) -> Future:
    future = Future()
    future.set_result(value)
    return future


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("served") / "atlas"
    folder.mkdir()
    for card in CARDS.values():
        (folder / f"{card.title}.txt").write_text(card.text)
    Library.open(folder.parent / "library", create=True).index(folder)
    return str(folder.parent / "library")


@pytest.fixture(scope="module")
def rag() -> Rag:
    """The shipped model: it answers, and its answers differ."""
    return Rag.load("tiny")


@pytest.fixture(scope="module")
def desk(rag: Rag, library: str) -> Desk:
    return Desk(done(rag), library, "tiny")


@pytest.fixture(scope="module")
def address(desk: Desk) -> Iterator[str]:
    with serving(desk) as address:
        yield address


@pytest.fixture
def client(address: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{address}/v1", api_key="not needed", max_retries=0)


def question(code: str) -> str:
    return f"What is the capital of {LANDS[code]}?"


def asked(client: openai.OpenAI, text: str, **options):
    return client.chat.completions.create(model="any", messages=[{"role": "user", "content": text}], **options)


def list_of(client: openai.OpenAI, text: str) -> list:
    return list(asked(client, text, stream=True))


def post(address: str, path: str = "/v1/chat/completions", **options) -> httpx.Response:
    body = {"messages": [{"role": "user", "content": question("ad")}]}
    return httpx.post(address + path, timeout=120, **({"json": body} | options))


class Scripted:
    """In place of a model: says what it is told to, as slowly as it is told to."""

    def __init__(self, rag: Rag, text: str = "", seconds: float = 0.0):
        self.rag, self.text, self.seconds = rag, text, seconds
        self.steps, self.closed = 0, threading.Event()

    def ask_stream(self, question: str, library=None):
        try:
            for event in self.rag.ask_stream(question, library=library):
                if event.name == "kept" and self.seconds:
                    for _ in range(int(60 / self.seconds)):
                        self.steps += 1
                        time.sleep(self.seconds)
                        yield replace(event, name="reasoning", text="so ", documents=(), ids=())
                yield event
        finally:
            self.closed.set()


# -------------------------------------------------------------------------------------------------------- OpenAI's form


def test_openais_client_lists_the_model(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "lite"
    with pytest.raises(openai.NotFoundError, match="This server has 'tiny'"):
        client.models.retrieve("gpt-4o")


def test_an_answer_is_what_the_library_and_the_model_give(client: openai.OpenAI, rag: Rag, library: str) -> None:
    expected = rag.ask(question("ad"), library=library)
    reply = asked(client, question("ad"))
    said = reply.choices[0].message
    assert reply.model == "tiny"
    assert reply.choices[0].finish_reason == "stop"
    assert said.reasoning_content.replace(" ", "") == expected.reasoning.replace(" ", "")
    assert [source["document"] for source in said.citations] == list(expected.cited)
    assert reply.lite["scores"] == pytest.approx(expected.scores)
    assert reply.lite["failure"] == expected.failure
    assert said.content.startswith(f"{expected.answer} [{expected.shown.index(expected.cited[0]) + 1}]\n\nSources:\n")
    (source,) = [source for source in said.citations if source["title"] == CARDS["ad"].title]
    assert source["quote"] == "The capital of Andorra is Andorra la Vella."
    assert CARDS["ad"].text[source["start"] : source["end"]] == source["quote"]
    assert source["quote"] in said.content


def test_a_stream_ends_with_what_comes_in_one_piece(client: openai.OpenAI) -> None:
    whole = asked(client, question("bb"))
    pieces = list(asked(client, question("bb"), stream=True, stream_options={"include_usage": True}))
    deltas = [piece.choices[0].delta for piece in pieces]
    assert "".join(delta.content or "" for delta in deltas) == whole.choices[0].message.content
    chain = "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
    assert whole.choices[0].message.reasoning_content.startswith(chain.rstrip("!]<"))
    assert [delta.citations for delta in deltas if hasattr(delta, "citations")] == [whole.choices[0].message.citations]
    assert [piece.choices[0].finish_reason for piece in pieces][-1] == "stop"
    assert len({piece.id for piece in pieces}) == 1
    assert pieces[-1].lite["answer"] == whole.lite["answer"]


def test_open_webui_asks_with_parts_turns_and_fields_of_its_own(address: str, rag: Rag, library: str) -> None:
    body = {
        "stream": True, "model": "tiny", "stream_options": {"include_usage": True}, "temperature": 0.8,
        "messages": [
            {"role": "system", "content": "You are a pirate."},
            {"role": "user", "content": question("kw")},
            {"role": "assistant", "content": "Corda [1]", "reasoning_content": "…", "citations": []},
            {"role": "user", "content": [
                {"type": "text", "text": "And now:"}, {"type": "text", "text": question("cl")},
            ]},
        ],
        "session_id": "x", "chat_id": "y", "id": "z", "background_tasks": {"title_generation": True},
        "features": {"web_search": False}, "tool_ids": [], "files": None, "params": {}, "metadata": {"a": [1]},
    }  # fmt: skip
    with httpx.stream("POST", f"{address}/v1/chat/completions", json=body, timeout=120) as reply:
        assert reply.status_code == 200
        assert reply.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in reply.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    pieces = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    expected = rag.ask("And now:\n" + question("cl"), library=library)
    assert pieces[-1]["lite"]["question"] == expected.question
    assert pieces[-1]["lite"]["scores"] == pytest.approx(expected.scores)


def test_ten_users_at_once_get_their_own_answers(client: openai.OpenAI, rag: Rag, library: str) -> None:
    with ThreadPoolExecutor(10) as users:
        stream = [users.submit(list_of, client, question(code)) for code in CODES[:5]]
        whole = [users.submit(asked, client, question(code)) for code in CODES[5:]]
        replies = [pieces.result()[-1].lite for pieces in stream] + [reply.result().lite for reply in whole]
    for code, reply in zip(CODES, replies, strict=True):
        expected = rag.ask(question(code), library=library)
        assert reply["question"] == question(code)
        assert reply["answer"] == ("" if expected.failure else expected.answer)
        assert reply["scores"] == pytest.approx(expected.scores)
    assert len({json.dumps(reply["scores"]) for reply in replies}) == 10


# ------------------------------------------------------------------------------------------------------------- reranker


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank"])
def test_a_reranker_as_jinas_and_coheres_clients_ask(path: str, address: str, rag: Rag) -> None:
    texts = [card.text for card in CARDS.values()]
    body = {
        "model": "jina-reranker-v2-base-multilingual", "query": question("eg"), "top_n": 3,
        "documents": [{"text": text} if n % 2 else text for n, text in enumerate(texts)],
        "return_documents": True, "max_chunks_per_doc": 10, "truncation": True,
    }  # fmt: skip
    reply = post(address, path, json=body).json()
    results = reply["results"]
    assert len(results) == 3
    scores = [result["relevance_score"] for result in results]
    assert scores == sorted(scores, reverse=True)
    assert all(result["document"]["text"] == texts[result["index"]] for result in results)
    every = post(address, path, json={"query": question("eg"), "documents": texts}).json()["results"]
    assert sorted(result["index"] for result in every) == list(range(10))
    assert [result["relevance_score"] for result in every][:3] == pytest.approx(scores, abs=1e-6)
    assert "document" not in every[0]

    alone = rag.relevance(question("eg"), [Document("x", "text", "", texts[results[0]["index"]])])
    assert alone[0] == pytest.approx(scores[0], abs=1e-5)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"query": "x"}, "documents"), ({"query": " ", "documents": ["a"]}, "empty"),
        ({"query": "x", "documents": ["a", {"image": "b"}]}, r"documents\[1\] has no text"),
        ({"query": "x", "documents": ["a"] * 1001}, "1000"), ({"query": "x", "documents": ["a"], "top_n": 0}, "top_n"),
    ],
)  # fmt: skip
def test_a_reranker_says_what_it_does_not_read(body: dict, why: str, address: str) -> None:
    reply = post(address, "/v1/rerank", json=body)
    assert reply.status_code == 400
    assert re.search(why, reply.json()["error"]["message"])


def test_nothing_to_rerank(address: str) -> None:
    assert post(address, "/v1/rerank", json={"query": "x", "documents": []}).json()["results"] == []


# ------------------------------------------------------------------------------------------------------ what goes wrong


@pytest.mark.parametrize(
    ("options", "status", "why"),
    [
        ({"json": {"messages": [{"role": "user", "content": "x" * 1_000_000}]}}, 400, f"at most {MAX_QUESTION:,}"),
        ({"json": {"messages": [{"role": "user", "content": "x" * gate.BODY}]}}, 413, "too large"),
        ({"content": iter([b" " * 2**20] * 4), "json": None}, 413, "too large"),
        ({"json": {"messages": []}}, 400, "role user"),
        ({"json": {"messages": [{"role": "user", "content": "  "}]}}, 400, "empty"),
        ({"json": {"messages": [{"role": "user", "content": None}]}}, 400, "empty"),
        ({"json": {"messages": "hello"}}, 400, "messages"),
        ({"json": {"prompt": "hello"}}, 400, "messages"),
        ({"json": [1]}, 400, "its body"),
        ({"content": b"{nonsense", "headers": {"content-type": "application/json"}, "json": None}, 400, "JSON"),
        ({"content": b"[" * 100_000, "headers": {"content-type": "application/json"}, "json": None}, 400, ""),
        ({"data": {"messages": "x"}, "json": None}, 400, "application/json"),
        ({"json": {"messages": [{"role": "user", "content": "x"}], "n": 2}}, 400, "n must be 1"),
        ({"json": {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]}},
         400, "'image_url'"),
        ({"path": "/v1/completions"}, 404, "/v1/chat/completions"),
        ({"headers": {"host": "evil.example"}}, 403, "name"),
        ({"headers": {"host": ""}}, 403, "name"),
        ({"headers": {"origin": "https://evil.example"}}, 403, "another site"),
        ({"headers": {"origin": "null"}}, 403, "another site"),
    ],
)  # fmt: skip
def test_requests_that_are_refused(options: dict, status: int, why: str, address: str) -> None:
    reply = post(address, **options)
    assert reply.status_code == status, reply.text
    error = reply.json()["error"]
    assert why in error["message"]
    assert error["type"] == "invalid_request_error"
    assert "access-control-allow-origin" not in reply.headers
    assert httpx.get(f"{address}/healthz").status_code == 200  # and it goes on


def test_openais_client_reads_the_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="1,000,000 characters"):
        asked(client, "x" * 1_000_000)


def test_half_of_a_character_is_no_fault(address: str) -> None:
    body = b'{"messages": [{"role": "user", "content": "What is \\ud800 \\u001b[31m Chad?"}]}'
    reply = post(address, content=body, json=None, headers={"content-type": "application/json"})
    assert reply.status_code == 200
    assert "\x1b" not in reply.json()["lite"]["question"]


def test_a_key_is_asked_for(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    with serving(desk, "s3cret-key") as address:
        wrong = [b"Bearer wrong", b"s3cret-key", b"Bearer s3cret-key2", b"Basic s3cret-key", b"Bearer \xff", b""]
        for headers in ({}, {"api-key": "s3cret-key"}, *({"authorization": value} for value in wrong)):
            for path in ("/v1/chat/completions", "/v1/rerank", "/v1/models", "/nothing"):
                reply = post(address, path, headers=headers)
                assert reply.status_code == 401
                assert reply.json()["error"]["code"] == "invalid_api_key"
        assert post(address, headers={"authorization": "Bearer s3cret-key"}).status_code == 200
        # With a key, any name may lead here: a page that points its name at us does not know it.
        assert post(address, headers={"authorization": "bearer s3cret-key", "host": "lite:8000"}).status_code == 200
        assert httpx.get(f"{address}/healthz").json() == {"status": "ok"}
        with pytest.raises(openai.AuthenticationError):
            asked(openai.OpenAI(base_url=f"{address}/v1", api_key="no", max_retries=0), "x")
    assert "s3cret" not in caplog.text


def test_while_the_model_loads(library: str, rag: Rag) -> None:
    desk = Desk(Future(), library, "slow")
    with serving(desk) as address:
        assert httpx.get(f"{address}/healthz").status_code == 503
        assert httpx.get(f"{address}/v1/models").status_code == 200
        for path, body in (("/v1/chat/completions", {}), ("/v1/rerank", {"json": {"query": "x", "documents": []}})):
            reply = post(address, path, **body)
            assert reply.status_code == 503
            assert int(reply.headers["retry-after"]) > 0
            assert "loading" in reply.json()["error"]["message"]
        desk.model.set_result(rag)
        assert post(address).status_code == 200


def test_a_library_that_vanished_or_was_replaced(library: str, rag: Rag, tmp_path: Path, caplog) -> None:
    shutil.copytree(library, tmp_path / "library")
    with serving(Desk(done(rag), str(tmp_path / "library"), "x")) as address:
        assert post(address).status_code == 200
        shutil.rmtree(tmp_path / "library")
        for stream in (False, True):
            body = {"messages": [{"role": "user", "content": "x"}], "stream": stream}
            reply = post(address, json=body)
            assert reply.status_code == 503
            assert "library cannot be read" in reply.json()["error"]["message"]
            assert str(tmp_path) not in reply.text
        assert "There is no library" in caplog.text
        shutil.copytree(library, tmp_path / "library")
        assert post(address).status_code == 200


def test_a_full_line_says_when_to_come_again(desk: Desk, rag: Rag) -> None:
    slow = Scripted(rag, seconds=0.05)
    busy = Desk(done(slow), desk.library, "busy", waiting=1)
    with serving(busy) as address, ThreadPoolExecutor(4) as users:
        with httpx.stream("POST", f"{address}/v1/chat/completions", json=streamed("ad"), timeout=60) as first:
            lines = first.iter_lines()  # kept, since the reply is closed with it
            next(lines)
            waiting = users.submit(
                lambda: httpx.post(f"{address}/v1/chat/completions", json=streamed("bb"), timeout=60)
            )
            until(lambda: busy.line.inside == 2)
            reply = post(address)
            assert reply.status_code == 429
            assert int(reply.headers["retry-after"]) >= 1
            assert reply.json()["error"]["code"] == "queue_full"
            slow.seconds = 0
        assert waiting.result().status_code == 200
        assert post(address).status_code == 200


def streamed(code: str) -> dict:
    return {"stream": True, "messages": [{"role": "user", "content": question(code)}]}


def until(true, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_the_model(stream: bool, desk: Desk, rag: Rag) -> None:
    slow = Scripted(rag, seconds=0.05)
    with serving(Desk(done(slow), desk.library, "slow")) as address:
        port = int(address.rpartition(":")[2])
        body = json.dumps(streamed("ad") | {"stream": stream}).encode()
        with socket.create_connection(("127.0.0.1", port)) as left:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost:{port}\r\ncontent-type: application/json\r\n"
            left.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
            until(lambda: slow.steps > 3)
        assert slow.closed.wait(5)
        slow.seconds = 0
        assert post(address).status_code == 200


def test_who_leaves_the_line_is_not_asked_about(desk: Desk, rag: Rag) -> None:
    slow = Scripted(rag, seconds=0.05)
    busy = Desk(done(slow), desk.library, "slow")
    with (
        serving(busy) as address,
        httpx.stream("POST", f"{address}/v1/chat/completions", json=streamed("ad")) as first,
    ):
        lines = first.iter_lines()  # kept, since the reply is closed with it
        next(lines)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{address}/v1/chat/completions", json=streamed("bb"), timeout=0.5)
        until(lambda: busy.line.inside == 1)


@pytest.mark.parametrize(
    ("error", "why"), [(LiteError("The image of Flag.png cannot be read."), "Flag.png"), (KeyError("x"), "KeyError")]
)
def test_an_error_in_a_stream_is_told_in_it(error: Exception, why: str, desk: Desk, rag: Rag, caplog) -> None:
    class Broken(Scripted):
        def ask_stream(self, question: str, library=None):
            yield from list(super().ask_stream(question, library))[:2]
            raise error

    with serving(Desk(done(Broken(rag)), desk.library, "x")) as address:
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="x", max_retries=0)
        with pytest.raises(openai.APIError, match=why):
            list(asked(client, question("ad"), stream=True))
        with pytest.raises(openai.InternalServerError, match=why):
            asked(client, question("ad"))
    assert ("KeyError" in caplog.text) == (why == "KeyError")


def test_a_stopped_server_ends_its_streams_with_a_sentence(desk: Desk, rag: Rag) -> None:
    slow = Scripted(rag, seconds=0.05)
    busy = Desk(done(slow), desk.library, "slow")
    with serving(busy) as address:
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="x", max_retries=0)
        stream = iter(asked(client, question("ad"), stream=True))
        next(stream)
        busy.line.stopped = True
        with pytest.raises(openai.APIError, match="being stopped"):
            list(stream)
    assert slow.closed.is_set()
