"""Makes real wheels for tests, good ones and, on request, broken ones."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def record_digest(content: bytes) -> str:
    """A hash as RECORD has it, with its algorithm."""
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def make_wheel(
    folder: Path,
    name: str = "demo",
    version: str = "1.0",
    files: Mapping[str, str | bytes] | None = None,
    *,
    tag: str = "py3-none-any",
    build: str = "",
    requires: Sequence[str] = (),
    metadata: str = "",
    entry_points: str = "",
    executable: Sequence[str] = (),
    record: str | None = None,
    pure: bool | None = None,
    compression: int = zipfile.ZIP_DEFLATED,
) -> Path:
    """Writes a wheel and returns its path.

    Args:
        files: path in the wheel to content; by default one module named after the distribution.
        requires: Requires-Dist lines.
        metadata: further lines of METADATA.
        executable: paths that get the executable bit.
        record: text of RECORD instead of the right one.
    """
    base = f"{name.replace('-', '_')}-{version}"
    info = f"{base}.dist-info"
    contents: dict[str, bytes] = {}
    given = {f"{name.replace('-', '_')}.py": "VERSION = 1\n"} if files is None else files
    for member, content in given.items():
        contents[member] = content.encode() if isinstance(content, str) else content
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {text}" for text in requires]
    contents.setdefault(f"{info}/METADATA", ("\n".join(lines) + "\n" + metadata).encode())
    is_pure = tag.endswith("-none-any") if pure is None else pure
    contents.setdefault(
        f"{info}/WHEEL",
        f"Wheel-Version: 1.0\nRoot-Is-Purelib: {str(is_pure).lower()}\nTag: {tag}\n".encode(),
    )
    if entry_points:
        contents[f"{info}/entry_points.txt"] = entry_points.encode()
    if record is None:
        rows = [f"{name},{record_digest(data)},{len(data)}" for name, data in contents.items()]
        record = "\n".join([*rows, f"{info}/RECORD,,"]) + "\n"
    contents[f"{info}/RECORD"] = record.encode()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "-".join(filter(None, [base, build, tag + ".whl"]))
    with zipfile.ZipFile(path, "w", compression) as archive:
        for member, data in contents.items():
            zipped = zipfile.ZipInfo(member, (2020, 1, 1, 0, 0, 0))
            zipped.external_attr = (0o100755 if member in executable else 0o100644) << 16
            zipped.compress_type = compression
            archive.writestr(zipped, data)
    return path


def sha256_of(path: Path) -> str:
    """A file's sha256 in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
