"""A shared cache in a bucket. Needs credentials, and asks AWS for nothing before it is first used.

Conditional writes: "How to prevent object overwrites with conditional writes" in the S3 user guide. An object appears
when all of it has arrived, so that nobody ever sees a part of one.
"""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING, Any, TypeVar

from layerbuild.errors import LayerbuildError, UsageError
from layerbuild.process import Interrupted, interrupted, stop_if_interrupted
from layerbuild.publish.aws import Account
from layerbuild.publish.aws_errors import answered, told, translated

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from layerbuild.shared_cache import Location

Answer = TypeVar("Answer")

# A cache that does not answer keeps no one waiting for long: what it has can be made here.
_TIMEOUT = 20
_CONNECT_TIMEOUT = 4
_CHUNK = 1 << 18
_ATTEMPTS = 2
# Somebody else's is there, or on its way.
_TAKEN = (409, 412)
_MISSING = 404
# What reading an answer raises that is none, beside botocore's own errors.
_UNREADABLE = (LookupError, TypeError, ValueError, AttributeError, RuntimeError)


class S3Store:
    """A shared cache in a bucket, below a prefix.

    Args:
        location: bucket and prefix.
        account: whose credentials it takes; else those of the environment.
    """

    def __init__(self, location: Location, account: Account | None = None) -> None:
        self._location = location
        self._account = account or Account(timeout=_TIMEOUT, connect_timeout=_CONNECT_TIMEOUT)

    def fetch(self, key: str, path: Path) -> bool:
        """See `layerbuild.shared_cache.Store`."""
        return self._ask("GetObject", lambda client: self._fetch(client, key, path))

    def keep(self, key: str, path: Path, *, replace: bool) -> bool:
        """See `layerbuild.shared_cache.Store`."""
        return self._ask("PutObject", lambda client: self._keep(client, key, path, replace=replace))

    def _named(self, key: str) -> dict[str, str]:
        prefix = self._location.prefix
        return {"Bucket": self._location.bucket, "Key": f"{prefix}/{key}" if prefix else key}

    def _fetch(self, client: Any, key: str, path: Path) -> bool:
        from botocore.exceptions import ClientError, FlexibleChecksumError, HTTPClientError, IncompleteReadError

        broken_off = 0
        while True:
            try:
                answer = client.get_object(**self._named(key))
            except ClientError as error:
                if told(error)[2] == _MISSING and told(error)[0] != "NoSuchBucket":
                    return False
                raise
            try:
                with contextlib.closing(answer["Body"]) as body, path.open("wb") as file:
                    for chunk in body.iter_chunks(_CHUNK):
                        stop_if_interrupted()
                        file.write(chunk)
                return True
            except FlexibleChecksumError:
                # All of it is here, and wrong: that is for the one to find who knows what it should be.
                return True
            # boto itself asks again only for what has not begun to arrive.
            except (HTTPClientError, IncompleteReadError):
                broken_off += 1
                if broken_off == _ATTEMPTS:
                    raise

    def _keep(self, client: Any, key: str, path: Path, *, replace: bool) -> bool:
        from botocore.exceptions import ClientError

        condition = {} if replace else {"IfNoneMatch": "*"}
        try:
            with _Sent(path) as body:
                client.put_object(**self._named(key), Body=body, **condition)
        except ClientError as error:
            if told(error)[2] in _TAKEN:
                return False
            raise
        except _Stop:
            raise Interrupted from None
        return True

    def _ask(self, operation: str, work: Callable[[Any], Answer]) -> Answer:
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.parsers import ResponseParserError

        try:
            # Where the bucket is, S3 says by itself, and boto follows.
            return work(self._account.client("s3", self._account.home))
        except (ClientError, BotoCoreError, ResponseParserError, *_UNREADABLE) as error:
            raise self._failure(error, operation) from None

    def _failure(self, error: Exception, operation: str) -> LayerbuildError:
        location = self._location
        found = translated(error, operation, str(location), self._account.secrets())
        if answered(error) and told(error)[0] == "NoSuchBucket":
            return UsageError("bucket-unusable", f"there is no bucket {location.bucket}", hint="make it first")
        if found.code == "aws-denied" and operation == "GetObject":
            # Without the right to list, what is not there is denied, too.
            found.what = f"AWS does not allow s3:GetObject in {location}, or s3:ListBucket on its bucket"
        if found.code == "aws-denied":
            found.hint = "docs/caching.md has the policy"
        return found


class _Stop(BaseException):
    """Ends an upload. Anything less, boto takes for a connection that broke off, and sends it all again."""


class _Sent(io.FileIO):
    """A file on its way out, which ends when the user interrupts the program."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "rb")

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes."""
        if interrupted.is_set():
            raise _Stop
        return super().read(-1 if size is None else size) or b""
