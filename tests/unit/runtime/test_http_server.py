"""The HTTP server: the address that it names."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from runner.runtime.http_server import CannotListen, HttpServer


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
async def test_the_url_of_all_interfaces_works_on_this_machine(host: str) -> None:
    """With the name of this machine in place of a host that nothing connects to, and no brackets of IPv6 around it."""

    async def ready() -> Sequence[str]:
        return ()

    server = HttpServer((host, 0), ())
    try:
        await server.start(ready, None)
    except CannotListen:
        pytest.skip("this machine has no IPv6")
    name, _, port = server.url.removeprefix("http://").removesuffix("/").partition(":")
    await server.close()
    assert name == "localhost"
    assert port.isdecimal()
