"""For every picture that is put into a bucket: one of half the size, in the bucket <bucket>-resized."""

from __future__ import annotations

import io
from typing import Any
from urllib.parse import unquote_plus

import boto3
from PIL import Image, ImageOps

s3 = boto3.client("s3")


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Answers where the small pictures are, one for each record of the event.

    The first record that fails ends it. Lambda then sends the whole event again, and what is made twice is the same.
    """
    return {"resized": [resize(record) for record in event["Records"]]}


def resize(record: dict[str, Any]) -> dict[str, Any]:
    """Makes the small picture of one record."""
    if not record["eventName"].startswith("ObjectCreated:"):
        raise ValueError(f"{record['eventName']} is no event of an object that was created")
    bucket = record["s3"]["bucket"]["name"]
    key = unquote_plus(record["s3"]["object"]["key"])
    found = s3.get_object(Bucket=bucket, Key=key)
    picture, size = halved(found["Body"].read())
    place = {"Bucket": f"{bucket}-resized", "Key": key}
    s3.put_object(**place, Body=picture, ContentType=found["ContentType"])
    print(f"{bucket}/{key} is {size[0]} x {size[1]} in {place['Bucket']}")
    return {"bucket": place["Bucket"], "key": key, "width": size[0], "height": size[1]}


def halved(picture: bytes) -> tuple[bytes, tuple[int, int]]:
    """A picture with both sides halved, in the same format, and its size."""
    with Image.open(io.BytesIO(picture)) as image:
        width, height = (max(1, side // 2) for side in image.size)
        # Most of a large JPEG need not be decoded, which saves memory.
        image.draft(None, (width, height))
        # Cameras say which side is up in metadata, which the small picture does not have.
        small = ImageOps.exif_transpose(image.resize((width, height)))
        out = io.BytesIO()
        small.save(out, image.format, icc_profile=image.info.get("icc_profile"))
    return out.getvalue(), small.size
