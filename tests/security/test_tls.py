"""S14: a broker that cannot prove who it is gets neither the password nor a byte of AMQP."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.node import Node, free_port
from tests.process import RunnerProcess
from tests.project import Project, started, stop
from tests.security.conftest import PLAIN

PIPELINE = """
    version: 1
    broker: {{url: "{url}", connect_timeout: 200ms{tls}}}
    queues: {{UNIQUE.work: {{}}}}
    subscribers:
      handle: {{from: UNIQUE.work, handler: work:handle}}
"""
HANDLERS = "def handle(order: str) -> None: note(order)"


SIGNING = """
[ca]
default_ca = signing
[signing]
database = {name}.issued
new_certs_dir = .
default_md = sha256
rand_serial = yes
policy = policy
[policy]
commonName = supplied
"""


EXTENSIONS = """
subjectAltName = {alt}
extendedKeyUsage = serverAuth,clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


@dataclass(frozen=True)
class Certificates:
    """Key pairs in a folder, made with openssl, good for some minutes."""

    folder: Path

    def authority(self, name: str) -> None:
        """Make an authority: `name`.pem and `name`.key. Python wants its key usage from 3.13 on (RFC 5280, 4.2.1.3)."""
        usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
        self._openssl("req", "-x509", *self._new(name), *usage, "-days", "1", "-out", f"{name}.pem")

    def made(self, name: str, authority: str, alt: str, *, is_over: bool = False) -> None:
        """Make a certificate of an authority: `name`.pem and `name`.key. With `openssl ca`, which takes any dates."""
        (self.folder / f"{name}.ext").write_text(EXTENSIONS.format(alt=alt))
        (self.folder / f"{name}.cnf").write_text(SIGNING.format(name=name))
        (self.folder / f"{name}.issued").touch()
        self._openssl("req", *self._new(name), "-out", f"{name}.csr")
        dates = ("-startdate", "20200101000000Z", "-enddate", "20200102000000Z") if is_over else ("-days", "1")
        self._openssl(
            *("ca", "-batch", "-notext", "-config", f"{name}.cnf", "-in", f"{name}.csr", *dates),
            *("-cert", f"{authority}.pem", "-keyfile", f"{authority}.key"),
            *("-extfile", f"{name}.ext", "-out", f"{name}.pem"),
        )

    def __getitem__(self, name: str) -> Path:
        return self.folder / name

    def _new(self, name: str) -> tuple[str, ...]:
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{name}.key")
        return (*key, "-subj", f"/CN={name}")

    def _openssl(self, *arguments: str) -> None:
        done = subprocess.run(["openssl", *arguments], cwd=self.folder, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Two authorities, and of the first a certificate that is good, one for another host and one that is over."""
    if shutil.which("openssl") is None:
        reason = "openssl is not installed: nothing to make certificates with"
        if os.environ.get("CI"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    made = Certificates(tmp_path_factory.mktemp("certificates"))
    for authority in ("ca", "stranger"):
        made.authority(authority)
    made.made("good", "ca", "IP:127.0.0.1,DNS:localhost")
    made.made("elsewhere", "ca", "DNS:broker.example,IP:127.0.0.2")
    made.made("over", "ca", "IP:127.0.0.1,DNS:localhost", is_over=True)
    made.made("client", "ca", "DNS:client")
    made.made("other-client", "stranger", "DNS:client")
    return made


@dataclass
class Front:
    """Speaks TLS before a broker, or instead of one, and keeps what it understood."""

    port: int
    heard: bytearray = field(default_factory=bytearray)
    accepted: int = 0


@contextlib.asynccontextmanager
async def front(certificates: Certificates, name: str) -> AsyncIterator[Front]:
    """Listen with a certificate; without a name, in plain text."""
    context = None
    if name:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificates[f"{name}.pem"], certificates[f"{name}.key"])
    made = Front(free_port())

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made.accepted += 1
        with contextlib.suppress(OSError):
            made.heard += await reader.read(1 << 16)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", made.port, ssl=context)
    # asyncio tells of each handshake that a client breaks off
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    try:
        yield made
    finally:
        server.close()
        await server.wait_closed()


@pytest.fixture(scope="module")
def tls_node(certificates: Certificates, installed: None) -> Iterator[tuple[Node, int]]:
    """A node with a TLS listener that wants to see a certificate of its clients."""
    port = free_port()
    config = "\n".join(
        [
            f"listeners.ssl.1 = 127.0.0.1:{port}",
            f"ssl_options.cacertfile = {certificates['ca.pem']}",
            f"ssl_options.certfile = {certificates['good.pem']}",
            f"ssl_options.keyfile = {certificates['good.key']}",
            "ssl_options.verify = verify_peer",
            "ssl_options.fail_if_no_peer_cert = true",
            "ssl_options.versions.1 = tlsv1.2",
        ]
    )
    with Node(config=config) as node:
        yield node, port


def prepare(project: Project, url: str, **tls: Path | str) -> None:
    written = ", ".join(f"{name}: '{path}'" for name, path in tls.items())
    project.write(PIPELINE.format(url=url, tls=f", tls: {{{written}}}" if tls else ""), HANDLERS)


def errors(runner: RunnerProcess) -> list[str]:
    return [line for line in runner.stderr.splitlines() if line.startswith("error")]


async def refused(project: Project, *arguments: str, code: int = 69) -> str:
    """Run the pipeline, check that it ends with one clear line, and return that."""
    runner = await project.run_to_end("up", project.file, *arguments, code=code)
    (line,) = errors(runner)
    assert PLAIN not in runner.stdout + runner.stderr
    return line


def url(port: int, host: str = "127.0.0.1", scheme: str = "amqps") -> str:
    return f"{scheme}://user:{PLAIN}@{host}:{port}/"


async def test_a_verified_connection_works_and_needs_our_certificate_where_the_broker_asks_for_it(
    memory_project: Project, certificates: Certificates, tls_node: tuple[Node, int]
) -> None:
    """Both sides prove who they are, by address and by name; without ours, or with a strange one: refused."""
    _, port = tls_node
    ours = {"cert": certificates["client.pem"], "key": certificates["client.key"]}
    for host in ("127.0.0.1", "localhost"):
        prepare(memory_project, f"amqps://guest:guest@{host}:{port}/", ca=certificates["ca.pem"], **ours)
        async with memory_project.run("up", memory_project.file) as runner:
            await started(runner)
            await stop(runner)
    strange = {"cert": certificates["other-client.pem"], "key": certificates["other-client.key"]}
    for given in ({}, strange):
        prepare(memory_project, f"amqps://guest:guest@127.0.0.1:{port}/", ca=certificates["ca.pem"], **given)
        assert "cannot reach the broker" in await refused(memory_project)


UNPROVEN = {
    "wrong authority": ("good", "stranger.pem", "certificate verify failed"),
    "unknown authority": ("good", "", "certificate verify failed"),  # of the system's authorities: none of ours
    "wrong host": ("elsewhere", "ca.pem", "not valid for '127.0.0.1'"),
    "expired": ("over", "ca.pem", "certificate has expired"),
}


async def told_by(project: Project, certificates: Certificates, kind: str) -> str:
    """Run against a broker that cannot prove who it is; return the one line, and check that nothing was sent."""
    name, ca, _ = UNPROVEN[kind]
    async with front(certificates, name) as listening:
        prepare(project, url(listening.port), **({"ca": certificates[ca]} if ca else {}))
        line = await refused(project)
    assert f"amqps://user:***@127.0.0.1:{listening.port}/" in line
    assert listening.accepted == 0  # no handshake has come to its end
    assert not listening.heard
    return line


@pytest.mark.parametrize("kind", ["wrong host", "expired"])
async def test_a_broker_that_cannot_prove_who_it_is_is_told_with_the_reason(
    memory_project: Project, certificates: Certificates, kind: str
) -> None:
    """Which certificate, and what is wrong with it: an operator has to know that from one line."""
    line = await told_by(memory_project, certificates, kind)
    assert UNPROVEN[kind][2] in line


async def test_a_broker_that_cannot_prove_who_it_is_hears_nothing(
    memory_project: Project, certificates: Certificates
) -> None:
    """Exit 69 with one line; no byte of AMQP, let alone the password, is sent."""
    for kind in UNPROVEN:
        assert "cannot reach the broker" in await told_by(memory_project, certificates, kind)


async def test_plain_text_is_never_tried_instead(memory_project: Project, certificates: Certificates) -> None:
    """A broker that speaks no TLS hears the beginning of a handshake, and no AMQP."""
    async with front(certificates, "") as listening:
        prepare(memory_project, url(listening.port), ca=certificates["ca.pem"])
        await refused(memory_project)
    assert listening.accepted
    assert listening.heard[:2] == b"\x16\x03"  # a handshake of TLS
    assert b"AMQP" not in listening.heard
    assert PLAIN.encode() not in listening.heard


async def test_tls_settings_do_not_disappear_without_a_word(
    memory_project: Project, certificates: Certificates
) -> None:
    """With `amqp://` in the same file: invalid."""
    async with front(certificates, "") as listening:
        prepare(memory_project, url(listening.port, scheme="amqp"), ca=certificates["ca.pem"])
        line = await refused(memory_project, code=78)
        assert "tls" in line
        assert not listening.accepted


async def test_a_plain_broker_on_the_command_line_is_told_beside_tls_in_the_file(
    memory_project: Project, certificates: Certificates
) -> None:
    """`--broker amqp://` wins over the file, as it should; that its TLS goes with it must not be silent."""
    async with front(certificates, "") as listening:
        prepare(memory_project, "${BROKER}", ca=certificates["ca.pem"])  # so that no excerpt has the word tls in it
        arguments = ("--broker", url(listening.port, scheme="amqp"))
        env = {"BROKER": url(listening.port)}
        async with memory_project.run("up", memory_project.file, *arguments, env=env) as runner:
            await runner.wait()
    assert "tls" in runner.stderr.lower()


async def test_verification_cannot_be_switched_off(memory_project: Project, certificates: Certificates) -> None:
    """Neither by the URL, nor by a key, nor by the environment of Python's libraries."""
    async with front(certificates, "good") as listening:
        prepare(memory_project, f"{url(listening.port)}?no_verify_ssl=1", ca=certificates["ca.pem"])
        await refused(memory_project, code=78)
        prepare(memory_project, url(listening.port), ca=certificates["ca.pem"], verify="false")
        await refused(memory_project, code=78)
        prepare(memory_project, url(listening.port))
        env = {"PYTHONHTTPSVERIFY": "0", "AIORMQ_NO_VERIFY": "1"}
        await memory_project.run_to_end("up", memory_project.file, env=env, code=69)
        assert not listening.heard


async def test_files_that_are_no_certificates_are_named(memory_project: Project, certificates: Certificates) -> None:
    """A key that is none, one that belongs to another certificate, and one that is not there."""
    (certificates.folder / "none.pem").write_text("none")
    client, ca = certificates["client.pem"], certificates["ca.pem"]
    for tls, code in (
        ({"ca": certificates["none.pem"]}, 69),
        ({"ca": ca, "cert": client, "key": certificates["none.pem"]}, 69),
        ({"ca": ca, "cert": client, "key": certificates["good.key"]}, 69),
    ):
        prepare(memory_project, url(free_port()), **tls)
        assert "TLS" in await refused(memory_project, code=code)
