"""What the dynamic loader will ask of an ELF file: machine, needed libraries, symbol versions, search paths.

Format: System V ABI, chapters 4 and 5; versions: the Linux Standard Base's "Symbol Versioning"; read by pyelftools.
"""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

    from elftools.elf.elffile import ELFFile

MAGIC = b"\x7fELF"

# Real files need some hundreds of small reads; a crafted one must not keep us busy.
_MAX_READS = 100_000
_MAX_BYTES = 64 * 1024**2
_MAX_ENTRIES = 1024
_MAX_FOLDERS = 64
_LONGEST_STRING = 4096
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
_SYSTEMS = ("ELFOSABI_SYSV", "ELFOSABI_LINUX")
_TYPES = {"ET_REL": "object", "ET_EXEC": "executable", "ET_DYN": "shared", "ET_CORE": "core"}


def read_elf(file: IO[bytes]) -> dict[str, Any]:
    """The facts of an ELF file, as JSON can hold them.

    Returns:
        ``machine`` (as `platform.machine` says it), ``system`` (where it is not Linux), ``bits``, ``type``,
        ``interpreter``, ``soname``, ``needed``, ``rpath`` and ``runpath`` (lists of folders), ``versions`` (library
        to the symbol versions needed of it), ``defines`` (symbol versions that it defines), ``executable_stack``,
        ``text_relocations``. What is empty
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
    """By the program headers alone, as the loader reads it: sections may be stripped, or say something else."""
    header = elf.header
    facts: dict[str, Any] = {
        "machine": _MACHINES.get(header["e_machine"], str(header["e_machine"])),
        "bits": elf.elfclass,
        "type": _TYPES.get(header["e_type"], str(header["e_type"])),
    }
    if (system := header["e_ident"]["EI_OSABI"]) not in _SYSTEMS:
        facts["system"] = str(system).removeprefix("ELFOSABI_")
    # Without a segment that says otherwise the stack is executable (glibc's DEFAULT_STACK_PERMS).
    facts["executable_stack"] = facts["type"] in ("shared", "executable")
    reader = _Reader(elf)
    for segment in reader.segments:
        match segment["p_type"]:
            case "PT_INTERP":
                facts["interpreter"] = reader.string(segment["p_offset"])
            case "PT_GNU_STACK":
                facts["executable_stack"] = bool(segment["p_flags"] & _PF_X)
            case "PT_DYNAMIC" if segment["p_filesz"]:
                facts |= reader.dynamic(segment["p_offset"])
            case "PT_DYNAMIC":
                facts["type"] = "debug"  # symbols that were split off: nothing loads them
    return facts


class _Reader:
    """Reads the structures of an ELF file where the program headers say that they are."""

    def __init__(self, elf: ELFFile) -> None:
        self._structs = elf.structs
        self._stream = elf.stream
        start, size, count = (elf.header[key] for key in ("e_phoff", "e_phentsize", "e_phnum"))
        self.segments = [self._parse("Elf_Phdr", start + number * size) for number in range(min(count, _MAX_ENTRIES))]

    def _parse(self, structure: str, offset: int) -> Any:
        from elftools.common.utils import struct_parse

        return struct_parse(getattr(self._structs, structure), self._stream, offset)

    def string(self, offset: int) -> str:
        """The string at an offset in the file."""
        self._stream.seek(offset)
        text, _, _ = self._stream.read(_LONGEST_STRING).partition(b"\0")
        return text.decode("utf-8", "replace")

    def _offset(self, address: int) -> int:
        """Where in the file lies what will be at an address in memory."""
        for segment in self.segments:
            start = segment["p_vaddr"]
            if segment["p_type"] == "PT_LOAD" and start <= address < start + segment["p_filesz"]:
                return int(address - start + segment["p_offset"])
        raise ValueError(f"the address {address:#x} is in no segment")

    def dynamic(self, offset: int) -> dict[str, Any]:
        """What the dynamic section says."""
        tags: dict[Any, list[int]] = {}
        size = self._structs.Elf_Dyn.sizeof()
        for number in range(_MAX_ENTRIES):
            tag = self._parse("Elf_Dyn", offset + number * size)
            if tag["d_tag"] == "DT_NULL":
                break
            tags.setdefault(tag["d_tag"], []).append(tag["d_val"])
        strings = self._offset(tags["DT_STRTAB"][0]) if "DT_STRTAB" in tags else 0

        def text(tag: str) -> list[str]:
            return [self.string(strings + place) for place in tags.get(tag, ())]

        facts: dict[str, Any] = {"needed": text("DT_NEEDED"), "soname": "".join(text("DT_SONAME")[:1])}
        for key, tag in (("rpath", "DT_RPATH"), ("runpath", "DT_RUNPATH")):
            facts[key] = "".join(text(tag)[:1]).split(":")[:_MAX_FOLDERS] if tag in tags else []
        facts["text_relocations"] = "DT_TEXTREL" in tags or any(
            flags & _DF_TEXTREL for flags in tags.get("DT_FLAGS", ())
        )
        if "DT_VERNEED" in tags:
            facts["versions"] = self._needed(self._offset(tags["DT_VERNEED"][0]), strings)
        if "DT_VERDEF" in tags:
            facts["defines"] = self._defined(self._offset(tags["DT_VERDEF"][0]), strings)
        return facts

    def _needed(self, offset: int, strings: int) -> dict[str, list[str]]:
        """Library to the versions needed of it, but for weak ones."""
        found: dict[str, set[str]] = {}
        for at, library in self._chain("Elf_Verneed", offset, "vn_next"):
            names = found.setdefault(self.string(strings + library["vn_file"]), set())
            names |= {
                self.string(strings + one["vna_name"])
                for _, one in self._chain("Elf_Vernaux", at + library["vn_aux"], "vna_next")
                if not one["vna_flags"] & _WEAK
            }
        return {library: sorted(names) for library, names in found.items()}

    def _defined(self, offset: int, strings: int) -> list[str]:
        """The versions defined: the first name of each is its own, the others are those of its ancestors."""
        return sorted(
            self.string(strings + self._parse("Elf_Verdaux", at + one["vd_aux"])["vda_name"])
            for at, one in self._chain("Elf_Verdef", offset, "vd_next")
        )

    def _chain(self, structure: str, offset: int, following: str) -> Iterator[tuple[int, Any]]:
        """Structures that each say how many bytes further the next one is: (offset, structure)."""
        for _ in range(_MAX_ENTRIES):
            found = self._parse(structure, offset)
            yield offset, found
            if not found[following]:
                return
            offset += found[following]


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
