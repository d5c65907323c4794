"""The sandbox's own Redis answers as the product needs it."""

from collections.abc import Iterator

import pytest
import redis

from runtime.embedded_redis import EmbeddedRedis
from tests.support.redis import RedisServer


@pytest.fixture(params=["embedded", "real"])
def client(request: pytest.FixtureRequest) -> Iterator["redis.Redis"]:
    if request.param == "real":
        server: RedisServer = request.getfixturevalue("redis_server")
        with redis.Redis(server.host, server.port) as client:
            yield client
        return
    embedded = EmbeddedRedis()
    address = embedded.start()
    try:
        with redis.Redis(address.host, address.port) as client:
            yield client
    finally:
        embedded.stop()


def test_a_lock_is_taken_once_and_runs_out(client: "redis.Redis") -> None:
    assert client.set("token", "a", nx=True, px=60_000)
    assert not client.set("token", "b", nx=True, px=60_000)
    assert client.get("token") == b"a"
    assert 0 < client.pttl("token") <= 60_000


def test_a_script_and_a_subscription_work(client: "redis.Redis") -> None:
    assert client.eval("return redis.call('INCR', KEYS[1])", 1, "count") == 1
    with client.pubsub() as listening:
        listening.subscribe("wake")
        assert listening.get_message(timeout=5)["type"] == "subscribe"
        client.publish("wake", "now")
        message = listening.get_message(timeout=5)
        assert message is not None
        assert message["data"] == b"now"
