"""Locks: reading back what was written, refusing what is none, and saying when one no longer fits."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerbuild.errors import BuildError
from layerbuild.lock import (
    Lock,
    Pin,
    find_lock,
    lock_misfits,
    lock_paths,
    normal_name,
    parse_lock,
    read_lock,
    recipe_inputs,
    write_lock,
)
from layerbuild.recipe import Recipe, recipe_of_requirements
from layerbuild.target import Target, select_targets

A, B = "a" * 64, "b" * 64
(X86,) = select_targets(["python3.12-x86_64"])
(ARM,) = select_targets(["python3.12-arm64"])
(NEW,) = select_targets(["python3.13-x86_64"])


def lock(text: str, target: Target = X86) -> Lock:
    return parse_lock(text, target)


def line(requirement: str, *hashes: str) -> str:
    return " ".join([requirement, *(f"--hash=sha256:{text}" for text in hashes or (A,))]) + "\n"


def problems(text: str) -> tuple[str, ...]:
    with pytest.raises(BuildError) as caught:
        lock(text)
    assert (caught.value.code, caught.value.exit_code) == ("lock-invalid", 3)
    return caught.value.causes


def recipe(*requirements: str, constraints: tuple[str, ...] = (), folder: Path | None = None) -> Recipe:
    return Recipe(name="web", requirements=requirements, constraints=constraints, folder=folder)


NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True).map(normal_name)
VERSIONS = st.from_regex(r"(0|[1-9][0-9]?)(\.(0|[1-9][0-9]?)){0,3}(rc[0-9]|\.post[0-9]|\.dev[0-9])?", fullmatch=True)
HASHES = st.lists(st.text("0123456789abcdef", min_size=64, max_size=64), min_size=1, max_size=3, unique=True)
PINS = st.dictionaries(NAMES, st.tuples(VERSIONS, HASHES), max_size=6)


@given(PINS, st.sampled_from(["\n", "\r\n"]))
@settings(deadline=None)
def test_what_pip_compile_writes_is_read_back(pins: dict[str, tuple[str, list[str]]], newline: str) -> None:
    blocks = [
        " \\\n    ".join([f"{name}=={version}", *(f"--hash=sha256:{text}" for text in hashes)])
        + "\n    # via\n    #   recipe.toml\n    #   other"
        for name, (version, hashes) in pins.items()
    ]
    source = recipe("demo>=1", "other", constraints=("third<3",))
    text = write_lock(source, X86, "uv 1.0", "\n".join(blocks)).replace("\n", newline)

    found = lock(text)

    assert found.inputs == recipe_inputs(source)
    assert found.pins == tuple(
        Pin(name=name, version=version, hashes=tuple(sorted(hashes)))
        for name, (version, hashes) in sorted(pins.items())
    )


SCRAPS = st.sampled_from(
    [
        *("demo", "==", "===", "1.0", "*", "[e]", ",", ";", "(", ")", " # ", "\\\n", "\n", "\x00", "\u2028"),
        *(" --hash=sha256:", A, " --hash=md5:1", "@ file:///x", "-r x"),
        *(" python_version", " os_name", " ~= ", " and ", "'3'"),
    ]
)


@given(st.one_of(st.text(), st.lists(SCRAPS, max_size=12).map("".join)))
@settings(deadline=None)
def test_any_text_is_a_lock_or_an_error_of_ours(text: str) -> None:
    with suppress(BuildError):
        assert isinstance(lock(text), Lock)


@pytest.mark.parametrize(
    ("marker", "target", "holds"),
    [
        ("python_version < '3.13'", X86, True),
        ("python_version < '3.13'", NEW, False),
        ("platform_machine == 'aarch64'", ARM, True),
        ("platform_machine == 'aarch64'", X86, False),
        ("platform_machine == 'x86_64'", X86, True),
        ("sys_platform == 'linux'", X86, True),
        ("sys_platform == 'win32'", X86, False),
        ("python_full_version >= '3.12.3' and os_name == 'posix'", X86, True),
        ("extra == 'all'", X86, False),
    ],
)
def test_markers_are_evaluated_for_the_target_and_not_for_this_machine(
    marker: str, target: Target, holds: bool
) -> None:
    found = lock(line(f"demo==1.0 ; {marker}"), target)
    assert [str(pin) for pin in found.pins] == (["demo==1.0"] if holds else [])


def test_one_distribution_may_have_a_pin_per_kind_of_target() -> None:
    text = line("demo==1.0 ; python_version < '3.13'") + line("demo==2.0 ; python_version >= '3.13'", B)
    assert str(lock(text).pins[0]) == "demo==1.0"
    assert str(lock(text, NEW).pins[0]) == "demo==2.0"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (line("demo==1.0") + line("Demo==2.0"), "line 2: demo is pinned twice"),
        (line("demo==1.0") + line("demo==1.0", B), "line 2: demo is pinned twice"),
        (line("demo>=1.0"), "line 1: demo>=1.0 is not pinned with =="),
        (line("demo"), "line 1: demo is not pinned with =="),
        (line("demo==1.*"), "line 1: demo==1.* is not pinned with =="),
        (line("demo==1.0,>0.5"), "is not pinned with =="),
        ("\n# x\ndemo==1.0\n", "line 3: demo==1.0 has no --hash"),
        ("demo==1.0 --hash=sha256:abc\n", "hashes must be sha256:<64 hex digits>"),
        (f"demo==1.0 --hash=sha256:{'g' * 64}\n", "hashes must be sha256:<64 hex digits>"),
        (f"demo==1.0 --hash=md5:{'a' * 32}\n", "hashes must be sha256:<64 hex digits>"),
        (line("demo==1.0 ; os_name ~= 'posix'"), "line 1: "),
        (line("-e ."), "line 1: "),
        (line("demo @ https://example.org/demo.whl"), "names a URL"),
        (line("demo==latest"), "line 1: "),
    ],
)
def test_what_is_not_a_pin_with_hashes_is_refused(text: str, expected: str) -> None:
    (cause,) = problems(text)
    assert expected in cause


def test_all_problems_of_a_lock_are_reported_together() -> None:
    causes = problems(line("demo") + line("fine==1") + "other==2\n" + line("third==3.*"))
    assert [cause.split(":")[0] for cause in causes] == ["line 1", "line 3", "line 4"]


def test_further_hash_algorithms_are_no_obstacle() -> None:
    (pin,) = lock(f"demo==1.0 --hash=sha512:{'c' * 128} --hash=sha256:{A}\n").pins
    assert pin.hashes == (A,)


@pytest.mark.parametrize("pinned", ["demo===1.0", "Demo[extra]==1.0", "DEMO == 1.0"])
def test_pins_may_be_spelt_in_several_ways(pinned: str) -> None:
    assert lock(line(pinned)).pins == (Pin(name="demo", version="1.0", hashes=(A,)),)


def test_the_digest_ignores_comments_line_ends_and_order() -> None:
    plain = line("demo==1.0", A, B) + line("other==2.0")
    variants = [
        "# a comment\n" + plain,
        plain.replace("\n", "\r\n"),
        line("other==2.0") + f"demo==1.0 \\\n    --hash=sha256:{B} \\\n    --hash=sha256:{A}\n    # via web\n",
    ]
    assert {lock(text).digest for text in variants} == {lock(plain).digest}


@pytest.mark.parametrize(
    "other", [line("demo==1.1"), line("demo==1.0", B), line("demo==1.0", A, B), line("demo2==1.0"), ""]
)
def test_the_digest_tells_different_locks_apart(other: str) -> None:
    assert lock(line("demo==1.0")).digest != lock(other).digest


def test_a_lock_fits_the_recipe_that_it_was_made_from() -> None:
    source = recipe("demo>=1", "gone; sys_platform == 'win32'", constraints=("other<3", "absent<1"))
    text = write_lock(source, X86, "uv 1", line("demo==1.2rc1") + line("other==2.0"))
    assert lock_misfits(lock(text), source, X86) == []


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (recipe("demo>=1", "new"), ["the lock does not know of new", "new is not in the lock"]),
        (recipe("new"), ["the recipe no longer says demo>=1", "the lock does not know of new", "new is not in"]),
        (recipe("demo>=2"), ["no longer says demo>=1", "not know of demo>=2", "demo is locked at 1.5, the recipe"]),
        (recipe("demo>=1", constraints=("demo<1.5",)), ["not know of demo<1.5", "demo is locked at 1.5, the recipe"]),
        (recipe("demo>=1", constraints=("else<2",)), ["the lock does not know of else<2"]),
    ],
)  # fmt: skip
def test_a_lock_that_no_longer_fits_says_why(changed: Recipe, expected: list[str]) -> None:
    found = lock(write_lock(recipe("demo>=1"), X86, "uv 1", line("demo==1.5")))
    said = lock_misfits(found, changed, X86)
    assert len(said) == len(expected)
    for sentence, part in zip(said, expected, strict=True):
        assert part in sentence


def test_a_lock_without_header_is_judged_by_its_pins_alone() -> None:
    found = lock(line("demo==1.5"))
    assert found.inputs is None
    assert lock_misfits(found, recipe("demo>=1"), X86) == []
    assert lock_misfits(found, recipe("demo<1"), X86) == ["demo is locked at 1.5, the recipe wants <1"]


def test_a_marker_decides_per_target_whether_a_requirement_must_be_locked() -> None:
    wanted = recipe("demo; platform_machine == 'aarch64'")
    assert lock_misfits(lock(""), wanted, X86) == []
    assert lock_misfits(lock("", ARM), wanted, ARM) == ["demo is not in the lock"]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path


def test_a_recipes_locks_lie_beside_it(tmp_path: Path) -> None:
    own = recipe("demo", folder=tmp_path / "recipes/web")
    assert lock_paths(own, X86, tmp_path) == [tmp_path / "recipes/web/locks/python3.12-x86_64.txt"]
    assert find_lock(own, X86, tmp_path) is None
    path = write(lock_paths(own, X86, tmp_path)[0], line("demo==1.0"))
    found = find_lock(own, X86, tmp_path)
    assert found
    assert found[1] == path
    assert str(found[0].pins[0]) == "demo==1.0"
    assert find_lock(own, ARM, tmp_path) is None


def test_a_shipped_recipes_lock_serves_until_the_project_has_its_own(tmp_path: Path) -> None:
    shipped = Recipe(name="web", requirements=("demo",), folder=tmp_path / "shipped/web", shipped=True)
    project = tmp_path / "project"
    beside = write(tmp_path / "shipped/web/locks/python3.12-x86_64.txt", line("demo==1.0"))
    found = find_lock(shipped, X86, project)
    assert found
    assert found[1] == beside
    own = write(project / "locks/web/python3.12-x86_64.txt", line("demo==2.0"))
    assert lock_paths(shipped, X86, project) == [own, beside]
    found = find_lock(shipped, X86, project)
    assert found
    assert (found[1], str(found[0].pins[0])) == (own, "demo==2.0")


def test_a_requirements_file_has_its_lock_in_the_project(tmp_path: Path) -> None:
    source = tmp_path / "reqs.txt"
    source.write_text("demo\n")
    plain = recipe_of_requirements(source, "web")
    assert lock_paths(plain, X86, tmp_path) == [tmp_path / "locks/web/python3.12-x86_64.txt"]
    assert find_lock(plain, X86, tmp_path) is None


def test_a_requirements_file_with_pins_and_hashes_is_its_own_lock(tmp_path: Path) -> None:
    source = tmp_path / "reqs.txt"
    source.write_text(f"demo==1.0 \\\n  --hash=sha256:{A}\nother==2 ; python_version < '3.13' --hash=sha256:{B}\n")
    pinned = recipe_of_requirements(source, "web")
    for target, names in ((X86, ["demo==1.0", "other==2"]), (NEW, ["demo==1.0"])):
        found = find_lock(pinned, target, tmp_path)
        assert found
        assert found[1] is None
        assert [str(pin) for pin in found[0].pins] == names


def test_a_lock_that_is_not_text_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "lock.txt"
    path.write_bytes(b"demo==1.0 \xff")
    with pytest.raises(BuildError) as caught:
        read_lock(path, X86)
    assert caught.value.code == "lock-invalid"
    assert str(path) in caught.value.what


def test_the_header_says_how_to_update_the_lock_of_a_recipe(tmp_path: Path) -> None:
    text = write_lock(recipe("demo", folder=tmp_path), X86, "uv 1.2", "\n\ndemo==1\n\n")
    assert text.splitlines()[:2] == [
        "# web for python3.12-x86_64, locked by layerbuild with uv 1.2.",
        "# To update: layerbuild lock web --upgrade",
    ]
    assert text.endswith("\ndemo==1\n")
