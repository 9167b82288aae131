"""AWS as one set of credentials sees it. The only code that imports boto3.

Each call keeps to the pace that Lambda allows, is sent again where that can do no harm, and fails with an error
of ours.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from typing import TYPE_CHECKING, Any

from layerbuild.errors import LayerbuildError, UsageError
from layerbuild.process import stop_if_interrupted
from layerbuild.publish.aws_errors import (
    answered,
    is_server_error,
    is_throttled,
    not_aws,
    told,
    translated,
    was_not_sent,
)
from layerbuild.publish.pace import Pace, pause, wait_before

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-[0-9]")
DEFAULT_TIMEOUT = 60
_CONNECT_TIMEOUT = 10
_QUICK_TIMEOUT = 15
_QUESTIONS = ("List", "Get", "Head", "Describe")
# A request whose answer was lost may be under way still: how long to look for what it makes, in seconds.
_LATE = (1, 2, 4, 8)
_ATTEMPTS = 6
# A region that does not answer keeps no one waiting for long.
_SILENT_ATTEMPTS = 3
_PART = 16 * 1024**2
_FIRST_REGION = "us-east-1"
# Where large files go, boto itself tries again; it knows of their parts.
_RETRIED = {"s3": 4}
# What the next call would meet again, as it would silence.
_LASTING = ("no-credentials", "credentials-expired", "credentials-unknown")
# What reading an answer raises that is none, here or in botocore.
_UNREADABLE = (LookupError, TypeError, ValueError, AttributeError)
_MISSING = 404
# What is missing, is there already, or was changed meanwhile: an answer to a question, not a failure.
_TELLING = (_MISSING, 409, 412)


class Account:
    """AWS as one set of credentials sees it.

    Args:
        profile: of the AWS configuration, instead of what that and the environment say.
        endpoint_url: of a server that stands in for AWS.
        timeout: seconds to wait for an answer.
        connect_timeout: seconds to wait for a connection.
    """

    def __init__(
        self,
        profile: str | None = None,
        endpoint_url: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        connect_timeout: float = _CONNECT_TIMEOUT,
    ) -> None:
        self._profile = profile
        self._endpoint_url = endpoint_url
        self.timeout = timeout
        self._connect_timeout = connect_timeout
        self._lock = threading.Lock()
        self._clients: dict[tuple[str, str, bool], Any] = {}
        self._regions: dict[str, Region] = {}
        self._session: Any = None
        self._identity: tuple[str, str] | None = None

    @property
    def identity(self) -> tuple[str, str]:
        """The partition and the account whose credentials these are.

        Raises:
            MachineError: there are none, or AWS does not take them.
        """
        if self._identity is None:
            home = self.region(self.home)
            answer = home.ask("sts", "GetCallerIdentity", {})
            with home.reading("GetCallerIdentity"):
                self._identity = str(answer["Arn"]).split(":")[1], str(answer["Account"])
        return self._identity

    @property
    def home(self) -> str:
        """The region of the AWS configuration, or the first that AWS had."""
        return self.configured_region or _FIRST_REGION

    @property
    def configured_region(self) -> str | None:
        """The region of the AWS configuration, or of ``AWS_REGION``, which boto3 does not read."""
        found = self._boto().region_name or os.environ.get("AWS_REGION")
        return str(found) if found else None

    def enabled_regions(self) -> list[str]:
        """All regions that the account may use and that have Lambda."""
        partition, _ = self.identity
        known = self._boto().get_available_regions("lambda", partition_name=partition)
        home = self.region(self.home)
        answer = home.ask("ec2", "DescribeRegions", {})
        with home.reading("DescribeRegions"):
            return sorted({row["RegionName"] for row in answer["Regions"]} & set(known))

    def region(self, name: str) -> Region:
        """A region by its name.

        Raises:
            UsageError: that is no region's name.
        """
        if not _REGION.fullmatch(name):
            raise UsageError("unknown-region", f"{name!r} is not a region", hint="such as eu-west-1")
        with self._lock:
            return self._regions.setdefault(name, Region(self, name))

    def secrets(self) -> list[str]:
        """What must not be told anywhere."""
        from botocore.exceptions import BotoCoreError

        try:
            with self._lock:
                credentials = self._session.get_credentials() if self._session else None
            found = [credentials.access_key, credentials.secret_key, credentials.token] if credentials else []
        except (BotoCoreError, RuntimeError):  # they cannot be had, hence not be told
            return []
        return [secret for secret in found if secret]

    def client(self, service: str, region: str, *, quick: bool = False) -> Any:
        """boto's client; made once, as that takes long, and by one thread at a time, as it has to be.

        A `quick` one waits less for an answer, as questions are answered at once or not at all.
        """
        from botocore.config import Config

        session = self._boto()
        with self._lock:
            if (service, region, quick) not in self._clients:
                # Here, requests are sent again by `Region.call`, which knows what can be sent twice.
                config = Config(
                    connect_timeout=min(self._connect_timeout, self.timeout),
                    read_timeout=min(_QUICK_TIMEOUT, self.timeout) if quick else self.timeout,
                    retries={"total_max_attempts": _RETRIED.get(service, 1), "mode": "standard"},
                    max_pool_connections=16,
                )
                self._clients[service, region, quick] = session.client(
                    service, region_name=region, endpoint_url=self._endpoint_url, config=config
                )
            return self._clients[service, region, quick]

    def upload(
        self, region: str, path: Path, bucket: str, key: str, extra: Mapping[str, str], sent: Callable[[int], object]
    ) -> None:
        """Sends a file to S3, in parts where it is large; `extra` and `sent` are as boto has them."""
        from boto3.s3.transfer import TransferConfig

        config = TransferConfig(multipart_threshold=_PART, multipart_chunksize=_PART, max_concurrency=4)
        with path.open("rb") as file:
            self.client("s3", region).upload_fileobj(file, bucket, key, ExtraArgs=extra, Callback=sent, Config=config)

    def _boto(self) -> Any:
        import boto3
        from botocore.exceptions import BotoCoreError

        with self._lock:
            if self._session is None:
                try:
                    self._session = boto3.Session(profile_name=self._profile)
                except BotoCoreError as error:
                    raise translated(error, "GetCallerIdentity", "", ()) from None
            return self._session


class Region:
    """One region of an `Account`. Made by `Account.region`."""

    def __init__(self, account: Account, name: str) -> None:
        self.account = account
        self.name = name
        self._pace = Pace()
        # Services that do not answer here, or do not take the credentials.
        self._lost: dict[str, LayerbuildError] = {}

    def call(
        self, service: str, operation: str, parameters: Mapping[str, Any], done: Callable[[], Any] | None = None
    ) -> Any:
        """Asks AWS for something, again where it is worth it.

        Args:
            service: boto's name, such as ``lambda``.
            operation: boto's name of the call, such as ``PublishLayerVersion``.
            parameters: as boto has them.
            done: asked after a failure that may have come too late: returns the answer if the request has been
                carried out, or None. Without it, the request can be sent twice without harm.

        Raises:
            LayerbuildError: AWS refuses it, or does not answer. Where it does not, later calls fail at once.
            botocore.exceptions.ClientError: what is missing (404), is there already (409) or was changed (412).
        """
        from botocore import xform_name
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.parsers import ResponseParserError

        if service in self._lost:
            raise self._lost[service]
        attempt = 0
        while True:
            try:
                client = self.account.client(service, self.name, quick=operation.startswith(_QUESTIONS))
                method = getattr(client, xform_name(operation))
                self._pace.wait()
                return method(**parameters)
            except (ClientError, BotoCoreError, ResponseParserError, RuntimeError, *_UNREADABLE) as error:
                if isinstance(error, ClientError) and told(error)[2] in _TELLING:
                    raise
                attempt += 1
                again, sure, seconds = self._verdict(error, attempt)
                # boto has tried that several times itself.
                again = again and service not in _RETRIED
                if done and not sure:
                    if answer := _looked_for(done, (seconds,) if answered(error) else _LATE):
                        return answer
                    stop_if_interrupted()
                elif again:
                    pause(seconds)
                if not again:
                    failure = self.failure(error, operation)
                    if failure.code in _LASTING or not answered(error):
                        self._lost[service] = failure
                    raise failure from None

    def _verdict(self, error: Exception, attempt: int) -> tuple[bool, bool, float]:
        """Whether to try again, whether it is sure that nothing was done, and how many seconds to wait."""
        if not answered(error):
            return _is_silence(error) and attempt < _SILENT_ATTEMPTS, was_not_sent(error), wait_before(attempt)
        answer: Any = getattr(error, "response", {})
        headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        seconds = wait_before(attempt, headers.get("retry-after"))
        throttled = is_throttled(error)
        if throttled:
            self._pace.refused(seconds)
        failing = is_server_error(error)
        return (throttled or failing) and attempt < _ATTEMPTS, throttled or not failing, seconds

    @contextlib.contextmanager
    def reading(self, operation: str) -> Iterator[None]:
        """A part of an answer that is not there, or is something else, is an error of ours."""
        try:
            yield
        except _UNREADABLE:
            raise not_aws(operation, self.name) from None

    def failure(self, error: Exception, operation: str) -> LayerbuildError:
        """What botocore raised, as an error of ours."""
        return translated(error, operation, self.name, self.account.secrets())

    def get(self, operation: str, **parameters: Any) -> Any:
        """Asks Lambda; raises LookupError for what is not there."""
        from botocore.exceptions import ClientError

        try:
            return self.call("lambda", operation, parameters)
        except ClientError as error:
            if told(error)[2] == _MISSING:
                raise LookupError(told(error)[1]) from None
            raise self.failure(error, operation) from None

    def ask(
        self, service: str, operation: str, parameters: Mapping[str, Any], done: Callable[[], Any] | None = None
    ) -> Any:
        """As `call`, where nothing is expected to be missing or there already: that is an error of ours, too."""
        from botocore.exceptions import ClientError

        try:
            return self.call(service, operation, parameters, done)
        except ClientError as error:
            raise self.failure(error, operation) from None


def _looked_for(done: Callable[[], Any], waits: Sequence[float]) -> Any:
    """What a request has made after all, looked for again and again, whether the user interrupts or not."""
    for seconds in waits:
        time.sleep(seconds)
        if answer := done():
            return answer
    return None


def _is_silence(error: Exception) -> bool:
    """Whether there was no answer, or only a part of one."""
    from botocore import exceptions

    silence = (exceptions.ConnectionError, exceptions.HTTPClientError, exceptions.IncompleteReadError)
    return isinstance(error, silence)
