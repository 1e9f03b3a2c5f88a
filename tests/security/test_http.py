"""S11: what listens on HTTP answers this machine only, whatever is sent to it, and tells nothing of itself."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from runner.release import version
from runner.runtime.http_connections import HEADER_TIMEOUT_S
from runner.runtime.http_server import BODY_TIMEOUT_S, DEFAULT_ADDRESS
from tests.node import free_port
from tests.process import ROOT, RunnerProcess
from tests.project import Project, lines

PIPELINE = """
    version: 1
    queues: {UNIQUE.work: {}}
    producers: {orders: {http: /orders, to: UNIQUE.work}}
    subscribers: {hear: {from: UNIQUE.work, handler: work:hear}}
"""
HANDLERS = "def hear(order) -> None: note(order)"
SLOW_CLIENTS = 100

END = "\r\n{"
GET = "GET /healthz HTTP/1.1\r\nConnection: close\r\n"
POST = "POST /orders HTTP/1.1\r\nContent-Length: 2\r\nConnection: close\r\n"


@contextlib.asynccontextmanager
async def serving(project: Project, handlers: str = HANDLERS) -> AsyncIterator[tuple[RunnerProcess, int]]:
    """Run a pipeline that listens; check at the end that it still runs."""
    port = free_port()
    project.write(PIPELINE, handlers)
    async with project.running("--http", f"127.0.0.1:{port}") as runner:
        yield runner, port


async def ask(port: int, request: bytes | str) -> tuple[int, str]:
    """Send bytes and return the status, 0 if there is none, and all that was answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request.encode("latin-1") if isinstance(request, str) else request)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        async with asyncio.timeout(10):
            answer = (await reader.read()).decode("latin-1")
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    return int(answer.split(" ", 2)[1]) if answer.startswith("HTTP/1.") else 0, answer


def test_the_loopback_interface_is_the_default() -> None:
    """What faces others has to be asked for by name."""
    assert DEFAULT_ADDRESS[0] == "127.0.0.1"


async def test_nobody_is_listened_to_unless_asked_for(memory_project: Project) -> None:
    """A pipeline without HTTP opens no port at all."""
    memory_project.write(PIPELINE.replace("producers: {orders: {http: /orders, to: UNIQUE.work}}", ""), HANDLERS)
    async with memory_project.running() as runner:
        inodes = {
            line.split()[9]
            for table in ("tcp", "tcp6")
            for line in Path(f"/proc/{runner.pid}/net/{table}").read_text().splitlines()[1:]
            if line.split()[3] == "0A"  # listens
        }
        assert not inodes & sockets_of(runner.pid)


async def test_web_pages_elsewhere_can_send_nothing(memory_project: Project) -> None:
    """Names that resolve to this machine, pages from elsewhere, and what only looks like this machine: 403."""
    strange = [
        "Host: evil.example\r\n",
        "Host: 127.0.0.1.evil.example\r\n",
        "Host: localhost.evil.example\r\n",
        "Host: localhost@evil.example\r\n",
        "Host: 169.254.169.254\r\n",
        "Host: 0.0.0.0\r\n",
        *(
            f"Host: localhost\r\nOrigin: {origin}\r\n"
            for origin in (
                "https://evil.example",
                "http://localhost.evil.example",
                "http://localhost@evil.example",
                "http://127.0.0.1.nip.example:80",
            )
        ),
    ]
    async with serving(memory_project) as (runner, port):
        for headers in strange:
            for request in (f"{POST}{headers}\r\n{{}}", f"{GET}{headers}\r\n"):
                status, answer = await ask(port, request)
                assert status == 403, (headers, answer)
        status, _ = await ask(port, f"{POST}Host: localhost:{port}\r\nOrigin: http://[::1]:3000\r\n\r\n{{}}")
        assert status == 202
    assert len(lines(runner, "message.published")) == 1


async def test_pages_without_an_origin_of_their_own_can_send_nothing(memory_project: Project) -> None:
    """A sandboxed frame of any web page has the origin `null`, and may POST text/plain without being asked before."""
    async with serving(memory_project) as (_, port):
        for origin in ("null", "file://", "data:,x"):
            status, _ = await ask(port, f"{POST}Host: localhost\r\nOrigin: {origin}\r\n\r\n{{}}")
            assert status == 403


async def test_a_host_that_is_no_host_is_refused_as_any_other(memory_project: Project) -> None:
    """No failure of ours, and no traceback in the log for everybody who knocks."""
    async with serving(memory_project) as (_, port):
        for headers in ("Host: [::1\r\n", "Host: localhost\r\nOrigin: http://[evil\r\n", "Host: [x]\r\n"):
            status, _ = await ask(port, f"{POST}{headers}\r\n{{}}")
            assert status in (400, 403)


MALFORMED = {
    "no HTTP": b"\x00\xff\x16\x03\x01 nonsense\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x11" * 200 + b"\r\n\r\n",
    "a long line": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a long header": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"a" * 100_000 + b"\r\n\r\n",
    "a header that never ends": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"a" * 1_000_000,
    "many headers": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"X-%d: 1\r\n" * 100_000 + b"\r\n",
    "two lengths": b"POST /orders HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "length and chunks": b"POST /orders HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "a negative length": b"POST /orders HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    "a bad chunk": b"POST /orders HTTP/1.1\r\nHost: localhost\r\n"
    b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "a header in a header": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-A: a\rX-B: b\r\nX\x00: 1\r\n\r\n",
    "another method": b"TRACE /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "a way out": b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "an encoded way out": b"GET /%2e%2e%2f%2e%2e%2fetc/passwd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "a path that is no text": b"GET /%ff%00 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "a proxy's request": b"GET http://evil.example/healthz HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
}


async def test_whatever_is_sent_is_refused_without_a_story(memory_project: Project) -> None:
    """4xx or a closed connection: no traceback, no file of ours in the answer; the next request is answered."""
    bomb = gzip.compress(b"0" * 50_000_000)
    head = f"{POST.replace('Length: 2', f'Length: {len(bomb)}')}Host: localhost\r\nContent-Encoding: gzip\r\n\r\n"
    async with serving(memory_project) as (runner, port):
        for kind, request in {**MALFORMED, "a bomb": head.encode() + bomb}.items():
            status, answer = 0, ""
            with contextlib.suppress(ConnectionError):
                status, answer = await ask(port, request)
            assert status == 0 or 400 <= status < 500, (kind, answer)
            assert not any(word in answer for word in ("Traceback", 'File "', ".py", "root:")), (kind, answer)
            assert (await ask(port, f"{GET}Host: localhost\r\n\r\n"))[0] == 200
    assert lines(runner, "message.published") == []


async def test_a_body_that_is_not_compressed_as_it_says_is_refused(memory_project: Project) -> None:
    """No failure of ours, and no traceback in the log for everybody who knocks."""
    async with serving(memory_project) as (_, port):
        for encoding in ("gzip", "deflate", "gzip, gzip"):
            status, _ = await ask(port, f"{POST}Host: localhost\r\nContent-Encoding: {encoding}\r\n\r\n{{}}")
            assert 400 <= status < 500


async def test_who_sends_nonsense_does_not_fill_the_log(memory_project: Project) -> None:
    """What a stranger sends is no failure of ours: one short line, or none."""
    async with serving(memory_project) as (runner, port):
        assert (await ask(port, MALFORMED["no HTTP"]))[0] == 400
    assert "Traceback" not in runner.stdout


async def test_slow_clients_do_not_stop_others(memory_project: Project) -> None:
    """Hundreds that begin a request and never end it, in the header or in the body; nor do they keep it from ending."""
    with contextlib.ExitStack() as slow:
        async with serving(memory_project) as (_, port):
            for number in range(SLOW_CLIENTS):
                client = slow.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
                client.sendall(f"{POST}Host: localhost\r\n{'' if number % 2 else END}".encode())
            loop = asyncio.get_running_loop()
            began = loop.time()
            for _ in range(5):
                assert (await ask(port, f"{POST}Host: localhost\r\n\r\n{{}}"))[0] == 202
            assert loop.time() - began < 5


async def test_probes_tell_nothing_of_the_configuration(memory_project: Project) -> None:
    """Whether it lives, in which version, and what hinders it: no settings, no paths, no addresses."""
    alive = f'{{"status": "alive", "version": "{version()}"}}'
    async with serving(memory_project) as (_, port):
        for path, body in (("/healthz", alive), ("/readyz", '{"ready": true, "trouble": []}')):
            status, answer = await ask(port, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert (status, answer.partition("\r\n\r\n")[2]) == (200, body)
            for method in ("POST", "PUT", "DELETE"):
                request = (
                    f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                )
                assert (await ask(port, request))[0] == 405


def sockets_of(pid: int) -> set[str]:
    """Return the inodes of a process's sockets."""
    found = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/{pid}/fd/{name}")
            if target.startswith("socket:["):
                found.add(target[8:-1])
    return found


LIMITED = 256
"""Descriptors of the process below: a quarter of them may be connections."""


@contextlib.contextmanager
def limited(project: Project, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a runner that may open few files; stop it at the end."""
    command = f"exec {sys.executable} -P -m runner up {project.file} --http 127.0.0.1:{port}"
    with (project.folder / "out").open("wb") as out, (project.folder / "err").open("wb") as err:
        process = subprocess.Popen(
            ["sh", "-c", f"ulimit -n {LIMITED}; {command}"],
            cwd=project.folder,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LEDGER": str(project.ledger.path)},
            stdout=out,
            stderr=err,
        )
        with process:
            try:
                yield process
            finally:
                process.terminate()
                process.wait(20)


async def test_connections_never_take_the_descriptors_of_the_work(memory_project: Project) -> None:
    """Nothing, half a header, half a body, idle after an answer: probes and handlers go on, and it stays quiet."""
    port = free_port()
    memory_project.pipeline(
        """
        version: 1
        queues: {UNIQUE.work: {}}
        producers:
          tick: {handler: work:tick, every: 100ms, to: UNIQUE.work}
          web: {http: /orders, to: UNIQUE.work}
        subscribers: {handle: {from: UNIQUE.work, handler: work:handle, retry: none}}
        """
    )
    memory_project.handlers("def tick(): return 1\ndef handle(order) -> None: note(order)")
    idle = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    begun = ["", GET, f"{POST}Host: localhost\r\n\r\n", idle]
    with limited(memory_project, port) as process, contextlib.ExitStack() as held:
        await memory_project.ledger.wait_for(1)
        before = len(os.listdir(f"/proc/{process.pid}/fd"))
        for number in range(400):
            client = held.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            with contextlib.suppress(OSError):  # an older one may be closed by now, for lack of room
                client.sendall(begun[number % 4].encode())
        for _ in range(10):
            assert (await ask(port, f"{GET}Host: localhost\r\n\r\n"))[0] == 200
        assert len(os.listdir(f"/proc/{process.pid}/fd")) <= before + LIMITED // 4 + 4
        await memory_project.ledger.wait_for(len(memory_project.ledger.entries()) + 5)
    said = (memory_project.folder / "err").read_text()
    assert "message.dead_lettered" not in (memory_project.folder / "out").read_text()
    assert "stopped: " in said
    assert len(said) < 2000


QUICKER = f"""
from runner.runtime import http_connections, http_server
http_connections.HEADER_TIMEOUT_S /= 10
http_server.BODY_TIMEOUT_S /= 10
{HANDLERS}
"""


async def test_a_header_and_a_body_have_deadlines(memory_project: Project) -> None:
    """What is begun and not ended is closed, the header after 10 s, the body after 30: here after a tenth of that."""
    assert (HEADER_TIMEOUT_S, BODY_TIMEOUT_S) == (10, 30)
    begun = {"header": f"{GET}Host: localhost\r\nX-Slow: ", "body": f"{POST}Host: localhost\r\n\r\n", "nothing": ""}
    async with serving(memory_project, QUICKER) as (_, port):
        took = {}

        async def hold(kind: str) -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            began = asyncio.get_running_loop().time()
            writer.write(begun[kind].encode())
            answer = await reader.read()
            took[kind] = asyncio.get_running_loop().time() - began
            assert answer.startswith(b"HTTP/1.1 408") if kind == "body" else answer == b""
            writer.close()

        async with asyncio.timeout(30):
            await asyncio.gather(*map(hold, begun))
    assert 0.9 < took["header"] < 6
    assert 0.9 < took["nothing"] < 6
    assert 2.9 < took["body"] < 18, "and a moment for the client to read the answer"
