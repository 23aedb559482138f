"""An OpenAI-compatible endpoint on this machine, for automated interpretability: it answers from
the examples in a question alone, the same each time."""

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


def explanation(question: str) -> str:
    """Of the word that is marked first."""
    return f"This neuron activates on{re.search(r'<<(.*?)>>', question)[1]}"


def predictions(question: str) -> str:
    """About half of the examples."""
    lines = re.findall(r"^(\d+)\. (.*)$", question, flags=re.MULTILINE)
    chosen = [n for n, text in lines if hashlib.sha256(text.encode()).digest()[0] % 2]
    return ", ".join(chosen) or "None"


class JudgeServer:
    """Serves while it is entered. `asked` are the questions that it got. With `slow_down`, each is
    first refused with status 429. With `refuse`, each is refused, and the reply repeats the key."""

    def __init__(self, *, slow_down: bool = False, refuse: bool = False) -> None:
        self.asked: list[dict[str, Any]] = []
        self.slow_down = slow_down
        self._refused: set[str] = set()
        judge = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, content = judge.reply(body)
                if refuse:
                    message = f"wrong key: {self.headers['Authorization']}"
                    status, content = 401, json.dumps({"error": {"message": message}}).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def reply(self, body: bytes) -> tuple[int, bytes]:
        if self.slow_down and body.decode() not in self._refused:
            self._refused.add(body.decode())
            return 429, b'{"error": {"message": "slow down"}}'
        question = json.loads(body)
        self.asked.append(question)
        system, user = (message["content"] for message in question["messages"])
        text = predictions(user) if "comma-separated" in system else explanation(user)
        choice = {"index": 0, "message": {"role": "assistant", "content": text}}
        answer = {"id": "0", "object": "chat.completion", "created": 0, "model": "stub"}
        return 200, json.dumps({**answer, "choices": [choice]}).encode()

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
