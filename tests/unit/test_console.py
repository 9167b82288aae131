"""What a user sees: aligned tables, colours and bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import pytest

from layerbuild.console import Console, readable_size
from layerbuild.errors import BuildError
from tests.conftest import Ran
from tests.index_server import IndexServer
from tests.wheels import make_wheel

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_terminal(*arguments: str, columns: int = 80, env: dict[str, str] | None = None) -> tuple[int, str]:
    """Runs layerbuild on a terminal of its own; its exit code and everything that the terminal was sent."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "layerbuild", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color", **(env or {})},
    )
    os.close(theirs)
    output = b""
    while True:
        try:
            chunk = os.read(ours, 1 << 16)
        except OSError:  # Linux's way to say that nobody has the terminal open any more
            break
        if not chunk:
            break
        output += chunk
    os.close(ours)
    return process.wait(), output.decode()


def shown_lines(output: str) -> list[str]:
    """Every line that was visible at any time, without colours and cursor movements."""
    return [ESCAPE.sub("", line).rstrip() for line in re.split(r"[\r\n]+", output)]


@pytest.fixture
def recipe(project: Path, wheelhouse: Path, index_server: IndexServer) -> Path:
    """A recipe whose one wheel takes half a second to download."""
    make_wheel(wheelhouse, "demo", files={"demo/__init__.py": "", "demo/data.bin": os.urandom(600_000)})
    index_server.chunk_delay = 0.06
    folder = project / "recipes/demo"
    folder.mkdir(parents=True)
    (folder / "recipe.toml").write_text('name = "demo"\nrequirements = ["demo"]\n')
    return folder


def test_make_shows_colours_and_progress_on_a_terminal(recipe: Path) -> None:
    code, output = on_terminal("make", "demo", "--target", "python3.12-arm64", columns=100)
    assert code == 0, output
    assert "\x1b[1mlayer " in output
    bars = [line for line in shown_lines(output) if line.startswith("demo-1.0-py3-none-any.whl") and "━" in line]
    assert any("kB" in line or "MB" in line for line in bars)
    assert "downloading demo" not in output
    assert output.rindex("\x1b[?25h") > output.rindex("\x1b[?25l")


def test_no_line_is_longer_than_a_terminal_of_80_columns(recipe: Path) -> None:
    code, output = on_terminal("make", "demo", "--target", "python3.12-arm64", "--target", "python3.13-x86_64")
    assert code == 0, output
    assert "━" in output
    assert [line for line in shown_lines(output) if len(line) > 80] == []


@pytest.mark.parametrize("arguments", [("cache",), ("make", "--help"), ("nonsense",)])
def test_other_commands_fit_a_terminal_of_80_columns_too(project: Path, arguments: tuple[str, ...]) -> None:
    _, output = on_terminal(*arguments)
    assert [line for line in shown_lines(output) if len(line) > 80] == []


def test_errors_are_red_on_a_terminal(project: Path) -> None:
    code, output = on_terminal("make", "nonsense")
    assert code == 2
    assert "\x1b[31merror: \x1b[0mthere is no recipe 'nonsense'" in output


def test_no_color_means_no_colour(recipe: Path) -> None:
    _, output = on_terminal("make", "nonsense", env={"NO_COLOR": "1"})
    assert "\x1b" not in output
    code, output = on_terminal("make", "demo", "--target", "python3.12-arm64", env={"NO_COLOR": "1"})
    assert code == 0
    assert re.findall(r"\x1b\[[0-9;]*m", output) == []


@pytest.mark.parametrize("env", [{"CI": "true"}, {"TERM": "dumb"}])
def test_nothing_moves_where_no_person_watches(recipe: Path, env: dict[str, str]) -> None:
    code, output = on_terminal("make", "demo", "--target", "python3.12-arm64", env=env)
    assert code == 0
    assert "downloading demo-1.0-py3-none-any.whl" in output
    assert "━" not in output
    assert "\x1b[?25l" not in output


def test_a_warning_during_downloads_is_shown_whole(recipe: Path) -> None:
    with (recipe / "recipe.toml").open("a") as file:
        file.write('[prune]\npatterns = ["nothing"]\n')
    _, output = on_terminal("make", "demo", "--target", "python3.9-arm64")
    text = " ".join(shown_lines(output))
    assert "warning: python3.9 was deprecated by AWS on 2025-12-15" in text
    assert "the prune pattern 'nothing' matches nothing" in text


def test_a_download_is_one_plain_line_without_a_terminal(recipe: Path, cli: Callable[..., Ran]) -> None:
    ran = cli("make", "demo", "--target", "python3.12-arm64")
    assert ran.code == 0
    assert ran.err.splitlines().count("downloading demo-1.0-py3-none-any.whl") == 1
    assert "\x1b" not in ran.out + ran.err


def test_quiet_leaves_results_and_warnings(recipe: Path, cli: Callable[..., Ran]) -> None:
    ran = cli("--quiet", "make", "demo", "--target", "python3.9-arm64")
    assert ran.code == 0
    (line,) = ran.err.splitlines()
    assert line.startswith("warning: python3.9 was deprecated by AWS on 2025-12-15")
    assert ran.out.startswith("layer ")


def test_tables_are_aligned_with_numbers_to_the_right(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [["a", "1.0 MB", "x"], ["longer", "100.0 MB", ""]]
    Console().table(("name", "size", "last"), rows, numbers=("size",))
    assert capsys.readouterr().out.splitlines() == [
        "name        size  last",
        "a         1.0 MB  x",
        "longer  100.0 MB",
    ]


def test_a_table_without_rows_is_its_heading(capsys: pytest.CaptureFixture[str]) -> None:
    Console().table(("name", "size"), [])
    assert capsys.readouterr().out == "name  size\n"


def test_an_error_tells_what_why_and_what_next(capsys: pytest.CaptureFixture[str]) -> None:
    Console(quiet=True).error(BuildError("a-code", "it broke", causes=["one", "two"], hint="do this"))
    assert capsys.readouterr().err == "error: it broke [a-code]\n  one\n  two\nhint: do this\n"


def test_an_error_is_a_json_document_on_request(project: Path, cli: Callable[..., Ran]) -> None:
    ran = cli("make", "nonsense", "--json")
    assert ran.code == 2
    (error,) = ran.json.values()
    assert list(ran.json) == ["error"]
    assert error["code"] == "unknown-recipe"
    assert error["exit_code"] == 2
    assert error["what"] == "there is no recipe 'nonsense'"
    assert error["causes"]
    assert "layerbuild recipes" in error["hint"]
    assert "error: there is no recipe 'nonsense' [unknown-recipe]" in ran.err


def test_without_a_terminal_there_is_room_for_paths(recipe: Path, cli: Callable[..., Ran]) -> None:
    ran = cli("make", "demo", "--target", "python3.12-arm64")
    heading, row = ran.out.splitlines()
    assert heading.split()[-1] == "path"
    assert row.endswith("dist/demo-python3.12-arm64.zip")


def test_sizes_are_told_in_decimal_units() -> None:
    told = [readable_size(size) for size in (0, 51_200, 1_000_000, 262_144_000)]
    assert told == ["0 kB", "51 kB", "1.0 MB", "262.1 MB"]
