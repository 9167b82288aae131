"""Clients, a pipeline and a script; the error where there is no server."""

import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry

client = redis.Redis(host="127.0.0.1", port=1, retry=Retry(NoBackoff(), 0), decode_responses=True)
failed = None
try:
    with client.pipeline() as pipe:
        pipe.set("a", 1, ex=60).get("a").execute()
except redis.ConnectionError as error:
    failed = error
assert failed is not None
assert len(client.register_script("return 1").sha) == 40
assert redis.Redis.from_url("rediss://h:6380/1").connection_pool.connection_kwargs["db"] == 1
assert redis.asyncio.Redis(host="h").connection_pool.connection_kwargs["host"] == "h"
