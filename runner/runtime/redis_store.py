"""A store in Redis, or in Valkey, which speaks the same protocol. Times are those of the server."""

from __future__ import annotations

from collections.abc import Sequence

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from runner.runtime.store import Result, Step

TIMEOUT_S = 5.0
"""How long the server may take to accept a connection, and to answer."""

PREFIX = "runner:"

_SCRIPT = """
local results = {}
for i, key in ipairs(KEYS) do
  local kind, owner, value, milliseconds = unpack(ARGV, 4 * i - 3, 4 * i)
  local claim = key .. ':claim'
  local holder = redis.call('GET', claim)
  results[i] = 1
  if kind == 'finish' then
    redis.call('SET', key, value, 'PX', milliseconds)
    redis.call('DEL', claim)
  elseif kind == 'release' then
    if holder == owner then redis.call('DEL', claim) end
  else
    local done = kind == 'claim' and redis.call('GET', key)
    if done then results[i] = done
    elseif holder and holder ~= owner then results[i] = 0
    else redis.call('SET', claim, owner, 'PX', milliseconds) end
  end
end
return results
"""
"""Does all steps at once. A key that is done holds its value, and beside it is the key of the claim; both expire."""


class RedisDatabase:
    """A `Database` of a server."""

    def __init__(self, url: str) -> None:
        once = Retry(NoBackoff(), 1)  # the store has its own way of waiting
        self._redis = Redis.from_url(url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, retry=once)
        self._script = self._redis.register_script(_SCRIPT)

    async def apply(self, steps: Sequence[Step]) -> list[Result]:
        arguments: list[bytes | str | int] = []
        for step in steps:
            arguments += (step.kind, step.owner, step.value, max(1, round(step.seconds * 1000)))
        results = await self._script(keys=[PREFIX + step.key for step in steps], args=arguments)
        return [found if isinstance(found, bytes) else bool(found) for found in results]

    async def close(self) -> None:
        await self._redis.aclose()
