"""Downloads published layers, of anyone who shares them."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from layerbuild.cache import whole_file
from layerbuild.errors import BuildError, LayerbuildError, MachineError, UsageError
from layerbuild.process import stop_if_interrupted
from layerbuild.publish.aws import Account

if TYPE_CHECKING:
    from pathlib import Path

    from layerbuild.cache import Cache

_ARN = re.compile(
    r"arn:(?P<partition>aws[a-z-]*):lambda:(?P<region>[a-z0-9-]+):(?P<account>[0-9]{12})"
    r":layer:(?P<name>[a-zA-Z0-9-_]{1,140}):(?P<version>[0-9]+)"
)
_CODE_SHA256 = re.compile(r"[A-Za-z0-9+/]{43}=")
_TIMEOUT = 30
_CHUNK = 1 << 18


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """A layer version that was downloaded: where its zip is, and what it says that it is for."""

    path: Path
    runtimes: tuple[str, ...]
    architectures: tuple[str, ...]
    description: str = ""


def parsed_arn(arn: str) -> re.Match[str]:
    """The parts of a layer version's ARN: partition, region, account, name and version.

    Raises:
        UsageError: it is not one.
    """
    match = _ARN.fullmatch(arn)
    if match is None:
        hint = "such as arn:aws:lambda:eu-west-1:123456789012:layer:pillow:7, with the version"
        raise UsageError("layer-not-found", f"{arn} is not the ARN of a layer version", hint=hint)
    return match


def download(arn: str, cache: Cache, account: Account | None = None) -> Published:
    """Fetches a layer version with the user's own AWS credentials; its bytes are kept under their hash.

    Raises:
        UsageError: `arn` is not that of a layer version, or there is none.
        MachineError: there are no credentials, they do not suffice, or AWS cannot be reached.
        BuildError: what arrives is not what AWS says of it.
    """
    region = (account or Account()).region(parsed_arn(arn)["region"])
    try:
        answer = region.get("GetLayerVersionByArn", Arn=arn)
    except LookupError:
        raise UsageError("layer-not-found", f"AWS has no layer version {arn}") from None
    except LayerbuildError as error:
        error.causes = (f"asked for {arn}", *error.causes)
        raise
    content = answer.get("Content", {})
    location, code_sha256 = content.get("Location"), content.get("CodeSha256", "")
    if not location or not _CODE_SHA256.fullmatch(code_sha256):
        what = f"AWS does not say where {arn} is, or what its hash is"
        raise MachineError("aws-refused", what, hint="something that is not AWS may have answered: AWS_ENDPOINT_URL")
    sha256 = base64.b64decode(code_sha256).hex()
    path = cache.layer_path(sha256)
    if not _holds(path, sha256):
        _fetch(arn, location, path, sha256)
    return Published(
        path=path,
        runtimes=tuple(answer.get("CompatibleRuntimes", ())),
        architectures=tuple(answer.get("CompatibleArchitectures", ())),
        description=str(answer.get("Description", "")),
    )


def _holds(path: Path, sha256: str) -> bool:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except FileNotFoundError:
        return False


def _fetch(arn: str, location: str, path: Path, sha256: str) -> None:
    """Downloads from a presigned address, which is good for ten minutes and never shown."""
    import requests

    digest = hashlib.sha256()
    try:
        with requests.get(location, stream=True, timeout=_TIMEOUT) as response, whole_file(path) as file:
            response.raise_for_status()
            for chunk in response.iter_content(_CHUNK):
                stop_if_interrupted()
                digest.update(chunk)
                file.write(chunk)
            if digest.hexdigest() != sha256:
                hint = "something between AWS and here changed it: try again"
                raise BuildError("hash-mismatch", f"what arrived is not {arn}", hint=hint)
    except requests.RequestException as error:
        # Its text holds the address, which is a credential for as long as it is good.
        causes = [type(error).__name__]
        raise MachineError("aws-unreachable", f"{arn} cannot be downloaded", causes=causes) from None
