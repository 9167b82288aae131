"""One layer out of a stack: what the merged /opt holds, as a zip of its own."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

from layerbuild import __version__
from layerbuild.archive import Manifest, write_archive
from layerbuild.checks import refuse_errors, size
from layerbuild.layer import SourceFile
from layerbuild.zips import STORED, zip_members

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from layerbuild.stack import Stack
    from layerbuild.target import Target
    from layerbuild.tree import Entry
    from layerbuild.zips import ZipMember

_LINK = 0o120777
_PROGRAM, _PLAIN = 0o755, 0o644


class Member(NamedTuple):
    """See `layerbuild.archive.Packed`."""

    path: str
    mode: int
    method: int
    crc: int
    compressed: int
    size: int
    source: SourceFile | bytes
    offset: int


def merge(stack: Stack, places: Sequence[Path], targets: Sequence[Target], path: Path, *, epoch: int) -> Manifest:
    """Writes the merged /opt as one layer, and its manifest beside it.

    Members are copied as the compressed bytes that they are in the layers' zips; what comes from a folder is stored.

    Args:
        stack: what to merge.
        places: where each layer was read from.
        targets: what the layer is for.
        path: the zip to write.
        epoch: the date of every member.

    Raises:
        CheckError: the result would be empty, or too large for Lambda.
    """
    refuse_errors(size.check(stack.merged, None), path.name)
    members = list(_members(stack, places))
    sources = [
        {"layer": tree.name, "code_sha256": _code_sha256(place)}
        for tree, place in zip(stack.layers, places, strict=True)
    ]
    contents = [_digest(_lines(tree.entries.values())) for tree in stack.layers]
    written = write_archive(members, path, epoch=epoch)
    manifest = Manifest.about(
        written,
        recipe=path.stem,
        target=str(targets[0]) if len(targets) == 1 else "any",
        runtimes=list(dict.fromkeys(target.runtime.name for target in targets)),
        architectures=sorted({target.arch for target in targets}, reverse=True),
        archive=path.name,
        inputs_digest=_digest(json.dumps([__version__, epoch, contents])),
        content_digest=_digest(_lines(stack.merged.entries.values())),
        unzipped=stack.merged.unzipped,
        files=len(members),
        merged_from=sources,
        distributions=list(_distributions(stack, members)),
    )
    manifest.write(path.with_suffix(".json"))
    return manifest


def _digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _lines(entries: Iterable[Entry]) -> str:
    """What a content digest is over, as `Layer.content_digest`: a file's hash, a link's target."""
    return "".join(
        f"{entry.path}\0{_mode(entry) & 0o7777:o}\0{entry.facts.get('target') or entry.sha256}\n"
        for entry in entries
        if entry.kind != "folder"
    )


def _mode(entry: Entry) -> int:
    if entry.kind == "symlink":
        return _LINK
    return _PROGRAM if entry.mode is not None and entry.mode & 0o111 else _PLAIN


def _code_sha256(place: Path) -> str | None:
    """A zip's hash as Lambda shows it; None for a folder."""
    if place.is_dir():
        return None
    with place.open("rb") as file:
        return base64.b64encode(hashlib.file_digest(file, "sha256").digest()).decode()


def _members(stack: Stack, places: Sequence[Path]) -> Iterator[Member]:
    zips: dict[int, tuple[SourceFile, dict[str, ZipMember]]] = {}
    for path, number in stack.winners.items():
        entry = stack.merged.entries[path]
        if entry.kind == "folder":
            continue
        mode = _mode(entry)
        place = places[number]
        if place.is_dir():
            data = entry.facts["target"].encode() if entry.kind == "symlink" else stack.layers[number].read(path)
            yield Member(path, mode, STORED, zlib.crc32(data), len(data), len(data), data, 0)
            continue
        if number not in zips:
            zips[number] = SourceFile(path=place, sha256=str(number)), {one.path: one for one in zip_members(place)}
        archive, members = zips[number]
        member = members[path]
        yield Member(path, mode, *member[3:7], archive, member.offset)


def _distributions(stack: Stack, members: Sequence[Member]) -> Iterator[dict[str, Any]]:
    """As in every manifest, but for the wheels, which a layer does not name."""
    sizes: dict[str, list[int]] = {}
    for member in members:
        if owner := stack.merged.owner(member.path):
            row = sizes.setdefault(owner.info, [0, 0])
            row[0] += member.size
            row[1] += member.compressed
    for one in sorted(stack.merged.distributions, key=lambda one: one.normal_name):
        unzipped, zipped = sizes.get(one.info, (0, 0))
        yield {"name": one.name, "version": one.version, "unzipped": unzipped, "zipped": zipped}
