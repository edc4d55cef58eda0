"""As much of the hub's interface as `lite push` and `--adapters` use, on this machine; what was pushed is in memory."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_that_may_write"
SHA = "0" * 40


class Hub(BaseHTTPRequestHandler):
    repositories: dict[str, dict[str, bytes]]
    private: dict[str, bool]

    def do_GET(self) -> None:
        self.reply(body=True)

    def do_HEAD(self) -> None:
        self.reply(body=False)

    def reply(self, body: bool) -> None:
        kind, _, rest = self.path.split("?")[0].lstrip("/").partition("/")
        if kind == "api":
            name = "/".join(rest.split("/")[1:3])
            files = self.repositories.get(name)
            siblings = [{"rfilename": file, "size": len(data)} for file, data in (files or {}).items()]
            tree = [
                {"type": "file", "path": file, "size": len(data), "oid": SHA} for file, data in (files or {}).items()
            ]
            content = tree if "/tree/" in self.path else {"id": name, "sha": SHA, "siblings": siblings}
            self.send(None if files is None else json.dumps(content).encode(), "RepoNotFound")
        elif not kind:
            self.send(b"hub")
        else:
            owner, name, _, _, file = self.path.split("?")[0].lstrip("/").split("/", 4)
            self.send(self.repositories.get(f"{owner}/{name}", {}).get(file), "EntryNotFound", body)

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.send(b"{}", status=401)
        elif self.path == "/api/repos/create":
            asked = json.loads(data)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            self.repositories.setdefault(name, {})
            self.private[name] = asked.get("private") or asked.get("visibility") == "private"
            self.send(json.dumps({"url": f"{self.endpoint()}/{name}", "name": name}).encode())
        elif self.path == "/api/validate-yaml":
            self.send(b'{"errors": [], "warnings": []}')
        elif "/preupload/" in self.path:
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(data)["files"]
            ]
            self.send(json.dumps({"files": files}).encode())
        else:
            name = "/".join(self.path.split("/")[3:5])
            for line in map(json.loads, data.splitlines()):
                if line["key"] == "file":
                    self.repositories[name][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            reply = {"commitUrl": f"{self.endpoint()}/{name}/commit/{SHA}", "commitOid": SHA, "success": True}
            self.send(json.dumps(reply).encode())

    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def send(self, content: bytes | None, missing: str = "", body: bool = True, status: int = 200) -> None:
        self.send_response(404 if content is None else status)
        self.send_header("Content-Length", str(len(content or b"")))
        self.send_header("ETag", f'"{hashlib.sha256(content or b"").hexdigest()}"')
        self.send_header("X-Repo-Commit", SHA)
        if content is None:
            self.send_header("X-Error-Code", missing)
        self.end_headers()
        if body and content:
            self.wfile.write(content)

    def log_message(self, *_) -> None:
        pass


@contextmanager
def hub() -> Iterator[tuple[str, type[Hub]]]:
    """Its address, and what it holds."""
    handler = type("Handler", (Hub,), {"repositories": {}, "private": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    server.server_close()
