"""What a wheel says about itself, and that nothing it says is believed unchecked."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from layerbuild.errors import BuildError
from layerbuild.process import Interrupted, interrupted
from layerbuild.wheel import facts_key, read_facts, wheel_from_facts
from tests.wheels import make_wheel, record_digest, sha256_of

INFO = "demo-1.0.dist-info"
METADATA = "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n"
WHEEL = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"

# (offset, format) of fields in a central and a local header (APPNOTE.TXT 4.3.7 and 4.3.12).
FLAGS, METHOD, CRC, COMPRESSED, SIZE = (8, "<H"), (10, "<H"), (16, "<L"), (20, "<L"), (24, "<L")
ATTRIBUTES, HEADER_OFFSET, NAME = (38, "<L"), (42, "<L"), (46, "<B")
LOCAL_SIGNATURE, LOCAL_FLAGS, LOCAL_METHOD, LOCAL_NAME = (0, "<H"), (6, "<H"), (8, "<H"), (30, "<B")


def facts_of(path: Path) -> dict[str, Any]:
    return read_facts(path, path.name)


def refusal(path: Path) -> str:
    """Why a wheel is refused."""
    with pytest.raises(BuildError) as caught:
        facts_of(path)
    assert caught.value.code == "wheel-invalid"
    assert path.name in caught.value.what
    assert caught.value.hint
    (cause,) = caught.value.causes
    return cause


def record_of(contents: Mapping[str, bytes], algorithm: str = "sha256", end: str = "\n") -> str:
    """RECORD for files, with any path and any hash, which `make_wheel` does not do."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator=end)
    for path, content in contents.items():
        digest = base64.urlsafe_b64encode(hashlib.new(algorithm, content).digest()).decode()
        rows.writerow([path, f"{algorithm}={digest.rstrip('=')}", len(content)])
    rows.writerow([f"{INFO}/RECORD", "", ""])
    return text.getvalue()


def zip_of(path: Path, contents: Mapping[str, str | bytes], record: str | None = None) -> Path:
    """A zip of just these files and a right RECORD."""
    data = {name: content.encode() if isinstance(content, str) else content for name, content in contents.items()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in data.items():
            archive.writestr(name, content)
        archive.writestr(f"{INFO}/RECORD", record_of(data) if record is None else record)
    return path


def change(path: Path, member: str, field: tuple[int, str], value: int, *, local: bool = False) -> Path:
    """Overwrites a field of a member's central (or local) header."""
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        position = archive.start_dir
        for info in archive.infolist():
            if info.filename == member:
                break
            position += 46 + len(info.filename.encode()) + len(info.extra) + len(info.comment)
        start = info.header_offset if local else position
    struct.pack_into(field[1], data, start + field[0], value)
    path.write_bytes(data)
    return path


def test_a_good_wheel_says_what_is_in_it(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "demo/__init__.py": "x = 1\n" * 50,
        "demo/tool.so": bytes(range(256)),
        "demo/empty.py": "",
    }
    path = make_wheel(
        tmp_path,
        files=files,
        executable=["demo/tool.so"],
        metadata="Summary: A demo\nHome-page: https://demo.example\nLicense: MIT\n",
        entry_points="[console_scripts]\ndemo = demo:main\nall = demo.all:run [extra]\n[gui_scripts]\nwin=demo:win\n"
        "[other]\nplug = demo:plug\n",
    )

    facts = json.loads(json.dumps(facts_of(path)))
    wheel = wheel_from_facts(facts, sha256=sha256_of(path), filename=path.name, path=path)

    assert (wheel.name, wheel.version, wheel.licence, wheel.summary) == ("demo", "1.0", "MIT", "A demo")
    assert (wheel.homepage, wheel.pure) == ("https://demo.example", True)
    assert (wheel.dist_info, wheel.data) == (INFO, "demo-1.0.data")
    assert wheel.scripts == (("all", "demo.all:run"), ("demo", "demo:main"), ("win", "demo:win"))
    assert str(wheel) == "demo-1.0-py3-none-any.whl"
    assert wheel.sha256 in facts_key(wheel.sha256)
    assert {member.path for member in wheel.members} == {
        *files,
        *(f"{INFO}/{name}" for name in ("METADATA", "WHEEL", "entry_points.txt", "RECORD")),
    }


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_the_compressed_bytes_of_every_member_are_where_the_facts_say(tmp_path: Path, compression: int) -> None:
    # Large enough to be read and inflated in several pieces.
    files = {"big.bin": b"abc" * 400_000, "demo.py": b"x = 1\n", "empty.py": b""}
    path = make_wheel(tmp_path, files=files, executable=["demo.py"], compression=compression)
    data = path.read_bytes()

    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    members = facts_of(path)["members"]

    assert [member.path for member in members] == list(contents)
    for member in members:
        content = contents[member.path]
        raw = data[member.offset : member.offset + member.compressed]
        assert member.method == compression
        assert (raw if compression == zipfile.ZIP_STORED else zlib.decompress(raw, -15)) == content
        assert (member.size, member.crc) == (len(content), zlib.crc32(content))
        assert "sha256=" + member.sha256 == record_digest(content)
        assert member.mode == (0o755 if member.path == "demo.py" else 0o644)


def test_a_mode_without_a_file_type_is_a_plain_file(tmp_path: Path) -> None:
    path = change(make_wheel(tmp_path), "demo.py", ATTRIBUTES, 0o755 << 16)
    assert facts_of(path)["members"][0].mode == 0o644


@pytest.mark.parametrize(
    ("metadata", "licence"),
    [
        ("", ""),
        ("License-Expression: MIT OR Apache-2.0\n", "MIT OR Apache-2.0"),
        ("License-Expression: MIT\nLicense: something else\n", "MIT"),
        ("License: BSD 3-Clause\nClassifier: License :: OSI Approved :: BSD License\n", "BSD 3-Clause"),
        (f"License: {'long ' * 50}\nClassifier: License :: OSI Approved :: MIT License\n", "MIT License"),
        ("License: first line\n        second line\nClassifier: License :: Public Domain\n", "Public Domain"),
        (
            "Classifier: License :: OSI Approved :: MIT License\nClassifier: License :: Public Domain\n",
            "MIT License, Public Domain",
        ),
    ],
)
def test_the_licence_is_the_shortest_that_the_metadata_offers(tmp_path: Path, metadata: str, licence: str) -> None:
    assert facts_of(make_wheel(tmp_path, metadata=metadata))["licence"] == licence


@pytest.mark.parametrize(
    ("metadata", "homepage"),
    [
        ("", ""),
        ("Project-URL: Source, https://source\nProject-URL: Homepage, https://home\n", "https://home"),
        ("Project-URL: Docs, https://docs\nProject-URL: repository, https://code\n", "https://code"),
        ("Project-URL: Docs, https://docs\nProject-URL: Chat, https://chat\n", "https://docs"),
    ],
)
def test_the_homepage_is_the_most_fitting_link(tmp_path: Path, metadata: str, homepage: str) -> None:
    assert facts_of(make_wheel(tmp_path, metadata=metadata))["homepage"] == homepage


@pytest.mark.parametrize(("tag", "pure"), [("py3-none-any", True), ("cp312-cp312-manylinux_2_17_x86_64", False)])
def test_a_wheel_is_pure_when_it_says_so(tmp_path: Path, tag: str, pure: bool) -> None:
    assert facts_of(make_wheel(tmp_path, tag=tag))["pure"] is pure


def test_a_wheel_written_to_a_stream_is_accepted(tmp_path: Path) -> None:
    class Pipe(io.RawIOBase):
        """Cannot seek, so that sizes and checksums follow each member (data descriptors)."""

        def __init__(self) -> None:
            self.data = bytearray()

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            self.data += data
            return len(data)

    pipe = Pipe()
    with zipfile.ZipFile(make_wheel(tmp_path)) as plain, zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in plain.namelist():
            archive.writestr(name, plain.read(name))
    path = tmp_path / "streamed.whl"
    path.write_bytes(pipe.data)
    with zipfile.ZipFile(path) as archive:
        assert all(info.flag_bits & 0x8 for info in archive.infolist())

    member = facts_of(path)["members"][0]

    assert zlib.decompress(pipe.data[member.offset :][: member.compressed], -15) == b"VERSION = 1\n"


def test_directory_entries_are_passed_over(tmp_path: Path) -> None:
    path = make_wheel(tmp_path, files={"demo/a.py": ""})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("demo/", "")
        archive.writestr(f"{INFO}/", "")
    assert "demo/" not in [member.path for member in facts_of(path)["members"]]


def test_bytes_before_the_zip_do_not_matter(tmp_path: Path) -> None:
    path = make_wheel(tmp_path, compression=zipfile.ZIP_STORED)
    path.write_bytes(b"#!/bin/sh\n" + path.read_bytes())
    member = facts_of(path)["members"][0]
    assert path.read_bytes()[member.offset :].startswith(b"VERSION = 1\n")


def test_names_beyond_ascii_are_accepted(tmp_path: Path) -> None:
    path = make_wheel(tmp_path, files={"größe/日本.py": "x = 1\n"})
    assert facts_of(path)["members"][0].path == "größe/日本.py"


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_record_may_use_any_safe_hash(tmp_path: Path, algorithm: str, end: str) -> None:
    contents = {"a, b.py": b"x = 1\n", f"{INFO}/METADATA": METADATA.encode(), f"{INFO}/WHEEL": WHEEL.encode()}
    path = zip_of(tmp_path / "demo.whl", contents, record_of(contents, algorithm, end))
    assert facts_of(path)["members"][0].path == "a, b.py"


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_a_file_that_its_record_does_not_describe_is_refused(tmp_path: Path, algorithm: str) -> None:
    contents = {"demo.py": b"x = 1\n", f"{INFO}/METADATA": METADATA.encode(), f"{INFO}/WHEEL": WHEEL.encode()}
    record = record_of({**contents, "demo.py": b"x = 2\n"}, algorithm)
    cause = refusal(zip_of(tmp_path / "demo.whl", contents, record))
    assert cause == "'demo.py' is not the file that its RECORD describes"


@pytest.mark.parametrize("algorithm", ["md5", "sha1"])
def test_a_record_with_unsafe_hashes_is_refused(tmp_path: Path, algorithm: str) -> None:
    contents = {"demo.py": b"x = 1\n", f"{INFO}/METADATA": METADATA.encode(), f"{INFO}/WHEEL": WHEEL.encode()}
    cause = refusal(zip_of(tmp_path / "demo.whl", contents, record_of(contents, algorithm)))
    assert algorithm in cause


@pytest.mark.parametrize("row", ["", "demo.py,,\n", "demo.py\n"])
def test_a_file_without_a_hash_in_record_is_refused(tmp_path: Path, row: str) -> None:
    contents = {f"{INFO}/METADATA": METADATA.encode(), f"{INFO}/WHEEL": WHEEL.encode()}
    path = zip_of(tmp_path / "demo.whl", {"demo.py": b"x = 1\n", **contents}, row + record_of(contents))
    assert refusal(path) == "its RECORD has no hash for 'demo.py'"


def test_a_record_that_lists_an_absent_file_is_refused(tmp_path: Path) -> None:
    contents = {f"{INFO}/METADATA": METADATA.encode(), f"{INFO}/WHEEL": WHEEL.encode()}
    path = zip_of(tmp_path / "demo.whl", contents, record_of({**contents, "gone.py": b""}))
    assert refusal(path) == "its RECORD lists 'gone.py', which is not in it"


@pytest.mark.parametrize(
    "record", ["demo.py,sha256=a\rb,1\n", f"{'x' * 200_000},,\n"], ids=["lone-cr", "endless-field"]
)
def test_a_record_that_is_not_csv_is_refused(tmp_path: Path, record: str) -> None:
    assert "RECORD" in refusal(make_wheel(tmp_path, record=record))


@pytest.mark.parametrize(
    "name",
    [
        "../evil.py",
        "demo/../../evil.py",
        "demo/..",
        "/etc/evil",
        "demo\\evil.py",
        "C:/evil.py",
        "C:evil.py",
        "demo//evil.py",
        "./evil.py",
        "demo/./evil.py",
        "demo/ev\nil.py",
        "demo/\x1b[31m.py",
    ],
)
def test_an_unsafe_path_is_refused(tmp_path: Path, name: str) -> None:
    assert repr(name) in refusal(make_wheel(tmp_path, files={name: ""}))


def test_a_path_with_a_nul_is_refused(tmp_path: Path) -> None:
    contents = {"a_b.py": b"", f"{INFO}/METADATA": METADATA.encode(), f"{INFO}/WHEEL": WHEEL.encode()}
    # Readers differ on what such a name is; zipfile ends it at the NUL.
    record = record_of({**contents, "a": b""}).replace("a_b.py", f"{INFO}/RECORD.p7s")
    path = zip_of(tmp_path / "demo.whl", contents, record)
    path.write_bytes(path.read_bytes().replace(b"a_b.py", b"a\0b.py"))
    assert "path" in refusal(path)


def test_a_path_that_is_in_the_wheel_twice_is_refused(tmp_path: Path) -> None:
    path = make_wheel(tmp_path)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("demo.py", "VERSION = 1\n")
    assert refusal(path) == "the path 'demo.py' is in it twice"


@pytest.mark.parametrize(
    ("field", "value", "local", "words"),
    [
        (ATTRIBUTES, 0o120777 << 16, False, "'demo.py' is a symbolic link"),
        (FLAGS, 0x1, False, "'demo.py' is encrypted"),
        (METHOD, 99, False, "'demo.py' is compressed by a method"),
        (METHOD, zipfile.ZIP_STORED, False, "contradicts itself about 'demo.py'"),
        (NAME, ord("D"), False, "contradicts itself about 'Demo.py'"),
        (HEADER_OFFSET, 1, False, "contradicts itself about 'demo.py'"),
        (LOCAL_METHOD, zipfile.ZIP_STORED, True, "contradicts itself about 'demo.py'"),
        (LOCAL_NAME, ord("D"), True, "contradicts itself about 'demo.py'"),
        (LOCAL_SIGNATURE, 0, True, "contradicts itself about 'demo.py'"),
        (CRC, 1, None, "'demo.py' does not have the size and checksum"),
        (SIZE, 4001, None, "'demo.py' does not have the size and checksum"),
        (SIZE, 10, None, "a member is larger than the zip says"),
        (COMPRESSED, 5, None, "compressed data ends too early"),
        (COMPRESSED, 0, None, "compressed data ends too early"),
        (COMPRESSED, 100_000, None, "shares its bytes with another member"),
        (CRC, 1, False, "contradicts itself about 'demo.py'"),
        (SIZE, 4001, False, "contradicts itself about 'demo.py'"),
        (COMPRESSED, 5, False, "contradicts itself about 'demo.py'"),
    ],
)
def test_a_member_with_a_false_header_is_refused(
    tmp_path: Path, field: tuple[int, str], value: int, local: bool | None, words: str
) -> None:
    path = make_wheel(tmp_path, files={"demo.py": "x" * 4000})
    if local is None:  # both headers tell the same lie
        change(path, "demo.py", (field[0] - 2, field[1]), value, local=True)
    assert words in refusal(change(path, "demo.py", field, value, local=bool(local)))


@pytest.mark.parametrize("local", [False, True])
def test_a_name_that_is_not_the_utf_8_it_claims_to_be_is_refused(tmp_path: Path, local: bool) -> None:
    path = make_wheel(tmp_path, files={"größe.py": ""})
    field = LOCAL_NAME if local else NAME
    assert "not a whole zip file" in refusal(change(path, "größe.py", field, 0xFF, local=local))


def test_a_local_name_that_claims_another_encoding_is_refused(tmp_path: Path) -> None:
    path = change(make_wheel(tmp_path, files={"größe.py": ""}), "größe.py", LOCAL_FLAGS, 0, local=True)
    assert "contradicts itself" in refusal(path)


def test_a_bomb_is_refused_before_it_is_inflated(tmp_path: Path) -> None:
    path = make_wheel(tmp_path, files={"a.bin": "", "b.bin": ""})
    change(path, "a.bin", SIZE, 0xFFFF_FFF0)
    assert "more than 4,294,967,296 bytes" in refusal(change(path, "b.bin", SIZE, 0xFFFF_FFF0))


def test_a_wheel_whose_directory_lies_about_its_place_is_refused(tmp_path: Path) -> None:
    path = make_wheel(tmp_path)
    data = bytearray(path.read_bytes())
    (start,) = struct.unpack_from("<L", data, len(data) - 6)
    struct.pack_into("<L", data, len(data) - 6, start + 10)
    path.write_bytes(data)
    assert refusal(path)


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compression_that_lambda_may_not_read_is_refused(tmp_path: Path, compression: int) -> None:
    cause = refusal(make_wheel(tmp_path, compression=compression))
    assert cause == "'demo.py' is compressed by a method that Lambda may not read"


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04" + b"\0" * 100])
def test_a_file_that_is_no_zip_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "demo-1.0-py3-none-any.whl"
    path.write_bytes(content)
    assert "not a whole zip file" in refusal(path)


def test_a_wheel_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    path = make_wheel(tmp_path)
    data = path.read_bytes()
    for size in range(len(data)):
        path.write_bytes(data[:size])
        refusal(path)


@pytest.mark.parametrize("mask", [0x01, 0x08, 0x80, 0xFF])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_no_flipped_bit_changes_the_content_unnoticed(tmp_path: Path, compression: int, mask: int) -> None:
    path = make_wheel(tmp_path, files={"größe.py": "x = 1\n"}, compression=compression)
    data = path.read_bytes()
    contents = {(member.path, member.sha256) for member in facts_of(path)["members"]}
    codes = []
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= mask
        path.write_bytes(damaged)
        try:
            found = {(member.path, member.sha256) for member in facts_of(path)["members"]}
        except BuildError as error:
            codes.append(error.code)
        else:
            assert found == contents, f"byte {position}"
    assert set(codes) == {"wheel-invalid"}
    assert len(codes) > len(data) // 3


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        ({"demo.py": ""}, "has 0"),
        ({"other-1.0.dist-info/METADATA": METADATA}, "has 2"),
        ({f"{INFO}/METADATA": METADATA}, f"it has no {INFO}/WHEEL"),
        ({f"{INFO}/WHEEL": WHEEL}, "METADATA has no name or version"),
        ({f"{INFO}/WHEEL": WHEEL, f"{INFO}/METADATA": ""}, "METADATA has no name or version"),
        ({f"{INFO}/WHEEL": WHEEL, f"{INFO}/METADATA": "Name: demo\n"}, "METADATA has no name or version"),
        ({f"{INFO}/WHEEL": WHEEL, f"{INFO}/METADATA": "Version: 1.0\n"}, "METADATA has no name or version"),
    ],
)
def test_a_wheel_without_its_essential_parts_is_refused(
    tmp_path: Path, contents: dict[str, str | bytes], words: str
) -> None:
    path = zip_of(tmp_path / "demo.whl", contents)
    if "has 0" in words:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("demo.py", "")
    assert words in refusal(path)


def test_a_wheel_without_a_record_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "demo.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{INFO}/METADATA", METADATA)
        archive.writestr(f"{INFO}/WHEEL", WHEEL)
    assert refusal(path) == f"it has no {INFO}/RECORD"


@pytest.mark.parametrize(
    "text",
    ["demo = demo:main\n", "[console_scripts]\ndemo\n", "[console_scripts]\na = b:c\na = b:d\n"],
    ids=["no-section", "no-value", "twice"],
)
def test_broken_entry_points_are_refused(tmp_path: Path, text: str) -> None:
    assert "its entry_points.txt cannot be read" in refusal(make_wheel(tmp_path, entry_points=text))


def test_entry_points_that_are_not_utf_8_are_refused(tmp_path: Path) -> None:
    path = make_wheel(tmp_path, files={f"{INFO}/entry_points.txt": b"[console_scripts]\n\xff = a:b\n"})
    assert "its entry_points.txt cannot be read" in refusal(path)


def test_reading_stops_when_the_user_interrupts(tmp_path: Path) -> None:
    interrupted.set()
    with pytest.raises(Interrupted):
        facts_of(make_wheel(tmp_path))


def test_a_member_with_a_second_name_is_refused(tmp_path: Path) -> None:
    """Info-ZIP's Unicode path field, which Python believes from 3.12 on."""
    path = make_wheel(tmp_path)
    evil = b"../../../bin/evil"
    with zipfile.ZipFile(path) as plain:
        contents = {info.filename: plain.read(info) for info in plain.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            info = zipfile.ZipInfo(name)
            if name == "demo.py":
                body = struct.pack("<BL", 1, zlib.crc32(name.encode())) + evil
                info.extra = struct.pack("<HH", 0x7075, len(body)) + body
            archive.writestr(info, content)
    assert "demo.py" in refusal(path)


def test_a_data_folder_of_another_name_is_refused(tmp_path: Path) -> None:
    assert "Demo-1.0.data" in refusal(make_wheel(tmp_path, files={"Demo-1.0.data/purelib/a.py": ""}))


def test_a_wheel_of_a_later_format_is_refused(tmp_path: Path) -> None:
    wheel = "Wheel-Version: 2.0\nRoot-Is-Purelib: true\n"
    assert "Wheel-Version" in refusal(make_wheel(tmp_path, files={"demo-1.0.dist-info/WHEEL": wheel}))
