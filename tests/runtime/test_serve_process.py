"""``edgerec serve`` as a process: signals, swaps under load, and what the command refuses."""

# ruff: noqa: E402  what an extra brings is asked for first

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from click.testing import CliRunner

import pytest

for module in ("msgspec", "prometheus_client", "starlette", "uvicorn"):
    pytest.importorskip(module)

from edgerec.cli import group
from edgerec.errors import BundleError, MissingExtraError, UsageError
from edgerec.files import atomic_path, sha256
from edgerec.runtime import Recommender
from edgerec.runtime.layout import Tower
from edgerec.runtime.serve_commands import is_loopback, read_token
from edgerec.runtime.server import listen

ITEMS, SWAPS, ASKERS = 40, 6, 4
DIST = Path(__file__).parents[2] / "runtime" / "web" / "dist"
CHROMIUM = map(shutil.which, [os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome"])
BROWSER = shutil.which("node") and any(CHROMIUM) and (DIST / "demo.html").exists()
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")


@pytest.fixture
def bundles(make_tower: Callable[..., Tower], write: Callable[[Tower], Path]) -> list[Path]:
    """Two bundles of the same items that answer differently."""
    made = []
    for seed in range(2):
        path = write(make_tower(ITEMS, seed=seed))
        made.append(path.rename(path.with_name(f"{seed}.edgerec")))
    return made


@pytest.fixture
def served(bundles: list[Path], tmp_path: Path) -> Path:
    """A copy of the first bundle, to be served and replaced."""
    return Path(shutil.copy(bundles[0], tmp_path / "served.edgerec"))


@contextmanager
def server(path: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run the command until the block ends; yields the process and its port."""
    command = [sys.executable, "-m", "edgerec", "serve", str(path), "--port", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("http://127.0.0.1:"), process.communicate()
        yield process, int(line.rpartition(":")[2])
    finally:
        process.kill()
        process.communicate()


def stopped(process: subprocess.Popen[str], number: signal.Signals) -> str:
    """Stop a server; returns its log."""
    process.send_signal(number)
    log = process.communicate(timeout=60)[1]
    assert process.returncode == 0, log
    return log


def ask(port: int, path: str, body: dict[str, Any] | None = None) -> tuple[dict[str, Any], str | None]:
    """Return an answer and the bundle that it names; over a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    method, headers = ("GET", {}) if body is None else ("POST", {"Content-Type": "application/json"})
    connection.request(method, path, body and json.dumps(body), headers)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    assert response.status == 200, content
    return json.loads(content), response.headers.get("edgerec-bundle")


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait for something, a minute at most."""
    for _ in range(600):
        if holds():
            return
        time.sleep(0.1)
    raise AssertionError("waited for a minute")


def health(port: int) -> str:
    """Return which bundle a server says that it serves."""
    return ask(port, "/healthz")[0]["sha256"]


def metrics(port: int) -> str:
    """Return what a server tells of itself."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/metrics")
    found = connection.getresponse().read().decode()
    connection.close()
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_in_flight_is_answered_before_the_server_stops(served: Path, number: signal.Signals) -> None:
    with server(served) as (process, port), socket.create_connection(("127.0.0.1", port)) as client:
        body = b'{"history": ["i1", "i2"]}'
        head = (
            f"POST /v1/recommend HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        )
        client.sendall(head.encode() + b"\r\n\r\n" + body[:9])
        wait_until(lambda: "edgerec_requests_running 2.0" in metrics(port))
        process.send_signal(number)
        wait_until(lambda: not accepts(port))
        client.sendall(body[9:])
        client.settimeout(60)
        answer = b"".join(iter(lambda: client.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 200") and b'"items":[{"item":"i' in answer
        log = process.communicate(timeout=60)[1]
    assert process.returncode == 0 and "stopped" in log
    assert "i1" not in log and "recommend" not in log


def accepts(port: int) -> bool:
    """Tell whether a server takes new connections."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=60).close()
    except ConnectionError:
        return False
    return True


def test_swaps_under_load_drop_nothing_and_every_answer_is_its_bundles(bundles: list[Path], served: Path) -> None:
    histories = [[f"i{row + 1}", f"i{(7 * row) % ITEMS + 1}"] for row in range(ITEMS)]
    known = {
        sha256(path): [[one._asdict() for one in Recommender.load(path).recommend(history)] for history in histories]
        for path in bundles
    }
    answers: list[tuple[int, Any, str | None]] = []
    faults: list[Exception] = []
    done = threading.Event()

    def keep_asking(port: int, number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            while not done.is_set():
                number = (number + 1) % len(histories)
                body = json.dumps({"history": histories[number]})
                connection.request("POST", "/v1/recommend", body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                answers.append((number, json.loads(response.read())["items"], response.headers["edgerec-bundle"]))
        except Exception as error:
            faults.append(error)

    def seen(bundle: str, begun: int) -> bool:
        return bool(faults) or any(one[2] == bundle for one in answers[begun:])

    with server(served) as (process, port):
        askers = [threading.Thread(target=keep_asking, args=(port, 10 * number)) for number in range(ASKERS)]
        for one in askers:
            one.start()
        try:
            for swap in range(1, SWAPS + 1):
                following = bundles[swap % 2]
                with atomic_path(served) as temporary:
                    shutil.copy(following, temporary)
                wait_until(partial(seen, sha256(following), len(answers)))
        finally:
            done.set()
            for one in askers:
                one.join()
        log = stopped(process, signal.SIGTERM)
    assert not faults
    assert {bundle for *_, bundle in answers} == set(known)
    assert all(found == known[str(bundle)][number] for number, found, bundle in answers)
    assert log.count("swapped to") == SWAPS


def test_a_bad_file_is_refused_and_sighup_reads_the_file_anew(bundles: list[Path], served: Path) -> None:
    with server(served) as (process, port):
        first = health(port)
        with atomic_path(served) as temporary:
            temporary.write_bytes(bundles[1].read_bytes()[:-50])
        wait_until(lambda: 'edgerec_swaps_total{taken="false"} 1.0' in metrics(port))
        assert health(port) == first and ask(port, "/v1/similar", {"item": "i1"})[1] == first
        with atomic_path(served) as temporary:
            shutil.copy(bundles[0], temporary)
        wait_until(lambda: 'edgerec_swaps_total{taken="true"} 1.0' in metrics(port))
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: 'edgerec_swaps_total{taken="true"} 2.0' in metrics(port))
        log = stopped(process, signal.SIGTERM)
    assert "refused a new file, the old bundle goes on" in log


def test_small_answers_do_not_wait_for_nagle() -> None:
    with listen("127.0.0.1", 0) as sock:
        assert sock.proto == socket.IPPROTO_TCP  # what asyncio asks before it sets TCP_NODELAY


@pytest.mark.browser
@pytest.mark.skipif(not BROWSER, reason="node, Chromium or the built page is missing: run make web")
def test_the_page_opens_the_served_bundle(served: Path) -> None:
    with server(served) as (_, port):
        command = ["node", str(Path(__file__).with_name("serve_check.mjs")), f"http://127.0.0.1:{port}/"]
        done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [one.title for one in Recommender.load(served).recommend([], 12)]


def invoke(*arguments: object) -> Any:
    """Run the command in this process and raise what it raises."""
    return CliRunner().invoke(group, ["serve", *map(str, arguments)], catch_exceptions=False)


def test_what_cannot_be_served_is_refused(served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BundleError, match="missing.edgerec"):
        invoke(tmp_path / "missing.edgerec", "--port", 0)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"cannot listen on 127.0.0.1, port {port}"):
            invoke(served, "--port", port)
    with pytest.raises(UsageError, match=r"cannot listen on no\.such\.host\.invalid"):
        invoke(served, "--host", "no.such.host.invalid")
    (tmp_path / "token").write_text(" \n")
    with pytest.raises(UsageError, match="got a token of 0 characters in .*token; expected one word"):
        invoke(served, "--token-file", tmp_path / "token")
    monkeypatch.setenv("EDGEREC_TOKEN", "two words")
    with pytest.raises(UsageError, match="in EDGEREC_TOKEN"):
        invoke(served)


def test_a_tokens_file_counts_more_than_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("file\n")
    assert read_token(None) is None and read_token(tmp_path / "token") == "file"
    monkeypatch.setenv("EDGEREC_TOKEN", "environment")
    assert read_token(None) == "environment" and read_token(tmp_path / "token") == "file"


@pytest.mark.parametrize(
    ("host", "alone"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("tv", False)]
)
def test_who_else_can_reach_an_address(host: str, alone: bool) -> None:
    assert is_loopback(host) is alone


def test_a_missing_extra_is_named(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(MissingExtraError, match=r"edgerec\[serve\]"):
        invoke(served)


def test_a_token_of_the_environment_is_asked_for(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEREC_TOKEN", "s3cret")
    with server(served) as (process, port):
        assert health(port)
        with pytest.raises(AssertionError, match="expected the header Authorization: Bearer TOKEN"):
            ask(port, "/v1/items")
        assert "s3cret" not in stopped(process, signal.SIGTERM)
