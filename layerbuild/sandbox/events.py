"""Sample events, as AWS services send them to a handler, made out of the templates in ``events.toml``."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import urllib.parse
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from layerbuild.errors import UsageError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """What can be set in an event.

    Args:
        name: as ``--set`` takes it.
        default: its value where none is given.
        description: what it is, in a few words.
        kind: which texts it takes: ``text`` is any.
    """

    name: str
    default: str
    description: str
    kind: str = "text"


@dataclass(frozen=True, kw_only=True, slots=True)
class EventKind:
    """One kind of event: what sends it, where AWS describes it, and what can be set in it."""

    name: str
    summary: str
    source: str
    parameters: tuple[Parameter, ...]


@cache
def event_kinds() -> tuple[EventKind, ...]:
    """All kinds of events, by name."""
    return tuple(
        EventKind(
            name=name,
            summary=table["summary"],
            source=table["source"],
            parameters=tuple(Parameter(name=key, **row) for key, row in table["parameters"].items()),
        )
        for name, table in sorted(_data().items())
    )


def sample_event(name: str, values: Mapping[str, str] = MappingProxyType({})) -> Any:
    """The event of that kind, as the handler's first argument.

    Args:
        name: of the kind.
        values: of parameters; the others have their defaults.

    Raises:
        UsageError: there is no such kind, it has no such parameter, or a value is not what its parameter takes.
    """
    kinds = {kind.name: kind for kind in event_kinds()}
    if name not in kinds:
        raise UsageError(
            "unknown-event",
            f"there is no event {name!r}",
            causes=[nearest(name, kinds)],
            hint="`layerbuild events` lists them",
        )
    parameters = {parameter.name: parameter for parameter in kinds[name].parameters}
    for key, value in values.items():
        if key not in parameters:
            known = "known: " + ", ".join(parameters)
            near = nearest(key, parameters)
            raise UsageError(
                "unknown-parameter",
                f"the event {name} has no parameter {key!r}",
                causes=[near, known] if near.startswith("did you mean") else [known],
                hint="`layerbuild events --json` says what each is",
            )
        if wrong := _problem(parameters[key].kind, value):
            raise UsageError(
                "bad-parameter",
                f"{key} of the event {name} cannot be {_short(value)}",
                causes=[wrong],
                hint=f"such as {parameters[key].default}" if parameters[key].default else None,
            )
    filled = {key: values.get(key, parameter.default) for key, parameter in parameters.items()}
    return _fill(json.loads(_data()[name]["event"]), filled)


@cache
def _data() -> dict[str, Any]:
    import tomllib
    from importlib.resources import files

    return tomllib.loads(files("layerbuild.sandbox").joinpath("events.toml").read_text("utf-8"))


def _short(value: str) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:59] + "…"


_PATTERNS = {
    "integer": (r"[0-9]{1,18}", "it must be a whole number of at most 18 digits"),
    "account": (r"[0-9]{12}", "it must be the twelve digits of an account"),
    "region": (r"[a-z]+(-[a-z]+)+-[0-9]+", "it must be the name of a region"),
    "method": (r"[A-Z]+", "it must be a method of HTTP in capital letters"),
    "path": (r"/[^?]*", "it must begin with / and hold no ?; what follows a ? belongs into query"),
}


# Fewer than Python can print, wherever it is called from.
_LEVELS = 100
_TOO_DEEP = f"it must be JSON of at most {_LEVELS} levels"


def _problem(kind: str, value: str) -> str:
    """What keeps `value` from being of that kind; empty where nothing does."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return "it is not UTF-8"
    if kind in _PATTERNS:
        pattern, problem = _PATTERNS[kind]
        return "" if re.fullmatch(pattern, value, re.ASCII | re.DOTALL) else problem
    if kind == "time":
        return _time_problem(value)
    return _object_problem(value) if kind == "object" else ""


def _time_problem(value: str) -> str:
    from datetime import datetime

    try:
        fine = re.fullmatch(r"[0-9-]{10}T[0-9:]{8}Z", value) and datetime.fromisoformat(value)
    except ValueError:
        fine = None
    return "" if fine else "it must be a time in UTC"


def _object_problem(value: str) -> str:
    def refuse(constant: str) -> None:
        raise ValueError(f"JSON has no {constant}")

    try:
        found = json.loads(value, parse_constant=refuse)
    except ValueError as error:
        return f"it is not JSON: {error}"
    except RecursionError:
        return _TOO_DEEP
    if not isinstance(found, dict):
        return "it must be an object of JSON"
    level: list[Any] = [found]
    for _ in range(_LEVELS):
        containers = [value.values() if isinstance(value, dict) else value for value in level]
        level = [item for container in containers for item in container if isinstance(item, (dict, list))]
    return _TOO_DEEP if level else ""


# In place of a value: neither it nor its key is in the event.
_ABSENT = object()
_PLACEHOLDER = re.compile(r"\{\{([a-z-]+)(?:\|([a-z0-9-]+))?\}\}")


def _fill(template: Any, values: Mapping[str, str]) -> Any:
    """The template with its placeholders replaced. What replaces one is not looked at again."""
    if isinstance(template, dict):
        filled = {key: _fill(value, values) for key, value in template.items()}
        kept = {key: value for key, value in filled.items() if value is not _ABSENT}
        operation = _OPERATIONS.get(next(iter(kept), ""))
        return operation(*kept.values()) if operation else kept
    if isinstance(template, list):
        items = [_fill(value, values) for value in template]
        return _ABSENT if any(item is _ABSENT for item in items) else items
    if not isinstance(template, str):
        return template
    if whole := _PLACEHOLDER.fullmatch(template):
        return _value(whole, values)
    return _PLACEHOLDER.sub(lambda match: str(_value(match, values)), template)


def _value(match: re.Match[str], values: Mapping[str, str]) -> Any:
    value = values[match[1]]
    return _FILTERS[match[2]](value) if match[2] else value


def _content_type(body: str) -> Any:
    if not body:
        return _ABSENT
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return "text/plain; charset=utf-8"
    return "application/json"


def _pairs(query: str) -> list[tuple[str, str]]:
    """The names and values of a query, decoded."""
    return urllib.parse.parse_qsl(query, keep_blank_values=True)


def _raw_pairs(query: str) -> list[tuple[str, str]]:
    """The names and values of a query as the client sent them."""
    parts = [part.partition("=") for part in query.split("&") if part]
    return [(name, value) for name, _, value in parts]


def _lists(query: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in _pairs(query):
        found.setdefault(name, []).append(value)
    return found


def _joined(query: str) -> Any:
    return {name: ",".join(values) for name, values in _lists(query).items()} or _ABSENT


def partition(region: str) -> str:
    """The partition that a region is in, as ARNs name it."""
    return "aws-cn" if region.startswith("cn-") else "aws-us-gov" if region.startswith("us-gov-") else "aws"


_FILTERS: dict[str, Callable[[str], Any]] = {
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "content-length": lambda body: str(len(body.encode())) if body else _ABSENT,
    "content-type": _content_type,
    "domain": lambda region: "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com",
    "integer": int,
    "json": json.loads,
    "length": lambda body: str(len(body.encode())),
    "md5": lambda text: hashlib.md5(text.encode(), usedforsecurity=False).hexdigest(),
    "or-absent": lambda text: text or _ABSENT,
    "or-null": lambda text: text or None,
    "partition": partition,
    "path-parameters": lambda path: {"proxy": path[1:]} if path != "/" else None,
    "query-joined": _joined,
    "query-last": lambda query: dict(_pairs(query)) or None,
    "query-lists": lambda query: _lists(query) or None,
    "query-raw": lambda query: dict(_raw_pairs(query)),
    "resource": lambda path: "/{proxy+}" if path != "/" else "/",
    "s3-key": lambda key: urllib.parse.quote_plus(key, safe="/"),
    "url": lambda text: urllib.parse.quote(text, safe=""),
}


def _gzip(content: Any) -> str:
    """The content as JSON in gzip in base64. It is stored, as versions of zlib deflate differently."""
    import gzip
    import io

    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=buffer, mode="wb", compresslevel=0, mtime=0) as file:
        file.write(json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode())
    return base64.b64encode(buffer.getvalue()).decode()


def _stream_record(record: dict[str, Any]) -> dict[str, Any]:
    """A record of a DynamoDB stream, with the size of its keys and images, whose attributes are strings."""
    attributes = [
        (name, *value.values())
        for part in ("Keys", "NewImage", "OldImage")
        for name, value in record.get(part, {}).items()
    ]
    size = sum(len(text.encode()) for attribute in attributes for text in attribute)
    return {key: size if key == "SizeBytes" else value for key, value in record.items()}


_OPERATIONS: dict[str, Callable[..., Any]] = {"{{gzip}}": _gzip, "{{stream-record}}": _stream_record}
