"""AWS Lambda's registry of layer versions in one region: what is there, publishing, sharing, deleting."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from layerbuild.errors import MachineError
from layerbuild.publish.aws_errors import told
from layerbuild.publish.plan import Known, Listed
from layerbuild.publish.sharing import grants_of_policy, permission

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from layerbuild.publish.aws import Region
    from layerbuild.publish.release import Release

_LISTED = 50
# Large zips in requests, of all regions together: each is in memory some four times while it is sent.
_LARGE = 8_000_000
_UPLOADS = threading.BoundedSemaphore(8)


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What Lambda says of a version that was just published; `found`, if it was looked for as no answer came."""

    listed: Listed
    code_sha256: str
    size: int
    found: bool = False


class Registry:
    """The layer versions of one region."""

    def __init__(self, region: Region) -> None:
        self.region = region

    def versions(self, name: str) -> Iterator[tuple[list[Listed], bool]]:
        """A layer's versions, the newest first, a page at a time, each with whether it is the last.

        There are none where there is no such layer.
        """
        marker: dict[str, str] = {}
        while True:
            answer = self.region.ask(
                "lambda", "ListLayerVersions", {"LayerName": name, "MaxItems": _LISTED, **marker}
            )
            with self.region.reading("ListLayerVersions"):
                page = [
                    Listed(
                        version=int(row["Version"]),
                        arn=str(row["LayerVersionArn"]),
                        description=str(row.get("Description", "")),
                        published=str(row.get("CreatedDate", "")),
                    )
                    for row in answer["LayerVersions"]
                ]
            last = not answer.get("NextMarker")
            yield page, last
            if last:
                return
            marker = {"Marker": answer["NextMarker"]}

    def known(self, name: str, version: int) -> Known | None:
        """The hash and the policy of a version; None if it is gone."""
        try:
            answer = self.region.get("GetLayerVersion", LayerName=name, VersionNumber=version)
        except LookupError:
            return None
        grants = self.grants(name, version)
        with self.region.reading("GetLayerVersion"):
            content = answer["Content"]
            return Known(code_sha256=str(content["CodeSha256"]), size=int(content["CodeSize"]), grants=grants)

    def publish(self, release: Release, source: Mapping[str, Any], find: Callable[[], Listed | None]) -> Answer:
        """Makes a new version of a layer. Lambda gives no means to do so once only, so care is taken.

        Args:
            release: what it is.
            source: of the zip, as PublishLayerVersion's ``Content`` has it; empty for a zip in the request.
            find: looks for a version that this very request made, though its answer was lost.
        """

        def done() -> dict[str, Any] | None:
            found = find()
            return {"found": found} if found else None

        parameters = {
            "LayerName": release.name,
            "Description": release.description,
            "CompatibleRuntimes": list(release.content.runtimes),
            "CompatibleArchitectures": list(release.content.architectures),
            **({"LicenseInfo": release.content.licence} if release.content.licence else {}),
        }
        with _UPLOADS if release.size > _LARGE and not source else contextlib.nullcontext():
            content = source or {"ZipFile": release.archive.read_bytes()}
            answer = self.region.ask("lambda", "PublishLayerVersion", {**parameters, "Content": content}, done)
        if "found" in answer:
            listed: Listed = answer["found"]
            known = self.known(release.name, listed.version)
            if known is None:
                what = f"version {listed.version} of {release.name} in {self.region.name} is gone again"
                raise MachineError("aws-refused", what)
            return Answer(listed=listed, code_sha256=known.code_sha256, size=known.size, found=True)
        with self.region.reading("PublishLayerVersion"):
            return Answer(
                listed=Listed(
                    version=int(answer["Version"]),
                    arn=str(answer["LayerVersionArn"]),
                    description=release.description,
                    published=str(answer.get("CreatedDate", "")),
                ),
                code_sha256=str(answer["Content"]["CodeSha256"]),
                size=int(answer["Content"]["CodeSize"]),
            )

    def grants(self, name: str, version: int) -> dict[str, str]:
        """Who may use a version: the id of each statement of its policy, and its grant."""
        try:
            answer = self.region.get("GetLayerVersionPolicy", LayerName=name, VersionNumber=version)
        except LookupError:
            return {}
        with self.region.reading("GetLayerVersionPolicy"):
            return grants_of_policy(str(answer["Policy"]))

    def share(self, name: str, version: int, grant: str) -> None:
        """Lets someone use a version; it is no error where that is so already."""
        from botocore.exceptions import ClientError

        given: dict[str, Any] = {**permission(grant), "LayerName": name, "VersionNumber": version}
        try:
            self.region.call("lambda", "AddLayerVersionPermission", given)
        except ClientError as error:
            if told(error)[2] != 409 or self.grants(name, version).get(given["StatementId"]) != grant:
                raise self.region.failure(error, "AddLayerVersionPermission") from None

    def unshare(self, name: str, version: int, statement: str) -> None:
        """Takes a statement out of a version's policy; it is no error where there is none."""
        parameters = {"LayerName": name, "VersionNumber": version, "StatementId": statement}
        try:
            self.region.get("RemoveLayerVersionPermission", **parameters)
        except LookupError:
            return

    def delete(self, name: str, version: int) -> None:
        """Deletes a version; functions that use it go on working. It is no error where there is none."""
        self.region.ask("lambda", "DeleteLayerVersion", {"LayerName": name, "VersionNumber": version})

    def layers_in_use(self) -> dict[str, list[str]]:
        """The ARN of each layer version that a function uses in any of its versions, and those functions."""
        found: dict[str, list[str]] = {}
        marker: dict[str, str] = {}
        while True:
            answer = self.region.ask("lambda", "ListFunctions", {"FunctionVersion": "ALL", **marker})
            with self.region.reading("ListFunctions"):
                for function in answer["Functions"]:
                    for layer in function.get("Layers") or ():
                        found.setdefault(str(layer["Arn"]), []).append(str(function["FunctionName"]))
            if not answer.get("NextMarker"):
                return found
            marker = {"Marker": answer["NextMarker"]}
