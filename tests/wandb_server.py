"""A server on this machine that answers wandb as far as runs need it: opens a run, takes its
history, and tells what it has of a run that is opened again."""

import contextlib
import gzip
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

OWNER = "me"


class LocalWandb(ThreadingHTTPServer):
    """`history` has the rows of each run by its id; `opened` what each opening of a run said;
    `received` all that was sent, as text."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.history: dict[str, list[str]] = {}
        self.opened: list[dict[str, Any]] = []
        self.received: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *arguments: Any) -> None:
        """A client that ends without a word is no error here."""

    def rows(self, run: str) -> dict[int, dict[str, float]]:
        """The rows of a run by step, without wandb's own entries."""
        every = [json.loads(line) for line in self.history[run]]
        return {
            row["_step"]: {key: value for key, value in row.items() if not key.startswith("_")}
            for row in every
        }

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """The answer to a GraphQL request."""
        query, variables = asked["query"], asked["variables"]
        if "upsertBucket" in query:
            self.opened.append(variables)
            return {"upsertBucket": {"bucket": self._bucket(variables), "inserted": True}}
        if "RunResumeStatus" in query:
            run = variables["name"]
            bucket = self._resumed(run) if run in self.history else None
            owner = {"id": "RQ==", "name": OWNER}
            return {"model": {"id": "UA==", "name": "saes", "entity": owner, "bucket": bucket}}
        if "createRunFiles" in query:
            files = [
                {"name": name, "uploadUrl": f"{self.url}/upload/{name}"}
                for name in variables["files"]
            ]
            return {"createRunFiles": {"runID": "UQ==", "uploadHeaders": [], "files": files}}
        return {}

    def _bucket(self, variables: dict[str, Any]) -> dict[str, Any]:
        run = variables["name"]
        self.history.setdefault(run, [])
        project = {
            "id": "UA==",
            "name": variables["project"],
            "entity": {"id": "RQ==", "name": OWNER},
        }
        return {
            "id": "QQ==",
            "name": run,
            "displayName": variables["displayName"],
            "project": project,
            "historyLineCount": len(self.history[run]),
        }

    def _resumed(self, run: str) -> dict[str, Any]:
        lines = self.history[run]
        return {
            "id": "QQ==",
            "name": run,
            "summaryMetrics": lines[-1] if lines else "{}",
            "displayName": run,
            "logLineCount": 0,
            "historyLineCount": len(lines),
            "eventsLineCount": 0,
            "historyTail": json.dumps(lines[-1:]),
            "eventsTail": "[]",
            "config": "{}",
            "tags": [],
            "notes": "",
            "wandbConfig": '{"t": {}}',
        }


class _Answers(BaseHTTPRequestHandler):
    server: LocalWandb
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.headers.get("content-encoding") == "gzip":
            content = gzip.decompress(content)
        self.server.received.append(content.decode(errors="replace"))
        answer: dict[str, Any] = {}
        if self.path == "/graphql":
            answer = {"data": self.server.answer(json.loads(content))}
        elif self.path.endswith("/file_stream"):
            file = json.loads(content).get("files", {}).get("wandb-history.jsonl")
            if file is not None:
                lines = self.server.history[self.path.split("/")[-2]]
                lines[file["offset"] :] = file["content"]
        self._send(answer)

    do_PUT = do_GET = do_POST

    def _send(self, answer: dict[str, Any]) -> None:
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: Any) -> None:
        pass


@contextlib.contextmanager
def serving() -> Iterator[LocalWandb]:
    with LocalWandb() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
