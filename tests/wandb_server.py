"""A W&B server on loopback, W&B's client as on a new machine, and runs read back with W&B's own tools."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from causal_lm_router.runs.tracking.wandb_run import helper_errors

KEY = "0123456789" * 4


class QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """W&B's client breaks connections off when it closes."""


class FakeServer:
    """A W&B server on loopback that opens runs and takes files; `hangs` stops its answers, `refuses` its runs."""

    def __init__(self) -> None:
        self.questions: list[tuple[str, Any]] = []
        self.hangs = self.refuses = False
        self._server = QuietServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def variables(self, name: str) -> list[Any]:
        return [variables for asked, variables in self.questions if asked == name]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, asked: dict[str, Any]) -> Any:
        found = re.search(r"(?:query|mutation)\s+(\w+)", asked["query"])
        name, variables = found[1] if found else "", asked.get("variables")
        self.questions.append((name, variables))
        if name == "UpsertBucket" and self.refuses:
            return {"errors": [{"message": "permission denied"}]}
        return {"data": self._data(name, variables)}

    def _data(self, name: str, variables: Any) -> Any:
        entity = {"id": "E", "name": "me"}
        if name == "UpsertBucket":
            project = {"id": "P", "name": "p", "entity": entity}
            bucket = {"id": "B", "name": variables["name"], "displayName": "n", "config": "{}", "project": project}
            return {"upsertBucket": {"bucket": bucket | {"historyLineCount": 0}, "inserted": True}}
        if name == "RunResumeStatus":
            return {"model": {"id": "P", "name": "p", "entity": entity, "bucket": None}}
        if name == "Viewer":
            return {"viewer": {"id": "V", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}}
        if name == "ArtifactType":
            return {"project": None}
        if name == "CreateArtifact":
            artifact = {"id": "A", "state": "COMMITTED", "artifactSequence": {"id": "S", "latestArtifact": None}}
            return {"createArtifact": {"artifact": artifact}}
        if name == "CreateRunFiles":
            files = [{"name": file, "uploadUrl": f"{self.url}/put"} for file in variables["files"]]
            return {"createRunFiles": {"runID": "B", "uploadHeaders": [], "files": files}}
        return {}

    def _handler(server) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                while server.hangs:
                    time.sleep(0.1)
                self._send(server.answer(json.loads(body)) if self.path == "/graphql" else {})

            def do_PUT(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self._send({})

            def _send(self, reply: Any) -> None:
                content = json.dumps(reply).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args: Any) -> None:
                pass

        return Handler


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """W&B's client as on a machine that never saw W&B: no key, no settings."""
    import wandb
    from wandb.sdk.lib import wbauth

    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    # Set here so that it is unset again after the test.
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    wandb.teardown()
    yield
    with suppress(*helper_errors()):
        wandb.teardown()
    wbauth.unauthenticate_session(update_settings=False)


@pytest.fixture
def server(client: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    """A W&B server and a key for it."""
    fake = FakeServer()
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", fake.url)
    yield fake
    fake.hangs = False
    fake.close()


def records(folder: Path) -> list[dict[str, Any]]:
    """Every record of the one run file in a folder, by W&B's own reader."""
    (file,) = folder.glob("*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    for _ in range(10):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = [json.loads(line) for line in done.stdout.splitlines()]
        # W&B's helper process writes the file to its end a moment after the run has closed.
        if of_kind(found, "exit"):
            return found
        time.sleep(0.2)
    raise AssertionError(f"{file} holds no end: {found}")


def of_kind(found: list[dict[str, Any]], kind: str) -> list[Any]:
    return [record[kind] for record in found if record["type"] == kind]


def offline_folders(run_dir: Path) -> list[Path]:
    return sorted((run_dir / "wandb").glob("offline-run-*"))
