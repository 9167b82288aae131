"""What publishing takes besides Lambda: buckets for archives that are too large for a request, and parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from layerbuild.errors import LayerbuildError, UsageError
from layerbuild.publish.aws_errors import told

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from layerbuild.publish.aws import Region

_PARAMETERS = 10


class Bucket:
    """A bucket of one's own account, in the region of the layers."""

    def __init__(self, region: Region, name: str) -> None:
        self.region = region
        self.name = name
        # S3 refuses a bucket of that name that is another account's.
        self._own = {"Bucket": name, "ExpectedBucketOwner": region.account.identity[1]}

    def check(self) -> None:
        """Refuses a bucket that does not exist, is someone else's, or is in another region.

        Raises:
            UsageError: it is one of these.
            MachineError: AWS does not say.
        """
        from botocore.exceptions import ClientError

        try:
            answer = self.region.call("s3", "HeadBucket", self._own)
        except ClientError as error:
            raise self._failure(error, "HeadBucket") from None
        headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        actual = headers.get("x-amz-bucket-region") or self.region.name
        if actual != self.region.name:
            what = f"the bucket {self.name} is in {actual}; Lambda in {self.region.name} cannot read it"
            raise UsageError("bucket-unusable", what, hint="a bucket per region: layers-{account}-{region}")

    def send(self, path: Path, key: str, tags: Mapping[str, str], sent: Callable[[int], object]) -> dict[str, str]:
        """Uploads a file, in parts where it is large, each with its checksum.

        Args:
            path: the file.
            key: its name in the bucket.
            tags: of the object.
            sent: called with the number of bytes that went out.

        Returns:
            Where it is, as PublishLayerVersion's ``Content`` says it.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        owner = {"ExpectedBucketOwner": self._own["ExpectedBucketOwner"]}
        extra = {**owner, "ChecksumAlgorithm": "SHA256", **({"Tagging": urlencode(tags)} if tags else {})}
        try:
            self.region.account.upload(self.region.name, path, self.name, key, extra, sent)
            about = self.region.call("s3", "HeadObject", {"Key": key, **self._own})
        except ClientError as error:
            raise self._failure(error, "PutObject") from None
        except BotoCoreError as error:
            raise self.region.failure(error, "PutObject") from None
        version = about.get("VersionId")
        return {"S3Bucket": self.name, "S3Key": key, **({"S3ObjectVersion": version} if version else {})}

    def take_back(self, source: Mapping[str, str]) -> None:
        """Removes what `send` sent."""
        from botocore.exceptions import ClientError

        version = {"VersionId": source["S3ObjectVersion"]} if "S3ObjectVersion" in source else {}
        try:
            self.region.call("s3", "DeleteObject", {"Key": source["S3Key"], **version, **self._own})
        except ClientError as error:
            raise self._failure(error, "DeleteObject") from None

    def _failure(self, error: Any, operation: str) -> LayerbuildError:
        found = self.region.failure(error, operation)
        what = f"the bucket {self.name} cannot be used: {found.what}"
        if told(error)[2] == 403:
            what = f"the bucket {self.name} is another account's, or {operation} is not allowed in it"
        return UsageError("bucket-unusable", what, causes=found.causes, hint=found.hint)


class Parameters:
    """The SSM parameters of a region."""

    def __init__(self, region: Region) -> None:
        self.region = region

    def values(self, names: Sequence[str]) -> dict[str, str]:
        """The values of those that there are."""
        found: dict[str, str] = {}
        for start in range(0, len(names), _PARAMETERS):
            some = list(names[start : start + _PARAMETERS])
            answer = self.region.ask("ssm", "GetParameters", {"Names": some})
            found |= {row["Name"]: row["Value"] for row in answer["Parameters"]}
        return found

    def put(self, name: str, value: str, description: str, tags: Mapping[str, str], *, new: bool) -> None:
        """Writes one; `new` says that there is none yet, which is when it can be given tags at once."""
        given = {"Name": name, "Value": value, "Description": description, "Type": "String"}
        pairs = [{"Key": key, "Value": tag} for key, tag in tags.items()]
        if new:
            self.region.ask("ssm", "PutParameter", {**given, **({"Tags": pairs} if pairs else {})})
            return
        self.region.ask("ssm", "PutParameter", {**given, "Overwrite": True})
        if pairs:
            about = {"ResourceType": "Parameter", "ResourceId": name}
            self.region.ask("ssm", "AddTagsToResource", {**about, "Tags": pairs})
