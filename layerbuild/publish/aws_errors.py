"""What AWS's refusals mean, as errors of ours. Nothing of a credential or a presigned address is passed on.

Error codes: the API references of Lambda, S3, STS and SSM, and "Common errors" of AWS's services.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from layerbuild.errors import LayerbuildError, MachineError, UsageError
from layerbuild.process import redact
from layerbuild.publish.iam import action_of

if TYPE_CHECKING:
    from collections.abc import Iterable

_LONGEST_MESSAGE = 300
_SERVER_ERROR = 500
_TOO_MANY = 429

_THROTTLED = {
    "TooManyRequestsException", "ThrottlingException", "Throttling", "ThrottledException", "RequestThrottled",
    "RequestThrottledException", "RequestLimitExceeded", "BandwidthLimitExceeded", "SlowDown",
    "PriorRequestNotComplete", "EC2ThrottledException",
}  # fmt: skip
_EXPIRED = {"ExpiredTokenException", "ExpiredToken", "RequestExpired", "TokenRefreshRequired"}
_BAD_CREDENTIALS = {
    "UnrecognizedClientException", "InvalidClientTokenId", "InvalidAccessKeyId", "SignatureDoesNotMatch",
    "InvalidSignatureException", "AuthFailure", "IncompleteSignature", "InvalidToken", "OptInRequired",
}  # fmt: skip
_DENIED = {"AccessDeniedException", "AccessDenied", "UnauthorizedOperation", "403", "Forbidden"}
_NO_CREDENTIALS = {
    "NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound", "SSOError",
    "SSOTokenLoadError", "UnauthorizedSSOTokenError", "TokenRetrievalError", "PendingAuthorizationExpiredError",
    "InvalidConfigError", "ConfigParseError", "ConfigNotFound", "MetadataRetrievalError", "LoginRefreshRequired",
    "LoginTokenLoadError", "InfiniteLoopConfigError", "UnknownCredentialError", "RefreshWithMFAUnsupportedError",
}  # fmt: skip
# The request has not left: it can be sent again without a second thought.
_NOT_SENT = {
    "EndpointConnectionError",
    "ConnectTimeoutError",
    "ProxyConnectionError",
    "SSLError",
    "NewConnectionError",
}
# An error that shows the string to sign shows the session's token with it.
_SIGNED = re.compile(
    r"The Canonical String|The String-to-Sign|X-Amz-|Authorization|Credential=|Signature=", re.IGNORECASE
)


def told(error: Any) -> tuple[str, str, int]:
    """The code, the message and the HTTP status of a ClientError."""
    about = error.response.get("Error", {})
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return str(about.get("Code", "")), str(about.get("Message", "")), status


def answered(error: Exception) -> bool:
    """Whether AWS has answered, if only with an error; errors about silence may have an empty ``response``."""
    return bool(getattr(error, "response", None))


def is_throttled(error: Any) -> bool:
    """Whether AWS refused a request for its rate, and did nothing."""
    code, _, status = told(error)
    return code in _THROTTLED or status == _TOO_MANY


def is_server_error(error: Any) -> bool:
    """Whether AWS failed, so that it may or may not have done what was asked."""
    return told(error)[2] >= _SERVER_ERROR


def was_not_sent(error: Exception) -> bool:
    """Whether a request that found no answer had not even left."""
    return type(error).__name__ in _NOT_SENT


def translated(error: Exception, operation: str, where: str, secrets: Iterable[str]) -> LayerbuildError:
    """An exception of botocore as an error of ours.

    Args:
        error: a ClientError or another BotoCoreError.
        operation: boto's name of what was asked, such as ``PublishLayerVersion``.
        where: the region.
        secrets: what must not be told, wherever it stands.
    """
    from botocore.exceptions import BotoCoreError

    if answered(error):
        return _refused(error, operation, where, secrets)
    kind = type(error).__name__
    causes = [_safe(str(error), secrets)]
    if kind == "RuntimeError":  # of credentials that were renewed, and had expired already
        return _expired(causes)
    if not isinstance(error, BotoCoreError):  # botocore cannot read the answer
        return not_aws(operation, where)
    if kind in _NO_CREDENTIALS:
        hint = "set AWS_PROFILE or --profile, or log in as for the AWS command line"
        return MachineError(
            "no-credentials", "there are no AWS credentials that can be used", causes=causes, hint=hint
        )
    if kind in ("NoRegionError", "InvalidRegionError", "UnknownRegionError"):
        return UsageError("unknown-region", f"{where!r} is not a region", causes=causes, hint="such as eu-west-1")
    hint = "look at the network, at proxies, and at AWS_ENDPOINT_URL; the same command goes on where this one stopped"
    return MachineError("aws-unreachable", f"AWS does not answer in {where}", causes=causes, hint=hint)


def _refused(error: Any, operation: str, where: str, secrets: Iterable[str]) -> LayerbuildError:
    code, message, status = told(error)
    causes = [_safe(f"{code}: {message}", secrets)]
    action = action_of(operation)
    if code in _EXPIRED:
        return _expired(causes)
    if code in _BAD_CREDENTIALS:
        what = f"AWS does not know these credentials in {where}"
        hint = "is the region enabled for the account, and are the credentials of its partition?"
        return MachineError("credentials-unknown", what, causes=causes, hint=hint)
    if code in _DENIED:
        what = f"AWS does not allow {action} in {where}"
        hint = "`layerbuild iam-policy` prints what it takes"
        if operation == "GetLayerVersionByArn":
            hint = "reading it takes lambda:GetLayerVersion, from its owner and from your own policies"
        return MachineError("aws-denied", what, causes=causes, hint=hint)
    if is_throttled(error):
        hint = "something else uses up this account's requests: wait, and run the same command again"
        return MachineError("aws-throttled", f"AWS refuses more requests in {where}", causes=causes, hint=hint)
    if status >= _SERVER_ERROR:
        what = f"AWS answers {action} in {where} with an error of its own"
        return MachineError("aws-unreachable", what, causes=causes, hint="run the same command again")
    if code == "CodeStorageExceededException":
        what = f"there is no room for more layers in {where}"
        return MachineError("layer-storage-full", what, causes=causes, hint="`layerbuild prune`, or ask AWS for more")
    if code in ("NoSuchBucket", "404", "NoSuchKey") and action.startswith("s3:"):
        return UsageError(
            "bucket-unusable", f"there is no such bucket in {where}", causes=causes, hint="make it first"
        )
    if "S3 Error Code: PermanentRedirect" in message or code in ("PermanentRedirect", "301"):
        what = f"the bucket for {where} is in another region"
        return UsageError(
            "bucket-unusable", what, causes=causes, hint="a bucket per region: layers-{account}-{region}"
        )
    too_large = code == "RequestEntityTooLargeException"
    way = "send it through S3: --bucket 'layers-{account}-{region}'" if too_large else None
    return MachineError("aws-refused", f"AWS refuses {action} in {where}", causes=causes, hint=way)


def not_aws(operation: str, where: str) -> MachineError:
    """An answer is not what AWS answers."""
    hint = "something else may have answered: look at AWS_ENDPOINT_URL, --endpoint-url, and proxies"
    return MachineError("aws-unreadable", f"what answers {action_of(operation)} in {where} is not AWS", hint=hint)


def _expired(causes: list[str]) -> MachineError:
    hint = "log in again, and run the same command: it goes on where this one stopped"
    return MachineError("credentials-expired", "the AWS credentials have expired", causes=causes, hint=hint)


def _safe(text: str, secrets: Iterable[str]) -> str:
    """A message without what signs requests."""
    if match := _SIGNED.search(text):
        text = text[: match.start()]
    forms = {form for secret in secrets for form in (secret, quote(secret, safe=""), quote(secret))}
    for secret in sorted(forms, key=len, reverse=True):
        text = text.replace(secret, "****")
    return redact(text).strip()[:_LONGEST_MESSAGE]
