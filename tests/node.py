"""A private RabbitMQ node: free loopback ports, a temporary folder, its own epmd; nothing of it outlives the tests.

    with Node() as node:
        ...                  # node.url, node.ctl("list_queues"), node.close_connections_of("orders-")
        node.kill()          # as `kill -9`
        node.start()         # same folder, same ports: confirmed persistent messages are still there

Everything here blocks; inside a running loop use `await asyncio.to_thread(node.start)`.
Three nodes of one cluster share an `Epmd` and a `cookie` and have different names.

The environment variable `RABBITMQ` chooses the line: `4.3`, `4.0`, `3.10`; without it the node is the machine's own
RabbitMQ. `make .brokers/4.3` makes the Debian root that the node of that line runs in; the variable `BROKERS` names
another folder for these roots, so that several working copies can share them.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Self

START_S = 45.0
STOP_S = 15.0
CTL_S = 30.0

# Enters a Debian root ($1) that sees our /proc, /dev and temporary folder ($2). The mounts are in a mount namespace of
# the process alone, so they end with it, however it ends; each step is an `exec`, so the process keeps its id.
ENTER = """
set -e
mount --rbind /proc "$1/proc"
mount --rbind /dev "$1/dev"
mkdir -p "$1$2"
mount --bind "$2" "$1$2"
root=$1; shift 2
exec chroot "$root" "$@"
"""

# Outgoing connections take their own port from the system's ephemeral range: a listener of ours in that range could
# find its port taken after a restart, or a client that retries a closed port could even connect to itself.
FIRST_PORT, LAST_PORT = 10_240, 32_767

LOOPBACK_ONLY = "-kernel inet_dist_use_interface {127,0,0,1}"
LOW_CPU = "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none"

# Ends what we started if we are killed ourselves: reads "+pid" and "-pid" lines until our end of the pipe closes, then
# kills the processes that are left (those which really are ours: the folder is in their environment) and the folder.
SWEEPER = """
import os, shutil, signal, sys
folder, alive = sys.argv[1], set()
for line in sys.stdin:
    (alive.add if line[0] == "+" else alive.discard)(int(line[1:]))
for pid in alive:
    try:
        with open(f"/proc/{pid}/environ", "rb") as environ:
            if folder.encode() in environ.read():
                os.kill(pid, signal.SIGKILL)
    except OSError:
        pass
shutil.rmtree(folder, ignore_errors=True)
"""


class NodeError(RuntimeError):
    """The node did not do what it was told; the text ends with what it said."""


@dataclass(frozen=True, slots=True)
class Installation:
    """RabbitMQ's and Erlang's programs: the machine's own, or those of a Debian root."""

    root: str = ""

    @staticmethod
    def of(line: str) -> Installation:
        """Return the one of this line of RabbitMQ; the empty line is the machine's own."""
        if not line:
            return Installation()
        folder = os.environ.get("BROKERS") or Path(__file__).parents[1] / ".brokers"
        return Installation(str(Path(folder, line).absolute()))

    @property
    def is_complete(self) -> bool:
        """Whether everything is there that a node needs."""
        return self._scripts() is not None and self._epmd() is not None

    def script(self, name: str, folder: Path, *arguments: str) -> list[str]:
        """Return the command that runs one of RabbitMQ's scripts in this folder."""
        return self._command(folder, str(self._found(self._scripts()) / name), *arguments)

    def epmd(self, folder: Path, *arguments: str) -> list[str]:
        """Return the command that runs Erlang's port mapper in this folder."""
        return self._command(folder, str(self._found(self._epmd())), *arguments)

    @property
    def path(self) -> str:
        """The PATH of what runs in it."""
        return "/usr/sbin:/usr/bin:/sbin:/bin" if self.root else os.environ.get("PATH", "")

    def erl_call(self, folder: Path, *arguments: str) -> list[str] | None:
        """Return the command that runs Erlang's client of a node in this folder, None where it is not there."""
        found = shutil.which("erl_call", path=self.path) if not self.root else None
        found = found or next((str(path) for path in self._glob("usr/lib/erlang/erts-*/bin/erl_call")), None)
        return self._command(folder, found, *arguments) if found else None

    def _command(self, folder: Path, *program: str) -> list[str]:
        if not self.root:
            return list(program)
        as_user = [] if os.geteuid() == 0 else ["--map-root-user"]
        namespace = ["unshare", "--mount", *as_user, "--", "sh", "-c", ENTER, "sh", self.root, tempfile.gettempdir()]
        return [*namespace, "env", f"--chdir={folder}", *program]

    def _scripts(self) -> Path | None:
        """Return the folder of the server's own scripts. Debian's on the PATH `su` to another user."""
        candidates = [Path("/usr/lib/rabbitmq/bin"), *self._glob("usr/lib/rabbitmq/lib/*/sbin")]
        if not self.root and (on_path := shutil.which("rabbitmq-server")) is not None:
            candidates.append(Path(on_path).resolve().parent)
        return next((place for place in candidates if Path(f"{self.root}{place}/rabbitmq-server").is_file()), None)

    def _epmd(self) -> Path | None:
        on_path = None if self.root else shutil.which("epmd")
        return Path(on_path) if on_path else next(iter(self._glob("usr/lib/erlang/erts-*/bin/epmd")), None)

    def _glob(self, pattern: str) -> list[Path]:
        """Return what is there, the newest first, as the programs themselves see it."""
        top = Path(self.root or "/")
        return [Path("/", path.relative_to(top)) for path in sorted(top.glob(pattern), reverse=True)]

    def _found(self, path: Path | None) -> Path:
        if path is None:
            raise NodeError(f"RabbitMQ is not installed in {self.root or 'this machine'}")
        return path


def chosen() -> Installation:
    """Return the installation that the environment variable `RABBITMQ` asks for."""
    return Installation.of(os.environ.get("RABBITMQ", ""))


def is_installed() -> bool:
    """Whether the RabbitMQ that was asked for is there."""
    return chosen().is_complete


_forbidden: list[str] = []


@contextlib.contextmanager
def without_nodes(why: str) -> Iterator[None]:
    """Raise NodeError when a node is started in this block, or asked where it is."""
    _forbidden.append(why)
    try:
        yield
    finally:
        _forbidden.pop()


def _check_use() -> None:
    if _forbidden:
        raise NodeError(f"{_forbidden[-1]} needs no RabbitMQ by its fixtures: let it ask for the fixture `installed`")


def free_port() -> int:
    """Return a loopback port that nobody listens on, outside the range of outgoing connections where there is one."""
    for _ in range(1000):
        port = random.randint(FIRST_PORT, LAST_PORT)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise NodeError("no free port on 127.0.0.1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a node is: all one needs to talk to it, also from another process."""

    folder: str
    name: str
    port: int
    distribution_port: int
    epmd_port: int
    installation: Installation
    management_port: int = 0


class Broker:
    """A running node that may belong to somebody else: to be talked to, not to be stopped."""

    def __init__(self, place: Place) -> None:
        self.place = place

    @property
    def port(self) -> int:
        _check_use()
        return self.place.port

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    @property
    def management_url(self) -> str:
        """Where the management API is, if the node has one."""
        _check_use()
        assert self.place.management_port, "Node(management=True) has it"
        return f"http://127.0.0.1:{self.place.management_port}"

    @functools.cached_property
    def line(self) -> tuple[int, int]:
        """The line of RabbitMQ that the node runs, as in (4, 3)."""
        major, minor, *_ = re.findall(r"\d+", self.eval("{ok, Version} = application:get_key(rabbit, vsn), Version."))
        return int(major), int(minor)

    def ctl(self, *arguments: str) -> str:
        """Run `rabbitmqctl`, without headings, and return its output. Raises NodeError when it fails."""
        _check_use()
        command = self.place.installation.script(
            "rabbitmqctl", Path(self.place.folder), "--silent", "-n", self.place.name, *arguments
        )
        try:
            done = subprocess.run(
                command,
                env=_environment(self.place),
                capture_output=True,
                text=True,
                stdin=subprocess.DEVNULL,
                timeout=CTL_S,
            )
        except subprocess.TimeoutExpired:
            raise NodeError(f"rabbitmqctl {' '.join(arguments)}: no answer within {CTL_S:.0f} s") from None
        if done.returncode != 0:
            raise NodeError(f"rabbitmqctl {' '.join(arguments)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def eval(self, expression: str) -> str:
        """Run Erlang on the node, and return the value as text. Raises NodeError when it fails.

        It takes a hundredth of the time of `rabbitmqctl eval`, which starts an Erlang of its own.
        """
        _check_use()
        place = self.place
        command = place.installation.erl_call(Path(place.folder), "-R", "-sname", place.name, "-e")
        if command is None:
            return self.ctl("eval", expression).strip()
        done = subprocess.run(
            command,
            env=_environment(place),
            input=f"{expression.strip()}\n",
            capture_output=True,
            text=True,
            timeout=CTL_S,
        )
        answer = re.fullmatch(r"\{ok, (.*)\}", done.stdout, re.DOTALL)
        if answer is None:
            raise NodeError(f"erl_call {expression}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return answer[1]

    @contextlib.contextmanager
    def vhost(self, name: str) -> Iterator[str]:
        """Make a virtual host where `guest` may do everything, yield its URL, and delete it."""
        host, everything = f'<<"{name}">>', '<<".*">>'
        self.eval(
            f"""ok = rabbit_vhost:add({host}, <<"tests">>),
            rabbit_auth_backend_internal:set_permissions(
                <<"guest">>, {host}, {everything}, {everything}, {everything}, <<"tests">>)."""
        )
        yield f"{self.url}{name}"
        self.eval(f'rabbit_vhost:delete({host}, <<"tests">>).')

    def close_connections_of(self, prefix: str) -> int:
        """Close the connections whose client property `connection_name` starts so, and return how many those were."""
        pattern = "<<" + ",".join(str(byte) for byte in prefix.encode()) + ">>"
        expression = f"""
            Mine = fun(Properties) ->
                case is_list(Properties) andalso lists:keyfind(<<"connection_name">>, 1, Properties) of
                    {{_, _, Name}} -> string:prefix(Name, {pattern}) =/= nomatch;
                    false -> false
                end
            end,
            Found = rabbit_networking:connection_info_all([pid, client_properties]),
            length([rabbit_networking:close_connection(Pid, "closed by a test")
                    || [{{pid, Pid}}, {{client_properties, Properties}}] <- Found, Mine(Properties)])."""
        return int(self.eval(expression))

    def log(self) -> str:
        """Return what the node has written so far: its own log, then its console."""
        files = sorted(Path(self.place.folder, "log").glob("*.log"))
        return "".join(file.read_text(errors="replace") for file in files)


class Epmd:
    """Erlang's port mapper as a child of ours; without one, a node would start a daemon that outlives it."""

    def __init__(self, installation: Installation | None = None) -> None:
        self.port = free_port()
        self._folder = Folder("epmd")
        installation = installation or chosen()
        self._process = self._folder.run(
            installation.epmd(self._folder.path, "-port", str(self.port), "-address", "127.0.0.1"),
            {"PATH": installation.path, "HOME": str(self._folder.path)},
            "epmd.log",
        )
        _until(lambda: _accepts(self.port), 10.0, lambda: "epmd does not answer")

    def close(self) -> None:
        """End it. Idempotent."""
        self._folder.end(self._process)
        self._folder.close()


class Node(Broker):
    """A node of our own, to be started, stopped, killed and frozen. A context manager: `start` … `close`.

    `config` is added to its `rabbitmq.conf`; `name` is the part before `@localhost`. With `management` it has the
    management API too, at `management_url`; `plugins` are others. `installation` is the RabbitMQ that it runs, by
    default the chosen one.
    """

    is_installed = staticmethod(is_installed)

    def __init__(
        self,
        *,
        name: str = "",
        epmd: Epmd | None = None,
        cookie: str | None = None,
        config: str = "",
        management: bool = False,
        plugins: Sequence[str] = (),
        installation: Installation | None = None,
    ) -> None:
        installation = installation or chosen()
        self._folder = Folder("node")
        self._own_epmd = epmd is None
        self._epmd = epmd or Epmd(installation)
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None
        self._has_run = False
        folder = self._folder.path
        super().__init__(
            Place(
                folder=str(folder),
                name=f"{name or folder.name}@localhost",
                port=free_port(),
                distribution_port=free_port(),
                epmd_port=self._epmd.port,
                installation=installation,
                management_port=free_port() if management else 0,
            )
        )
        for part in ("home", "mnesia", "log"):
            (folder / part).mkdir()
        enabled = [*(["rabbitmq_management"] if management else []), *plugins]
        (folder / "enabled_plugins").write_text(f"[{','.join(enabled)}].\n")
        (folder / "home" / ".erlang.cookie").write_text(cookie or secrets.token_hex(16))
        (folder / "home" / ".erlang.cookie").chmod(0o400)

    def start(self) -> None:
        """Start it and return when AMQP is answered. After `stop` or `kill`: same folder, same ports, same messages."""
        for _ in range(5):
            self._launch()
            if self._answers_or_ends():
                self._has_run = True
                self.eval("rabbit:await_startup().")  # AMQP is answered a moment before the node takes commands
                return
            if self._has_run or "eaddrinuse" not in self.log():
                break
            management_port = free_port() if self.place.management_port else 0
            self.place = replace(
                self.place, port=free_port(), distribution_port=free_port(), management_port=management_port
            )
        self.kill()
        raise NodeError(f"RabbitMQ did not start\n{self.log()[-3000:]}")

    def stop(self) -> None:
        """Stop it in good order, and hard where that takes too long. Idempotent."""
        if self._process is None:
            return
        self._send(signal.SIGCONT)
        self._send(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_S)
        self.kill()

    def kill(self) -> None:
        """End it as `kill -9` does: nothing is flushed, nobody is told. Idempotent."""
        if self._process is not None:
            self._folder.end(self._process)
            self._process = None

    def wait_until_kept(self, *queues: str) -> None:
        """Return when these quorum queues outlive a `kill`.

        RabbitMQ writes down which Raft log belongs to which queue only about a second after the queue was made: killed
        before, it comes back with a queue that never finds its leader again, whatever was confirmed (measured, 3.10).
        """
        names = [path for path in (self._folder.path / "mnesia").glob("**/names.dets") if path.parts[-3] == "quorum"]
        if len(names) != 1:
            raise NodeError(f"the node keeps its quorum queues in other files than expected: {names}")
        wanted = [queue.encode() for queue in queues]
        _until(
            lambda: all(name in names[0].read_bytes() for name in wanted),
            START_S,
            lambda: f"not written down: {', '.join(queues)}",
        )

    def restart(self) -> None:
        """Stop it in good order and start it again."""
        self.stop()
        self.start()

    def move_to(self, installation: Installation) -> None:
        """Run another RabbitMQ from the next `start` on, with the same folder: an upgrade. The node must not run."""
        if self._process is not None:
            raise NodeError("the node runs: stop it before it gets another RabbitMQ")
        self.place = replace(self.place, installation=installation)
        vars(self).pop("line", None)

    def freeze(self) -> None:
        """Suspend it, and return when all its threads stand: connections stay up, nothing is answered."""
        self._send(signal.SIGSTOP)
        if self._process is not None:
            pid = self._process.pid
            _until(lambda: _stands(pid), STOP_S, lambda: f"process {pid} goes on after SIGSTOP")

    def thaw(self) -> None:
        """Let it go on after `freeze`."""
        self._send(signal.SIGCONT)

    def close(self) -> None:
        """End everything and remove the folder. Idempotent."""
        self.kill()
        if self._own_epmd:
            self._epmd.close()
        self._folder.close()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _launch(self) -> None:
        _check_use()
        if self._process is not None and self._process.poll() is None:
            raise NodeError("the node runs already")
        self.kill()
        lines = [
            f"listeners.tcp.1 = 127.0.0.1:{self.place.port}",
            "log.console = false",
            "log.file.level = info",
            self._config,
        ]
        if management_port := self.place.management_port:
            lines += ["management.tcp.ip = 127.0.0.1", f"management.tcp.port = {management_port}"]
        (self._folder.path / "rabbitmq.conf").write_text("\n".join([*lines, ""]))
        command = self.place.installation.script("rabbitmq-server", self._folder.path)
        self._process = self._folder.run(command, _environment(self.place), "console.log")

    def _answers_or_ends(self) -> bool:
        process = self._process
        assert process is not None
        _until(
            lambda: process.poll() is not None or self._answers(),
            START_S,
            lambda: f"RabbitMQ does not answer\n{self.log()[-3000:]}",
        )
        return process.poll() is None

    def _answers(self) -> bool:
        management_port = self.place.management_port
        return _answers_amqp(self.port) and (not management_port or _accepts(management_port))

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)


class Folder:
    """A temporary folder and the processes that live in it; both end with us, however we end."""

    def __init__(self, kind: str) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=f"mqrunner-{kind}-"))
        self._sweeper = subprocess.Popen(
            [sys.executable, "-S", "-c", SWEEPER, str(self.path)],
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, command: list[str], env: dict[str, str], log: str) -> subprocess.Popen[bytes]:
        """Start a process in a session of its own, so that Ctrl-C in the terminal does not reach it."""
        logs = self.path / "log"
        logs.mkdir(exist_ok=True)
        with (logs / log).open("ab") as out:
            process = subprocess.Popen(
                command,
                env=env,
                cwd=self.path,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._tell(f"+{process.pid}")
        return process

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """Kill a process that may have ended already."""
        if process.poll() is None:
            process.kill()
        process.wait()
        self._tell(f"-{process.pid}")

    def close(self) -> None:
        """Let the sweeper remove the folder. Idempotent."""
        if not self._pipe.closed:
            self._pipe.close()
        self._sweeper.wait()

    def _tell(self, line: str) -> None:
        if not self._pipe.closed:
            self._pipe.write(line + "\n")
            self._pipe.flush()

    @property
    def _pipe(self) -> IO[str]:
        assert self._sweeper.stdin is not None
        return self._sweeper.stdin


def _environment(place: Place) -> dict[str, str]:
    """Return the whole environment of the node and of `rabbitmqctl`: nothing of the caller's but the PATH."""
    folder = place.folder
    return {
        "PATH": place.installation.path,
        "LANG": "C.UTF-8",
        "HOME": f"{folder}/home",  # the cookie is there
        "RABBITMQ_CONF_ENV_FILE": f"{folder}/none",
        "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
        "RABBITMQ_ADVANCED_CONFIG_FILE": f"{folder}/none",
        "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/enabled_plugins",
        "RABBITMQ_MNESIA_BASE": f"{folder}/mnesia",
        "RABBITMQ_LOG_BASE": f"{folder}/log",
        "RABBITMQ_PID_FILE": f"{folder}/pid",
        "RABBITMQ_NODENAME": place.name,  # @localhost: no look-up of the machine's name
        "RABBITMQ_NODE_PORT": str(place.port),
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_DIST_PORT": str(place.distribution_port),
        "RABBITMQ_CTL_DIST_PORT_MIN": str(FIRST_PORT),
        "RABBITMQ_CTL_DIST_PORT_MAX": str(LAST_PORT),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"{LOW_CPU} {LOOPBACK_ONLY}",
        "RABBITMQ_CTL_ERL_ARGS": f"{LOW_CPU} {LOOPBACK_ONLY}",
        "ERL_EPMD_PORT": str(place.epmd_port),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RUNNING_UNDER_SYSTEMD": "true",  # the script execs the virtual machine: signals reach it
    }


def _stands(pid: int) -> bool:
    """Whether every thread of a process is stopped. Source: man 5 proc, /proc/[pid]/stat, the field behind the name."""
    with contextlib.suppress(FileNotFoundError):  # a thread that ends just now
        stats = [file.read_text() for file in Path(f"/proc/{pid}/task").glob("*/stat")]
        return all(stat.rpartition(")")[2].split()[0] in "TZX" for stat in stats)
    return False


def _accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _answers_amqp(port: int) -> bool:
    """Send the protocol header of AMQP 0-9-1; the answer is a method frame, `connection.start`."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2) as client:
        client.sendall(b"AMQP\x00\x00\x09\x01")
        return client.recv(1) == b"\x01"
    return False


def _until(condition: Callable[[], bool], timeout_s: float, complaint: Callable[[], str]) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise NodeError(complaint())
        time.sleep(0.05)
