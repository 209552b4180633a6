"""Fakes the part of Dataflow's API that a submission uses, on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

JOB_ID = "2026-11-24_00_00_00-1"


class Service(ThreadingHTTPServer):
    """Accepts jobs and tells their state.

    Attributes:
        jobs: what was submitted, as JSON.
        states: what is told of the job, each once and the last one from then on.
        messages: what the job has said, with its importance.
        refusal: status and message with which a job is refused, if it is.
    """

    daemon_threads = True

    def __init__(self) -> None:
        # Port 0: the system chooses a free one.
        super().__init__(("127.0.0.1", 0), _Handler)
        self.jobs: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.states = ["JOB_STATE_DONE"]
        self.messages: list[tuple[str, str]] = []
        self.refusal: tuple[int, str] | None = None

    @property
    def endpoint(self) -> str:
        """Returns the address, with the host name for which Beam speaks plain HTTP."""
        return f"http://localhost:{self.server_address[1]}"


@contextmanager
def dataflow_service() -> Iterator[Service]:
    with Service() as service:
        thread = threading.Thread(target=service.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield service
        finally:
            service.shutdown()


class _Handler(BaseHTTPRequestHandler):
    disable_nagle_algorithm = True
    server: Service

    def do_POST(self) -> None:
        job = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.refusal is not None:
            status, message = self.server.refusal
            self._answer({"error": {"code": status, "message": message}}, status)
            return
        self.server.jobs.append(job)
        self.server.paths.append(urlsplit(self.path).path)
        self._answer({**job, "id": JOB_ID, "currentState": "JOB_STATE_PENDING"})

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path.endswith("/messages"):
            self._answer(
                {
                    "jobMessages": [
                        {
                            "id": str(number),
                            "time": f"2026-11-24T00:00:{number:02}Z",
                            "messageText": text,
                            "messageImportance": importance,
                        }
                        for number, (importance, text) in enumerate(self.server.messages)
                    ]
                }
            )
        elif path.endswith("/metrics"):
            self._answer({})
        else:
            states = self.server.states
            state = states.pop(0) if len(states) > 1 else states[0]
            self._answer({**self.server.jobs[-1], "id": JOB_ID, "currentState": state})

    def _answer(self, body: dict[str, Any], status: int = 200) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass
