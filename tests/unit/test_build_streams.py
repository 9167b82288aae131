"""What goes into an engine and comes out of it: archives, bytes in pieces, output line by line."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerbuild.builders.streams import BUILD_USER, ByteStream, Tail, tar_of
from layerbuild.process import Interrupted, interrupted

EPOCH = 315532800  # 1980-01-01
FILES = {
    "sources/b/demo.tar.gz": b"\x00\xff" * 700,
    "requirements.txt": b"demo\n",
    "sources/a.whl": b"",
    "tmp/.keep": b"",
}


def members(data: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return archive.getmembers()


# Archives.


def test_files_of_an_archive_are_what_was_given() -> None:
    with tarfile.open(fileobj=io.BytesIO(tar_of(FILES))) as archive:
        found = {entry.name: file.read() for entry in archive if (file := archive.extractfile(entry))}
    assert found == FILES


def test_all_in_an_archive_belongs_to_the_build_user_and_has_one_date() -> None:
    for entry in members(tar_of(FILES)):
        assert (entry.uid, entry.gid, entry.uname, entry.gname) == (BUILD_USER, BUILD_USER, "", "")
        assert entry.mtime == EPOCH
        assert (entry.isdir(), entry.mode) in [(True, 0o755), (False, 0o644)]
        assert entry.isdir() or entry.isreg()


def test_the_build_user_is_the_one_of_the_dockerfile() -> None:
    text = (Path(__file__).parents[2] / "Dockerfile.build").read_text()
    assert f"layerbuild:x:{BUILD_USER}:{BUILD_USER}:" in text


def test_every_folder_stands_once_and_before_what_is_in_it() -> None:
    names = [entry.name for entry in members(tar_of(FILES))]
    assert names == [
        *("sources", "sources/b", "tmp"),
        *("requirements.txt", "sources/a.whl", "sources/b/demo.tar.gz", "tmp/.keep"),
    ]


def test_an_archive_of_nothing_is_empty() -> None:
    assert members(tar_of({})) == []


def test_the_same_files_make_the_same_archive() -> None:
    assert tar_of(FILES) == tar_of(dict(FILES))
    files = {"b": b"1", "a": b"2", "c/d": b"3"}
    assert tar_of(files) == tar_of(dict(reversed(files.items())))


_parts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\x00"), min_size=1, max_size=60)
_paths = st.lists(_parts.filter(lambda part: part not in (".", "..")), min_size=1, max_size=4).map("/".join)


@given(
    st.dictionaries(_paths, st.binary(max_size=600), max_size=6).filter(
        lambda paths: not any(one.startswith(f"{other}/") for one in paths for other in paths)
    )
)
def test_any_names_and_contents_survive(files: dict[str, bytes]) -> None:
    with tarfile.open(fileobj=io.BytesIO(tar_of(files))) as archive:
        entries = archive.getmembers()
        found = {entry.name: archive.extractfile(entry) for entry in entries if entry.isreg()}
        assert {name: file.read() for name, file in found.items() if file} == files
    seen: set[str] = set()
    for entry in entries:
        assert "/" not in entry.name or entry.name.rpartition("/")[0] in seen
        if entry.isdir():
            assert entry.name not in seen
            seen.add(entry.name)


def test_tar_itself_can_read_an_archive() -> None:
    if shutil.which("tar") is None:
        pytest.skip("there is no tar here")
    done = subprocess.run(
        ["tar", "--list", "--verbose", "--numeric-owner", "--utc", "--file", "-"],
        input=tar_of({"a/b.txt": b"12345"}),
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.decode().splitlines()]
    assert [(row[0], row[1], row[-1]) for row in rows] == [
        ("drwxr-xr-x", f"{BUILD_USER}/{BUILD_USER}", "a/"),
        ("-rw-r--r--", f"{BUILD_USER}/{BUILD_USER}", "a/b.txt"),
    ]
    assert all("1980-01-01" in row for row in rows)


# Bytes in pieces.


@given(st.lists(st.binary(max_size=20), max_size=20), st.lists(st.integers(1, 50), min_size=1, max_size=9))
def test_pieces_are_read_as_one_file_whatever_their_sizes(pieces: list[bytes], sizes: list[int]) -> None:
    stream, read = ByteStream(pieces), []
    whole = b"".join(pieces)
    for turn in range(len(whole) + 1):
        piece = stream.read(sizes[turn % len(sizes)])
        assert piece is not None
        assert len(piece) <= sizes[turn % len(sizes)]
        if not piece:
            break
        read.append(piece)
    assert b"".join(read) == whole
    assert stream.read(1) == b""
    assert ByteStream(pieces).readall() == whole


@given(st.lists(st.binary(max_size=9), max_size=9), st.integers(1, 30))
def test_pieces_can_be_read_through_a_buffer(pieces: list[bytes], size: int) -> None:
    buffered = io.BufferedReader(ByteStream(pieces), size)
    found = b"".join(iter(lambda: buffered.read(size), b""))
    assert found == b"".join(pieces)


@pytest.mark.parametrize("size", [1, 7, 511, 512, 513, 100_000])
def test_an_archive_is_read_while_it_arrives(size: int) -> None:
    data = tar_of(FILES)
    pieces = (data[start : start + size] for start in range(0, len(data), size))
    found = {}
    with tarfile.open(fileobj=ByteStream(pieces), mode="r|") as archive:
        for entry in archive:
            if file := archive.extractfile(entry):
                found[entry.name] = file.read()
    assert found == FILES


def test_no_more_pieces_are_taken_than_are_read() -> None:
    taken = []

    def pieces() -> Iterator[bytes]:
        for number in range(100):
            taken.append(number)
            yield bytes(10)

    stream = ByteStream(pieces())
    stream.read(15)
    assert len(taken) <= 2


def test_an_error_of_the_pieces_is_not_lost() -> None:
    def pieces() -> Iterator[bytes]:
        yield b"some"
        raise ConnectionResetError("gone")

    stream = ByteStream(pieces())
    assert stream.read(10) == b"some"
    with pytest.raises(ConnectionResetError):
        stream.read(10)


def test_reading_ends_when_the_user_interrupts() -> None:
    stream = ByteStream([b"one", b"two"])
    assert stream.read(3) == b"one"
    interrupted.set()
    with pytest.raises(Interrupted):
        stream.read(3)


# Output.


def tail_of(*chunks: bytes) -> tuple[list[str], list[str]]:
    """The lines that are given on, and those that are kept."""
    given_on: list[str] = []
    tail = Tail(given_on.append)
    for chunk in chunks:
        tail.add(chunk)
    tail.end()
    return given_on, tail.lines()


def test_each_line_is_given_on_as_soon_as_it_is_whole() -> None:
    lines: list[str] = []
    tail = Tail(lines.append)
    tail.add(b"one\ntw")
    assert lines == ["one"]
    tail.add(b"o\n")
    assert lines == ["one", "two"]
    tail.add(b"three")
    assert lines == ["one", "two"]
    tail.end()
    assert lines == tail.lines() == ["one", "two", "three"]
    tail.end()
    assert lines == ["one", "two", "three"]


@given(
    st.lists(
        st.sampled_from(
            [b"a", b"\n", b" ", b"\xc3\xbc", b"\xf0\x9f\x90\x8d", b"\x1b[1;31m", b"http://u:p@h/", b"\r"]
        ),
        max_size=40,
    ),
    st.lists(st.integers(1, 9), min_size=1, max_size=9),
)
def test_lines_do_not_depend_on_where_the_output_is_split(words: list[bytes], sizes: list[int]) -> None:
    data, start = b"".join(words), 0
    chunks: list[bytes] = []
    while start < len(data):
        size = sizes[len(chunks) % len(sizes)]
        chunks.append(data[start : start + size])
        start += size
    assert tail_of(*chunks) == tail_of(data)


def test_empty_lines_and_ends_of_lines_are_left_out() -> None:
    lines, _ = tail_of(b"\n\none  \r\n   \n\t\n  two\n\n")
    assert lines == ["one", "  two"]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (b"\x1b[31mred\x1b[0m", "red"),
        (b"\x1b[1;38;5;196mred\x1b[m text", "red text"),
        (b"\x1b[2K\x1b[1Gstep 1", "step 1"),
        (
            b"\x1b[01m\x1b[Ka.c:1:10:\x1b[m\x1b[K \x1b[01;31m\x1b[Kfatal error: \x1b[m\x1b[Kx.h",
            "a.c:1:10: fatal error: x.h",
        ),
        (b"[31m stays", "[31m stays"),
    ],
)
def test_colours_are_left_out(written: bytes, read: str) -> None:
    assert tail_of(written) == ([read], [read])


def test_what_is_nothing_but_colours_is_no_line() -> None:
    assert tail_of(b"\x1b[31m\x1b[0m\n\x1b[K\n") == ([], [])


def test_user_names_and_passwords_are_left_out() -> None:
    lines, kept = tail_of(
        b"Looking in indexes: https://user:sec", b"ret@index.example/simple, http://tok\x1b[0men@h/\n"
    )
    assert lines == kept == ["Looking in indexes: https://****@index.example/simple, http://****@h/"]


def test_bytes_that_are_not_utf8_are_shown_as_such() -> None:
    assert tail_of(b"caf\xe9\n\xff\xfe\n")[0] == ["caf\ufffd", "\ufffd\ufffd"]
    assert tail_of("gr\u00fc\u00dfe \U0001f40d\n".encode())[0] == ["gr\u00fc\u00dfe \U0001f40d"]


@pytest.mark.parametrize("count", [0, 1, 39, 40, 41, 80, 81, 1000])
def test_the_last_lines_are_kept(count: int) -> None:
    written = [f"line {number}" for number in range(count)]
    lines, kept = tail_of("\n".join(written).encode())
    assert lines == written
    assert kept == written[-40:]


def test_what_is_kept_is_not_changed_from_outside() -> None:
    tail = Tail(lambda line: None)
    tail.add(b"one\n")
    tail.lines().clear()
    assert tail.lines() == ["one"]


@pytest.mark.parametrize("chunks", [[b"x" * 32768] * 128, [b"x" * 4_000_000], [b"x" * 4_000_000, b"\n"]], ids=len)
def test_a_line_that_does_not_end_is_cut(chunks: list[bytes]) -> None:
    lines, kept = tail_of(*chunks, b"\nnext\n")
    assert lines == kept
    assert [line[:4] for line in lines] == ["xxxx", "next"]
    assert len(lines[0]) < 10_000


def test_a_password_where_a_line_is_cut_is_left_out() -> None:
    lines, _ = tail_of(b"x" * 4078 + b" https://user:secret@index.example/simple")
    assert "user" not in lines[0]
