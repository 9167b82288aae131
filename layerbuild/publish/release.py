"""What is to be published: an archive with all that Lambda is told of it, worked out before anything is sent.

botocore and Lambda's own errors come late and say little, so every limit is checked here. Limits: the API
reference of PublishLayerVersion, and the quotas of Lambda.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from layerbuild.catalogue import Content
from layerbuild.checks.size import INLINE_LIMIT
from layerbuild.errors import UsageError, nearest
from layerbuild.layer import UNZIPPED_LIMIT
from layerbuild.shared_cache import is_bucket_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

_NAME = re.compile(r"[a-zA-Z0-9-_]{1,140}")
NAME_FIELDS = ("recipe", "python", "arch")
_LONGEST_DESCRIPTION = 256
_LONGEST_LICENCE = 512
_MOST_RUNTIMES = 15
_BUCKET_FIELDS = ("account", "region")
_SHOWN_DIGITS = 32
_MARK = re.compile(r"\[layerbuild:([0-9a-f]{32})\]\s*$")


def mark(digest: str) -> str:
    """How a version's description says what is in it: the first 32 hex digits of the content digest."""
    return f"[layerbuild:{digest.removeprefix('sha256:')[:_SHOWN_DIGITS]}]"


def marked(description: str) -> str | None:
    """The mark that a description ends with; None without one."""
    match = _MARK.search(description)
    return f"[layerbuild:{match[1]}]" if match else None


@dataclass(frozen=True, kw_only=True)
class Release:
    """One archive, and what Lambda is told of it in every region.

    Attributes:
        digest: of its content; `code_sha256` and `size` are of the zip, as Lambda will say them.
        problems: why it cannot be published anywhere.
    """

    name: str
    archive: Path
    digest: str
    code_sha256: str
    size: int
    description: str
    content: Content
    problems: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """How people know it: recipe and target."""
        return f"{self.content.recipe}-{self.content.target}"

    @property
    def inline(self) -> bool:
        """Whether it can be sent with the request itself."""
        return self.size < INLINE_LIMIT


def release_of(
    manifest: Mapping[str, Any], archive: Path, *, name: str, description: str, problems: Iterable[str] = ()
) -> Release:
    """A layer as it is to be published.

    Args:
        manifest: what stands beside the archive.
        archive: the zip.
        name: template of the layer's name: ``{recipe}``, ``{python}``, ``{arch}``.
        description: what it says before its mark; ``{packages}`` and the fields of a name are filled in.
        problems: what is already known to be wrong with it.

    Raises:
        UsageError: a template has another field, or makes a name that Lambda does not allow.
    """
    runtimes, architectures = manifest["runtimes"], manifest["architectures"]
    packages = tuple(f"{one['name']} {one['version']}" for one in manifest["distributions"])
    fields = dict(zip(NAME_FIELDS, (str(manifest["recipe"]), *name_fields(runtimes, architectures)), strict=True))
    layer_name = filled(name, fields, "name")
    if not _NAME.fullmatch(layer_name):
        hint = "letters, digits, '-' and '_', at most 140 of them"
        raise UsageError("bad-layer-name", f"{layer_name!r} cannot name a layer in Lambda", hint=hint)
    filled(description, {**fields, "packages": ""}, "description")  # a wrong field is told whatever is in it
    found = list(problems)
    if manifest["unzipped"] >= UNZIPPED_LIMIT:
        found.append(f"it has {manifest['unzipped']:,} bytes unzipped; Lambda takes less than {UNZIPPED_LIMIT:,}")
    if len(runtimes) > _MOST_RUNTIMES:
        found.append(f"it is for {len(runtimes)} runtimes; Lambda takes {_MOST_RUNTIMES}")
    if not manifest["zipped"]:
        found.append("it is empty")
    digest = str(manifest["content_digest"])
    return Release(
        name=layer_name,
        archive=archive,
        digest=digest,
        code_sha256=manifest["code_sha256"],
        size=manifest["zipped"],
        description=_description(description, fields, packages, digest),
        content=Content(
            recipe=fields["recipe"],
            target=str(manifest["target"]),
            packages=packages,
            licence=_licence(manifest["distributions"]),
            runtimes=tuple(runtimes),
            architectures=tuple(architectures),
            unzipped=manifest["unzipped"],
            layerbuild=str(manifest["layerbuild"]),
        ),
        problems=tuple(found),
    )


def filled(template: str, fields: Mapping[str, str], what: str) -> str:
    """A template with its fields filled in; ``{{`` and ``}}`` stand for braces.

    Raises:
        UsageError: it names a field that there is not.
    """
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise UsageError("bad-template", f"{what} {template!r} cannot be read", causes=[str(error)]) from None
    text = ""
    for literal, field, form, conversion in parts:
        text += literal
        if field is None:
            continue
        if field not in fields or form or conversion:
            causes = [nearest(field, fields)]
            raise UsageError("bad-template", f"{what} {template!r} has no field {{{field}}}", causes=causes)
        text += fields[field]
    return text


def name_fields(runtimes: Sequence[str], architectures: Sequence[str]) -> tuple[str, str]:
    """``{python}`` and ``{arch}`` of a layer's name: ``python313``, as a name may have no dot, and ``arm64``.

    Each is ``any`` where a layer serves several.
    """
    python = runtimes[0].replace(".", "") if len(runtimes) == 1 else "any"
    return python, architectures[0] if len(architectures) == 1 else "any"


def bucket_name(template: str, account: str, region: str) -> str:
    """The bucket for archives that are too large to be sent inline.

    Raises:
        UsageError: the template has another field than ``{account}`` and ``{region}``, or makes no bucket's name.
    """
    found = filled(template, dict(zip(_BUCKET_FIELDS, (account, region), strict=True)), "bucket")
    if not is_bucket_name(found):
        raise UsageError("bad-template", f"{found!r} cannot name a bucket", hint="such as layers-{account}-{region}")
    return found


def same_names(releases: Iterable[Release]) -> list[str]:
    """A sentence for each name that several of the releases would have."""
    labels: dict[str, list[str]] = {}
    for one in releases:
        labels.setdefault(one.name, []).append(one.label)
    return [f"{' and '.join(found)} would both be {name}" for name, found in labels.items() if len(found) > 1]


def _description(template: str, fields: Mapping[str, str], packages: tuple[str, ...], digest: str) -> str:
    """At most 256 characters, the mark among them; of many packages the first."""
    room = _LONGEST_DESCRIPTION - len(mark(digest)) - 1
    for count in range(len(packages), -1, -1):
        told = [*packages[:count], *([f"{len(packages) - count} more"] if count < len(packages) else [])]
        text = filled(template, {**fields, "packages": ", ".join(told)}, "description")
        if len(text) <= room:
            break
    return f"{text[:room].rstrip()} {mark(digest)}".lstrip()


def _licence(distributions: Iterable[Mapping[str, Any]]) -> str:
    """The packages' licences, each once, cut to what Lambda takes."""
    text = ", ".join(dict.fromkeys(filter(None, (one.get("licence") for one in distributions))))
    return text if len(text) <= _LONGEST_LICENCE else text[: _LONGEST_LICENCE - 3] + "..."
