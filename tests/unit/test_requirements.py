"""Requirements files as people write them, and as they get them wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from layerbuild.errors import UsageError
from layerbuild.requirements import logical_lines, normal_requirement, read_requirements_file

HASH_A = "sha256:" + "a" * 64
HASH_B = "sha256:" + "b" * 64


def write(folder: Path, text: str, name: str = "reqs.txt") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def names(path: Path) -> list[str]:
    return [entry.requirement for entry in read_requirements_file(path)[0]]


def refused(path: Path) -> UsageError:
    with pytest.raises(UsageError) as caught:
        read_requirements_file(path)
    return caught.value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("demo\n", ["demo"]),
        ("demo", ["demo"]),
        ("# a comment\n\n   # another\ndemo  # why\n", ["demo"]),
        ("demo>=1,\\\n  <2\nother\n", ["demo<2,>=1", "other"]),
        ("demo \\\n# a comment ends it\nother\n", ["demo", "other"]),
        ("# not continued \\\ndemo\n", ["demo"]),
        ("demo # not part of it \\", ["demo"]),
        ("demo \\", ["demo"]),
        ("\ufeffdemo\n", ["demo"]),
        ("demo\r\nother\r\n", ["demo", "other"]),
        ("demo \\\r\n  >=1\r\n", ["demo>=1"]),
        ("demo[extra] >= 1 ; python_version < '3.12'\n", ['demo[extra]>=1; python_version < "3.12"']),
        ("Demo_X==1.0\n", ["Demo_X==1.0"]),
    ],
)
def test_a_requirements_file_is_read_as_pip_reads_it(tmp_path: Path, text: str, expected: list[str]) -> None:
    assert names(write(tmp_path, text)) == expected


def test_lines_keep_the_number_where_they_began() -> None:
    text = "# head\n\none \\\n  ==1\ntwo\n\nthree \\"
    assert [number for number, _ in logical_lines(text)] == [3, 5, 7]


@pytest.mark.parametrize(
    "text",
    [
        f"demo==1.0 --hash={HASH_B} --hash={HASH_A}\n",
        f"demo==1.0 --hash {HASH_A} --hash {HASH_B}\n",
        f"demo==1.0 \\\n    --hash={HASH_A} \\\n    --hash={HASH_B}\n    # via web\n",
    ],
)
def test_hashes_belong_to_the_requirement_of_their_line(tmp_path: Path, text: str) -> None:
    (entry,) = read_requirements_file(write(tmp_path, text))[0]
    assert entry.requirement == "demo==1.0"
    assert entry.hashes == (HASH_A, HASH_B)


@pytest.mark.parametrize("option", ["-r sub/more.txt", "-rsub/more.txt", "--requirement=sub/more.txt"])
def test_included_files_are_found_beside_the_file_that_includes_them(tmp_path: Path, option: str) -> None:
    write(tmp_path, "two\n-r deeper/last.txt\n", "sub/more.txt")
    write(tmp_path, "three\n", "sub/deeper/last.txt")
    assert names(write(tmp_path, f"one\n{option}\nfour\n")) == ["one", "two", "three", "four"]


@pytest.mark.parametrize("option", ["-c limits.txt", "-climits.txt", "--constraint limits.txt"])
def test_constraints_restrict_and_ask_for_nothing(tmp_path: Path, option: str) -> None:
    write(tmp_path, "other<2\n-r more.txt\n", "limits.txt")
    write(tmp_path, "third<3\n", "more.txt")
    entries, constraints = read_requirements_file(write(tmp_path, f"demo\n{option}\n"))
    assert [entry.requirement for entry in entries] == ["demo"]
    assert constraints == ("other<2", "third<3")


@pytest.mark.parametrize("include", ["reqs.txt", "./reqs.txt", "../{folder}/reqs.txt", "sub/../reqs.txt"])
def test_a_file_that_includes_itself_is_read_once(tmp_path: Path, include: str) -> None:
    (tmp_path / "sub").mkdir()
    path = write(tmp_path, f"demo\n-r {include.format(folder=tmp_path.name)}\n")
    assert names(path) == ["demo"]


def test_two_files_that_include_each_other_are_read_once(tmp_path: Path) -> None:
    write(tmp_path, "two\n-r reqs.txt\n", "more.txt")
    assert names(write(tmp_path, "one\n-r more.txt\n")) == ["one", "two"]


def test_every_line_that_has_no_place_is_reported_with_its_number(tmp_path: Path) -> None:
    write(tmp_path, "fine\n--pre\n", "more.txt")
    path = write(
        tmp_path,
        "demo\n--index-url https://example.org/simple\n-e ./here\n\n"
        "web @ https://example.org/web.whl\n./local.whl\n-r more.txt\nnot a name\n--find-links=x\n-r 'open\n",
    )
    error = refused(path)
    assert (error.code, error.exit_code) == ("requirements-invalid", 2)
    assert [cause.split(": ")[0] for cause in error.causes] == [
        *(f"{path} line {number}" for number in (2, 3, 5, 6)),
        f"{tmp_path / 'more.txt'} line 2",
        *(f"{path} line {number}" for number in (8, 9, 10)),
    ]
    told = "\n".join(error.causes)
    for what in ("--index-url", "-e", "'web' names a URL", "'./local.whl'", "--pre", "'not a name'", "--find-links"):
        assert what in told


@pytest.mark.parametrize(
    "line",
    [
        "https://example.org/demo-1.0-py3-none-any.whl",
        "git+https://example.org/demo.git",
        "../demo",
        "./demo-1.0-py3-none-any.whl",
        "demo @ file:///srv/demo.whl",
        "-e .",
        "--editable=.",
        "-r",
        "demo==",
        "demo==one",
        "demo=1",
    ],
)
def test_what_is_not_a_package_of_the_index_is_refused(tmp_path: Path, line: str) -> None:
    error = refused(write(tmp_path, f"demo\n{line}\n"))
    assert error.code == "requirements-invalid"
    (cause,) = error.causes
    assert " line 2: " in cause


@pytest.mark.parametrize("text", ["", "# nothing\n\n", "-c limits.txt\n"])
def test_a_file_without_a_package_is_refused(tmp_path: Path, text: str) -> None:
    write(tmp_path, "demo<2\n", "limits.txt")
    error = refused(write(tmp_path, text))
    assert error.code == "requirements-invalid"
    assert "names no package" in error.what


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    error = refused(tmp_path / "reqs.txt")
    assert error.code == "file-not-found"
    assert str(tmp_path / "reqs.txt") in error.what


def test_a_missing_included_file_is_named(tmp_path: Path) -> None:
    error = refused(write(tmp_path, "-r nowhere.txt\n"))
    assert error.code == "file-not-found"
    assert "nowhere.txt" in error.what


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "reqs.txt"
    path.write_bytes("demo  # für\n".encode("latin-1"))
    error = refused(path)
    assert error.code == "file-not-readable"
    assert str(path) in error.what


def test_a_folder_is_not_a_requirements_file(tmp_path: Path) -> None:
    assert refused(tmp_path).code == "file-not-readable"


@pytest.mark.parametrize("text", ["demo==1.0", "demo>=1,<2", "demo[a,b]==1.*", "demo; os_name == 'posix'"])
def test_the_normal_form_is_its_own_normal_form(text: str) -> None:
    once = normal_requirement(text)
    assert normal_requirement(once) == once
