"""What the dynamic loader will ask of an ELF file: machine, needed libraries, symbol versions, search paths.

Format: System V ABI, chapters 4 and 5; versions: the Linux Standard Base's "Symbol Versioning"; read by pyelftools.
"""

from __future__ import annotations

from itertools import islice
from typing import IO, TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Iterable

    from elftools.elf.elffile import ELFFile

MAGIC = b"\x7fELF"

# Real files need some hundreds of small reads; a crafted one must not keep us busy.
_MAX_READS = 100_000
_MAX_BYTES = 16 * 1024**2
_MAX_ENTRIES = 4096
_PF_X = 1
_DF_TEXTREL = 4
_WEAK = 2  # VER_FLG_WEAK: the loader does not mind when it is missing
_MACHINES = {
    "EM_X86_64": "x86_64",
    "EM_AARCH64": "aarch64",
    "EM_386": "i386",
    "EM_ARM": "arm",
    "EM_PPC64": "ppc64",
    "EM_S390": "s390x",
    "EM_RISCV": "riscv",
}
_TYPES = {"ET_REL": "object", "ET_EXEC": "executable", "ET_DYN": "shared", "ET_CORE": "core"}


def read_elf(file: IO[bytes]) -> dict[str, Any]:
    """The facts of an ELF file, as JSON can hold them.

    Returns:
        ``machine`` (as `platform.machine` says it), ``bits``, ``type``, ``interpreter``, ``soname``, ``needed``,
        ``rpath`` and ``runpath`` (lists of folders), ``versions`` (library to the symbol versions needed of it),
        ``defines`` (symbol versions that it defines), ``executable_stack``, ``text_relocations``. What is empty
        or false is left out. ``{"broken": reason}`` where it cannot be read.
    """
    from elftools.common.exceptions import DWARFError, ELFError
    from elftools.construct import ConstructError
    from elftools.elf.elffile import ELFFile

    try:
        facts = _facts(ELFFile(cast("IO[bytes]", _Bounded(file))))
    except (
        *(ELFError, DWARFError, ConstructError, ValueError, OverflowError, MemoryError),
        *(LookupError, AttributeError, TypeError, AssertionError),  # what it raises on nonsense
    ) as error:
        return {"broken": str(error) or type(error).__name__}
    return {key: value for key, value in facts.items() if value}


def _facts(elf: ELFFile) -> dict[str, Any]:
    header = elf.header
    facts: dict[str, Any] = {
        "machine": _MACHINES.get(header["e_machine"], str(header["e_machine"])),
        "bits": elf.elfclass,
        "type": _TYPES.get(header["e_type"], str(header["e_type"])),
    }
    segments: Iterable[Any] = elf.iter_segments()
    for segment in segments:
        match segment["p_type"]:
            case "PT_INTERP":
                facts["interpreter"] = segment.get_interp_name()
            case "PT_GNU_STACK":
                facts["executable_stack"] = bool(segment["p_flags"] & _PF_X)
            case "PT_DYNAMIC":
                facts |= _dynamic(segment)
    sections: Iterable[Any] = elf.iter_sections()
    for section in sections:
        match section["sh_type"]:
            case "SHT_GNU_verneed":
                facts["versions"] = {
                    library.name: sorted(
                        {one.name for one in islice(versions, _MAX_ENTRIES) if not one["vna_flags"] & _WEAK}
                    )
                    for library, versions in islice(section.iter_versions(), _MAX_ENTRIES)
                }
            case "SHT_GNU_verdef":
                # The first name of each is its own, the others are those of its ancestors.
                facts["defines"] = sorted(
                    {next(names).name for _, names in islice(section.iter_versions(), _MAX_ENTRIES)}
                )
    return facts


def _dynamic(segment: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {"needed": []}
    for number in range(_MAX_ENTRIES):
        tag = segment.get_tag(number)
        match tag.entry.d_tag:
            case "DT_NULL":
                break
            case "DT_NEEDED":
                facts["needed"].append(tag.needed)
            case "DT_SONAME":
                facts["soname"] = tag.soname
            case "DT_RPATH":
                facts["rpath"] = tag.rpath.split(":")
            case "DT_RUNPATH":
                facts["runpath"] = tag.runpath.split(":")
            case "DT_TEXTREL":
                facts["text_relocations"] = True
            case "DT_FLAGS" if tag.entry.d_val & _DF_TEXTREL:
                facts["text_relocations"] = True
    return facts


class _Bounded:
    """A file of which only so much can be read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._reads = self._bytes = 0
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        """As of a file."""
        self._reads += 1
        if self._reads > _MAX_READS or not 0 <= size <= _MAX_BYTES - self._bytes:
            raise ValueError("it asks for more reading than a real one")
        data = self._file.read(size)
        self._bytes += len(data)
        return data
