"""JSON of what the standard library has no JSON for."""

import datetime
import uuid

import orjson

given = {"at": datetime.datetime(2024, 1, 31, tzinfo=datetime.timezone.utc), "id": uuid.UUID(int=7), "text": "Grüße"}
text = orjson.dumps(given, option=orjson.OPT_SORT_KEYS)
assert orjson.loads(text)["at"] == "2024-01-31T00:00:00+00:00"
assert orjson.loads(text)["text"] == "Grüße"
