"""Each rule about stacks, broken and just not broken, over small layers."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import platform
import subprocess
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from layerbuild import modules
from layerbuild.archive import Manifest, Written
from layerbuild.cache import Cache
from layerbuild.checks import Finding, rules
from layerbuild.stack import Stack
from layerbuild.target import Target, select_targets
from layerbuild.tree import Entry, Tree, read_folder, read_zip
from tests.wheels import record_digest

ARCH = "arm64" if platform.machine() in ("aarch64", "arm64") else "x86_64"
(TARGET,) = select_targets([f"python3.12-{ARCH}"])
SITE = "python/lib/python3.12/site-packages"
LIMIT = 262_144_000


class Link(str):
    """What a symbolic link leads to."""

    __slots__ = ()


# Path below /opt to content; None is a folder.
Files = Mapping[str, str | bytes | None]


def write_zip(path: Path, *parts: Files, modes: Mapping[str, int] | None = None) -> Path:
    """A zip of some files, as a program on Linux makes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {name: content for part in parts for name, content in part.items()}.items():
            kind, mode = (0o120000, 0o777) if isinstance(content, Link) else (0o100000, 0o644)
            kind, mode = (0o040000, 0o755) if content is None else (kind, mode)
            info = zipfile.ZipInfo(f"{name}/" if content is None else name, (2024, 1, 1, 0, 0, 0))
            info.external_attr = (kind | (modes or {}).get(name, mode)) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content or b"")
    return path


def write_folder(path: Path, *parts: Files) -> Path:
    """The same as a folder laid out as /opt."""
    path.mkdir(parents=True, exist_ok=True)
    for name, content in {name: content for part in parts for name, content in part.items()}.items():
        place = path / name
        (place if content is None else place.parent).mkdir(parents=True, exist_ok=True)
        if isinstance(content, Link):
            place.symlink_to(content)
        elif content is not None:
            place.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def dist(
    name: str,
    version: str,
    files: Files | None = None,
    *,
    site: str = SITE,
    requires: Sequence[str] = (),
    record: bool = True,
    info: str = "",
) -> dict[str, str | bytes | None]:
    """An installed distribution: its files, METADATA and RECORD."""
    info = info or f"{name.replace('-', '_')}-{version}.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {text}" for text in requires]
    inner: dict[str, str | bytes | None] = {**(files or {}), f"{info}/METADATA": "\n".join(lines) + "\n"}
    if record:
        rows = []
        for path, content in inner.items():
            data = content.encode() if isinstance(content, str) else content or b""
            rows.append(f"{path},{record_digest(data)},{len(data)}")
        inner[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,"]) + "\n"
    return {f"{site}/{path}" if site else path: content for path, content in inner.items()}


def write_manifest(archive: Path, recipe: str, targets: Sequence[Target]) -> None:
    """What stands beside an archive that layerbuild made."""
    data = archive.read_bytes()
    digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
    manifest = Manifest.about(
        Written(code_sha256=digest, size=len(data)),
        recipe=recipe,
        runtimes=list(dict.fromkeys(target.runtime.name for target in targets)),
        architectures=sorted({target.arch for target in targets}),
    )
    manifest.write(archive.with_suffix(".json"))


class Layers:
    """Makes layers, named a.zip, b.zip … in the order in which they are made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made = 0

    def __call__(self, *files: Files, name: str = "") -> Tree:
        name = name or f"{'abcdefghijkl'[self.made]}.zip"
        self.made += 1
        return read_zip(write_zip(self.folder / f"{self.made}" / name, *files), name)


@pytest.fixture
def layers(tmp_path: Path) -> Layers:
    return Layers(tmp_path)


def stack_of(*trees: Tree, function: Tree | None = None, target: Target = TARGET) -> Stack:
    return Stack(layers=trees, target=target, function=function)


def found(stack: Stack, code: str) -> list[Finding]:
    return [one for one in stack.findings() if one.code == code]


def message(stack: Stack, code: str) -> str:
    (finding,) = found(stack, code)
    return finding.message


def codes(stack: Stack) -> set[str]:
    return {one.code for one in stack.findings()}


def errors(stack: Stack) -> set[str]:
    return {one.code for one in stack.findings() if one.severity == "error"}


def sized(name: str, size: int) -> Tree:
    """A layer of one file of a size that nobody has to write."""
    path = f"python/{name}.bin"
    return Tree(name=name, entries={path: Entry(path, "file", 0o644, size, name, {})}, distributions=())


def shared_library(folder: Path, name: str, *needs: Path, machine: int | None = None) -> bytes:
    """A real ELF library that needs others; `machine` is written over its own."""
    folder.mkdir(parents=True, exist_ok=True)
    source, made = folder / f"{name}.c", folder / name
    source.write_text(f"int of_{hashlib.sha256(name.encode()).hexdigest()[:8]}(void) {{ return 1; }}\n")
    command = ["gcc", "-shared", "-fPIC", "-nostdlib", "-Wl,-z,noexecstack", "-Wl,--no-as-needed"]
    done = subprocess.run([*command, f"-Wl,-soname,{name}", "-o", made, source, *needs], capture_output=True)
    assert done.returncode == 0, done.stderr
    data = bytearray(made.read_bytes())
    if machine is not None:
        data[18:20] = machine.to_bytes(2, "little")
    return bytes(data)


# For each rule the smallest pair: layers that break it, and nearly the same ones that do not.


def too_many(layers: Layers, broken: bool) -> list[Finding]:
    return stack_of(*(layers({f"python/m{number}.py": ""}) for number in range(6 if broken else 5))).findings()


def size(layers: Layers, broken: bool) -> list[Finding]:
    function = sized("function", LIMIT - 3 if broken else LIMIT - 4)
    return stack_of(sized("a", 1), sized("b", 2), function=function).findings()


def targets(layers: Layers, broken: bool) -> list[Finding]:
    from layerbuild.cli.stack import stacks_of

    one = write_zip(layers.folder / "one.zip", {f"{SITE}/one.py": ""})
    other = write_zip(layers.folder / "other.zip", {f"{SITE.replace('12', '13' if broken else '12')}/two.py": ""})
    (stacked,) = stacks_of([str(one), str(other)], None, (), layers.folder, Cache(layers.folder / "cache"))
    return stacked.findings


def two_versions(layers: Layers, broken: bool) -> list[Finding]:
    trees = layers({"python/a.py": ""}), layers({"python/b.py": ""})
    return Stack(layers=trees, target=TARGET, identities=("one", "one" if broken else "two")).findings()


def identical(layers: Layers, broken: bool) -> list[Finding]:
    return stack_of(layers({"python/a.py": "1"}), layers({"python/a.py": "1" if broken else "2"})).findings()


def conflict(layers: Layers, broken: bool) -> list[Finding]:
    return stack_of(layers({"python/a.py": "1"}), layers({"python/a.py": "2" if broken else "1"})).findings()


def kind(layers: Layers, broken: bool) -> list[Finding]:
    other = "python/a/b.py" if broken else "python/c/b.py"
    return stack_of(layers({"python/a": "1"}), layers({other: ""})).findings()


def torn(layers: Layers, broken: bool) -> list[Finding]:
    one = dist("foo", "1.0", {"foo.py": "1", "old.py" if broken else "new.py": "1"})
    return stack_of(layers(one), layers(dist("foo", "2.0", {"foo.py": "2", "new.py": "2"}))).findings()


def two_dist_infos(layers: Layers, broken: bool) -> list[Finding]:
    other = dist("foo", "2.0" if broken else "1.0", {"foo.py": ""})
    return stack_of(layers(dist("foo", "1.0", {"foo.py": ""})), layers(other)).findings()


def shadow(layers: Layers, broken: bool) -> list[Finding]:
    return stack_of(layers({"python/a.py": ""}), layers({f"{SITE}/{'a' if broken else 'b'}.py": ""})).findings()


def requirement(layers: Layers, broken: bool) -> list[Finding]:
    app = layers(dist("app", "1.0", {"app.py": ""}, requires=["foo>=2"]))
    return stack_of(app, layers(dist("foo", "1.9" if broken else "2.0", {"foo.py": ""}))).findings()


def needs_layer(layers: Layers, broken: bool) -> list[Finding]:
    foo = dist("foo", "1.0", {"foo.py": ""})
    app = dist("app", "1.0", {"app.py": ""}, requires=["foo"])
    trees = (layers(app), layers(foo)) if broken else (layers(app, foo), layers({"python/a.py": ""}))
    return stack_of(*trees).findings()


CASES: dict[str, Callable[[Layers, bool], list[Finding]]] = {
    "stack-too-many": too_many,
    "stack-size": size,
    "stack-targets": targets,
    "stack-two-versions": two_versions,
    "stack-identical": identical,
    "stack-conflict": conflict,
    "stack-kind": kind,
    "stack-torn": torn,
    "stack-two-dist-infos": two_dist_infos,
    "stack-shadow": shadow,
    "stack-requirement": requirement,
    "stack-needs-layer": needs_layer,
}


@pytest.mark.parametrize("broken", [True, False], ids=["broken", "kept"])
@pytest.mark.parametrize("code", list(CASES))
def test_a_rule_tells_what_breaks_it_from_what_nearly_does(code: str, broken: bool, layers: Layers) -> None:
    assert (code in {finding.code for finding in CASES[code](layers, broken)}) is broken


def test_every_rule_about_stacks_has_both_cases(layers: Layers) -> None:
    assert set(CASES) == {code for code in rules() if code.startswith("stack-")}
    for code, case in CASES.items():
        for broken in (True, False):
            findings = case(Layers(layers.folder / code / str(broken)), broken)
            for finding in findings:
                assert finding.severity == rules()[finding.code].severity
                assert finding.message
            assert any(finding.code == code for finding in findings) is broken


# Limits.


def test_too_many_layers_are_counted_without_the_function(layers: Layers) -> None:
    trees = [layers({f"python/m{number}.py": ""}) for number in range(6)]
    assert message(stack_of(*trees), "stack-too-many") == "there are 6 layers; a function takes 5"
    assert not found(stack_of(*trees[:5], function=trees[5]), "stack-too-many")


@pytest.mark.parametrize(("total", "refused"), [(LIMIT - 1, False), (LIMIT, True), (LIMIT + 1, True)])
def test_the_size_is_the_sum_of_layers_and_function(total: int, refused: bool) -> None:
    stack = stack_of(sized("a", 100_000_000), sized("b", 100_000_000), function=sized("f", total - 200_000_000))
    assert stack.unzipped == total
    assert bool(found(stack, "stack-size")) is refused
    if refused:
        told = message(stack, "stack-size")
        assert f"{total:,} bytes in all" in told
        assert told.index("a 100.0 MB") < told.index("the function 62.1 MB")


def test_the_size_counts_what_is_replaced(layers: Layers) -> None:
    one = sized("same", LIMIT // 2)
    assert found(stack_of(one, one), "stack-size")
    assert not found(stack_of(one), "stack-size")


def test_one_layer_three_times_is_told_for_each(layers: Layers) -> None:
    trees = tuple(layers({f"python/m{number}.py": ""}) for number in range(4))
    stack = Stack(layers=trees, target=TARGET, identities=("x", None, "x", "x"))
    assert [one.message for one in found(stack, "stack-two-versions")] == [
        "layers 1 and 3 are both x",
        "layers 1 and 4 are both x",
    ]
    assert not found(Stack(layers=trees, target=TARGET, identities=(None,) * 4), "stack-two-versions")


# Paths that several layers carry.


def test_the_last_layer_wins_a_conflict_and_all_others_lose_it(layers: Layers) -> None:
    trees = [layers({"python/a.py": text, f"python/{text}.py": ""}) for text in ("one", "two", "three")]
    stack = stack_of(*trees)
    assert message(stack, "stack-conflict") == "c.zip replaces python/a.py of a.zip and b.zip"
    (carried,) = [one for one in stack.carried if one.path == "python/a.py"]
    assert (carried.layers, carried.winner, carried.identical) == ((0, 1, 2), 2, False)
    assert stack.merged.read("python/a.py") == b"three"
    assert stack.winners["python/one.py"] == 0
    other = stack.reordered((2, 0, 1))
    assert message(other, "stack-conflict") == "b.zip replaces python/a.py of c.zip and a.zip"
    assert other.merged.read("python/a.py") == b"two"


def test_a_layer_between_that_carries_the_path_not_is_no_part_of_a_conflict(layers: Layers) -> None:
    trees = layers({"bin/x": "1"}), layers({"bin/y": "1"}), layers({"bin/x": "2"})
    assert message(stack_of(*trees), "stack-conflict") == "c.zip replaces bin/x of a.zip"


def test_conflicts_are_told_once_per_package(layers: Layers) -> None:
    old, new = ({f"foo/m{number}.py": text for number in range(5)} for text in ("1", "2"))
    one = layers(dist("foo", "1.0", old), {"python/own.py": "1"})
    other = layers(dist("foo", "2.0", new), {"python/own.py": "2"})
    findings = {finding.package: finding for finding in found(stack_of(one, other), "stack-conflict")}
    assert set(findings) == {"foo 2.0", None}
    assert "5 files, such as" in findings["foo 2.0"].message
    assert findings[None].path == "python/own.py"


def test_the_same_bytes_are_no_conflict_but_wasted(layers: Layers) -> None:
    shared = dist("foo", "1.0", {"foo/__init__.py": "x" * 1000})
    stack = stack_of(*(layers(shared) for _ in range(3)))
    assert codes(stack) == {"stack-identical"}
    wasted = 2 * sum(entry.size for entry in stack.layers[0].entries.values())
    expected = f"a.zip and b.zip and c.zip carry the same 3 files, {wasted:,} bytes more than once: foo 1.0"
    assert message(stack, "stack-identical") == expected


def test_identical_files_name_three_packages_and_count_the_rest(layers: Layers) -> None:
    shared = [dist(f"foo{number}", "1.0", {f"foo{number}.py": ""}) for number in range(5)]
    told = message(stack_of(layers(*shared), layers(*shared)), "stack-identical")
    assert told.endswith(": foo0 1.0, foo1 1.0, foo2 1.0 and 2 more")


def test_one_differing_layer_of_three_makes_a_conflict(layers: Layers) -> None:
    stack = stack_of(*(layers({"bin/x": text}) for text in ("1", "1", "2")))
    assert codes(stack) == {"stack-conflict"}


def test_links_are_the_same_where_they_lead_to_the_same(layers: Layers) -> None:
    one, same, other = (layers({"lib/x.so": Link(target), target: "1"}) for target in ("x1", "x1", "x2"))
    assert "stack-conflict" not in codes(stack_of(one, same))
    findings = found(stack_of(one, other), "stack-conflict")
    assert [finding.path for finding in findings] == ["lib/x.so"]


def test_layers_that_are_named_alike_are_told_apart(layers: Layers) -> None:
    trees = layers({"bin/x": "1"}, name="same.zip"), layers({"bin/x": "2"}, name="same.zip")
    told = message(stack_of(*trees), "stack-conflict")
    assert told == "same.zip (layer 2) replaces bin/x of same.zip (layer 1)"


KINDS: dict[str, Files] = {
    "file": {"python/a": "1"},
    "symlink": {"python/a": Link("b"), "python/b": "1"},
    "folder": {"python/a": None, "python/a/c.py": "1"},
    "implicit folder": {"python/a/c.py": "1"},
    "empty folder": {"python/a": None},
}


@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("second", KINDS)
def test_a_path_of_two_kinds(first: str, second: str, layers: Layers) -> None:
    stack = stack_of(layers(KINDS[first]), layers(KINDS[second]))
    plain = [name.split()[-1] for name in (first, second)]
    if plain[0] == plain[1]:
        assert not found(stack, "stack-kind")
        return
    expected = f"python/a is a {plain[0]} in a.zip and a {plain[1]} in b.zip"
    assert message(stack, "stack-kind") == expected
    (finding,) = found(stack, "stack-kind")
    assert (finding.path, finding.severity) == ("python/a", "error")
    # Nothing of the merged view lies below what is no folder.
    entries = stack.merged.entries
    above = entries.get("python/a")
    assert above is None or above.kind == "folder" or "python/a/c.py" not in entries
    assert stack.findings() == sorted(
        stack.findings(), key=lambda one: ["error", "warning", "note"].index(one.severity)
    )


def test_a_folder_in_a_folder_layer_and_a_file_in_a_zip(tmp_path: Path, layers: Layers) -> None:
    folder = read_folder(write_folder(tmp_path / "opt", {"python/a/b.py": ""}), "opt/")
    assert message(stack_of(layers({"python/a": ""}), folder), "stack-kind").endswith("a folder in opt/")


def test_a_link_to_a_folder_and_a_folder_are_of_two_kinds(layers: Layers) -> None:
    linked = layers({"python/a": Link("../common"), "common/x.py": ""})
    assert "a symlink in a.zip" in message(stack_of(linked, layers({"python/a/y.py": ""})), "stack-kind")


def test_the_middle_one_of_three_layers_differs_in_kind(layers: Layers) -> None:
    trees = layers({"a/x": ""}), layers({"a": ""}), layers({"a/y": ""})
    stack = stack_of(*trees)
    assert message(stack, "stack-kind") == "a is a folder in a.zip and a file in b.zip"
    assert "a" not in stack.winners


# Distributions whose files come from two versions.


def test_files_of_an_older_version_that_stay_tear_a_distribution(layers: Layers) -> None:
    old = layers(dist("foo", "1.0", {"foo/__init__.py": "1", "foo/old.py": "1"}))
    new = layers(dist("foo", "2.0", {"foo/__init__.py": "2", "foo/new.py": "2"}))
    told = message(stack_of(old, new), "stack-torn")
    assert f"{SITE}/foo/old.py is of 1.0 from a.zip" in told
    assert f"{SITE}/foo/__init__.py is of 2.0 from b.zip" in told
    assert found(stack_of(new, old), "stack-torn")


def test_a_distribution_is_torn_among_three_layers(layers: Layers) -> None:
    trees = [layers(dist("foo", f"{n}.0", {"foo/__init__.py": f"{n}", f"foo/only{n}.py": f"{n}"})) for n in (1, 2, 3)]
    told = message(stack_of(*trees), "stack-torn")
    assert all(f"is of {number}.0" in told for number in (1, 2, 3))


def test_a_smaller_version_over_a_larger_one_is_torn_and_not_the_other_way_round(layers: Layers) -> None:
    small = layers(dist("foo", "1.0", {"foo.py": "1"}))
    large = layers(dist("foo", "2.0", {"foo.py": "2", "_foo.py": "2"}))
    assert not found(stack_of(small, large), "stack-torn")
    assert found(stack_of(large, small), "stack-torn")


def test_only_a_dist_info_left_behind_is_not_torn(layers: Layers) -> None:
    one, other = (layers(dist("foo", version, {"foo.py": version})) for version in ("1.0", "2.0"))
    stack = stack_of(one, other)
    assert errors(stack) == {"stack-two-dist-infos"}


def test_files_that_both_versions_have_alike_are_of_neither(layers: Layers) -> None:
    one = layers(dist("foo", "1.0", {"foo.py": "1", "same.py": "same"}))
    other = layers(dist("foo", "2.0", {"foo.py": "2", "same.py": "same"}))
    assert not found(stack_of(one, other), "stack-torn")


def test_bytecode_left_behind_does_not_tear(layers: Layers) -> None:
    one = layers(dist("foo", "1.0", {"foo.py": "1", "__pycache__/bar.cpython-312.pyc": b"1"}))
    assert not found(stack_of(one, layers(dist("foo", "2.0", {"foo.py": "2"}))), "stack-torn")


def test_two_versions_that_share_one_dist_info_folder(layers: Layers) -> None:
    def version(number: str, files: Files) -> Tree:
        return layers(dist("foo", number, files, info="foo.dist-info"))

    left = stack_of(version("1.0", {"foo.py": "1", "old.py": "1"}), version("2.0", {"foo.py": "2"}))
    assert errors(left) == {"stack-torn"}
    replaced = stack_of(version("1.0", {"foo.py": "1"}), version("2.0", {"foo.py": "2", "new.py": "2"}))
    assert not errors(replaced)
    # The metadata of one, and what is left of the other: nothing of 2.0 but what says so.
    misnamed = stack_of(version("1.0", {"foo.py": "1", "old.py": "1"}), version("2.0", {"foo.py": "1"}))
    assert errors(misnamed) == {"stack-torn"}
    told = message(misnamed, "stack-torn")
    assert f"{SITE}/old.py is of 1.0 from" in told
    assert f"{SITE}/foo.dist-info/METADATA is of 2.0 from" in told


def test_the_same_version_twice_is_not_torn(layers: Layers) -> None:
    one = layers(dist("foo", "1.0", {"foo.py": "1", "a.py": ""}))
    other = layers(dist("foo", "1.0", {"foo.py": "2", "b.py": ""}))
    assert not errors(stack_of(one, other))


def test_without_record_nobody_knows_whose_files_are_left(layers: Layers) -> None:
    old = layers(dist("foo", "1.0", {"foo.py": "1", "old.py": "1"}, record=False))
    new = layers(dist("foo", "2.0", {"foo.py": "2"}))
    assert errors(stack_of(old, new)) == {"stack-two-dist-infos"}


def test_what_a_record_lists_and_the_layer_lacks_is_not_left(layers: Layers) -> None:
    old = dist("foo", "1.0", {"foo.py": "1", "old.py": "1"})
    del old[f"{SITE}/old.py"]
    assert not found(stack_of(layers(old), layers(dist("foo", "2.0", {"foo.py": "2"}))), "stack-torn")


def test_across_folders_of_sys_path_only_what_is_imported_counts(layers: Layers) -> None:
    old = layers(dist("foo", "1.0", {"foo/__init__.py": "1", "foo/old.py": "1"}, site="python"))
    new = layers(dist("foo", "2.0", {"foo/__init__.py": "2"}))
    for trees in ((old, new), (new, old)):
        stack = stack_of(*trees)
        assert not errors(stack)
        assert found(stack, "stack-shadow")


def test_across_folders_a_module_that_only_the_old_version_has_tears(layers: Layers) -> None:
    old = layers(dist("foo", "1.0", {"foo.py": "1", "_foo.py": "1"}, site="python"))
    new = layers(dist("foo", "2.0", {"foo.py": "2"}))
    told = message(stack_of(new, old), "stack-torn")
    assert "python/_foo.py is of 1.0 from a.zip" in told
    assert f"{SITE}/foo.py is of 2.0 from b.zip" in told
    whole = layers(dist("foo", "3.0", {"foo.py": "3", "_foo.py": "3"}))
    assert not errors(stack_of(old, whole))


def test_a_data_file_across_folders_does_not_tear(layers: Layers) -> None:
    old = layers(dist("foo", "1.0", {"foo.py": "1", "foo.json": "{}"}, site="python"))
    assert not errors(stack_of(old, layers(dist("foo", "2.0", {"foo.py": "2"}))))


def test_a_namespace_package_joins_two_versions(layers: Layers) -> None:
    old = layers(dist("ns-foo", "1.0", {"ns/a.py": "1"}, site="python"))
    new = layers(dist("ns-foo", "2.0", {"ns/b.py": "2"}))
    told = message(stack_of(old, new), "stack-torn")
    assert "python/ns/a.py is of 1.0" in told
    regular = layers(dist("ns-foo", "2.0", {"ns/__init__.py": "", "ns/b.py": "2"}))
    assert not errors(stack_of(old, regular))
    both = layers(dist("ns-foo", "2.0", {"ns/a.py": "2", "ns/b.py": "2"}))
    assert not errors(stack_of(old, both))


def test_the_function_tears_a_distribution_of_a_layer(layers: Layers) -> None:
    layer = layers(dist("foo", "1.0", {"foo.py": "1", "_foo.py": "1"}))
    function = layers(dist("foo", "2.0", {"foo.py": "2"}, site=""))
    told = message(stack_of(layer, function=function), "stack-torn")
    assert "foo.py is of 2.0 from the function" in told
    assert f"{SITE}/_foo.py is of 1.0 from a.zip" in told
    whole = layers(dist("foo", "2.0", {"foo.py": "2", "_foo.py": "2"}, site=""))
    assert not errors(stack_of(layer, function=whole))


def test_two_versions_within_one_layer_are_two_dist_infos(layers: Layers) -> None:
    both = layers(dist("foo", "1.0", {"old.py": "1"}), dist("foo", "2.0", {"foo.py": "2"}))
    assert "stack-two-dist-infos" in errors(stack_of(both))


def test_two_dist_infos_of_one_name_however_it_is_written(layers: Layers) -> None:
    one, other = layers(dist("Foo.Bar", "1.0")), layers(dist("foo-bar", "2.0"))
    told = message(stack_of(one, other), "stack-two-dist-infos")
    assert told == f"after merging, /opt/{SITE} holds Foo.Bar 1.0 of a.zip and 2.0 of b.zip"


def test_dist_infos_in_two_folders_are_not_two_in_one(layers: Layers) -> None:
    one, other = layers(dist("foo", "1.0")), layers(dist("foo", "2.0", site="python"))
    assert "stack-two-dist-infos" not in codes(stack_of(one, other))
    assert "stack-two-dist-infos" not in codes(stack_of(one, function=layers(dist("foo", "2.0", site=""))))


def test_two_dist_infos_of_the_function(layers: Layers) -> None:
    function = layers(dist("foo", "1.0", site=""), dist("foo", "2.0", site=""))
    told = message(stack_of(layers({"python/a.py": ""}), function=function), "stack-two-dist-infos")
    assert told.startswith("after merging, /var/task holds foo 1.0 of the function")


def test_an_egg_info_counts_as_well(layers: Layers) -> None:
    text = "Metadata-Version: 1.1\nName: foo\nVersion: {}\n"
    one, other = (layers({f"{SITE}/foo-{n}.egg-info/PKG-INFO": text.format(n)}) for n in ("1.0", "2.0"))
    assert errors(stack_of(one, other)) == {"stack-two-dist-infos"}


# Modules that hide others.


def test_the_function_comes_before_layers(layers: Layers) -> None:
    layer, function = layers({f"{SITE}/foo.py": "", "python/bar.py": ""}), layers({"foo.py": ""}, name="app.zip")
    told = message(stack_of(layer, function=function), "stack-shadow")
    assert told == (f"import foo takes this, from the function, and not /opt/{SITE}/foo.py, from a.zip")
    assert not found(stack_of(layer, function=layers({"baz.py": ""})), "stack-shadow")


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_site_packages_comes_before_python_in_either_order(order: tuple[int, int], layers: Layers) -> None:
    stack = stack_of(layers({"python/foo.py": ""}), layers({f"{SITE}/foo.py": ""})).reordered(order)
    told = message(stack, "stack-shadow")
    assert told == "import foo takes this, from b.zip, and not /opt/python/foo.py, from a.zip"


def test_one_layer_with_a_module_in_both_folders_hides_its_own(layers: Layers) -> None:
    assert found(stack_of(layers({"python/foo.py": "", f"{SITE}/foo.py": ""})), "stack-shadow")


def test_a_package_hides_another_layers_module_in_the_same_folder(layers: Layers) -> None:
    module, package = layers({"python/foo.py": ""}), layers({"python/foo/__init__.py": ""})
    for trees in ((module, package), (package, module)):
        told = message(stack_of(*trees), "stack-shadow")
        assert told == "import foo takes this, from b.zip, and not /opt/python/foo.py, from a.zip"


def test_an_extension_hides_another_layers_source(layers: Layers) -> None:
    stack = stack_of(layers({"python/foo.abi3.so": ""}), layers({"python/foo.py": ""}))
    assert "from a.zip, and not /opt/python/foo.py" in message(stack, "stack-shadow")
    assert not found(
        stack_of(layers({"python/foo.cpython-311-x86_64-linux-gnu.so": ""}), stack.layers[1]), "stack-shadow"
    )


@pytest.mark.parametrize(
    "files",
    [
        {"python/foo.py": "", "python/foo/__init__.py": ""},
        {"python/foo.py": "", "python/foo/bar.py": ""},
        {"python/foo.py": "", "python/foo.abi3.so": ""},
    ],
)
def test_what_one_layer_has_twice_is_its_authors_choice(files: Files, layers: Layers) -> None:
    assert not found(stack_of(layers(files), layers({"python/other.py": ""})), "stack-shadow")
    below = {path.removeprefix("python/"): content for path, content in files.items()}
    assert not found(stack_of(layers({"python/other.py": ""}), function=layers(below)), "stack-shadow")


def test_a_namespace_is_hidden_by_a_regular_package(layers: Layers) -> None:
    stack = stack_of(layers({f"{SITE}/ns/a.py": ""}), layers({"python/ns/__init__.py": ""}))
    told = message(stack, "stack-shadow")
    assert told == f"import ns takes this, from b.zip, and not the folder /opt/{SITE}/ns, from a.zip"
    assert stack.find_module("ns.a") is None


def test_a_namespace_of_the_function_is_hidden_by_a_layers_package(layers: Layers) -> None:
    stack = stack_of(layers({"python/ns/__init__.py": ""}), function=layers({"ns/a.py": ""}))
    assert "the folder /var/task/ns, from the function" in message(stack, "stack-shadow")


def test_portions_of_a_namespace_hide_only_what_they_both_have(layers: Layers) -> None:
    one, other = layers({f"{SITE}/ns/a.py": "", f"{SITE}/ns/deep/x.py": ""}), layers({"python/ns/b.py": ""})
    assert not found(stack_of(one, other), "stack-shadow")
    both = layers({"python/ns/a.py": "", "python/ns/deep/x.py": "", "python/ns/deep/y.py": ""})
    findings = found(stack_of(one, both), "stack-shadow")
    assert [finding.message.partition(" takes")[0] for finding in findings] == [
        "import ns.deep.x",
        "import ns.a",
    ] or [finding.message.partition(" takes")[0] for finding in findings] == ["import ns.a", "import ns.deep.x"]


def test_links_that_lead_round_in_circles_come_to_an_end(layers: Layers) -> None:
    one = layers({"python/ns/a.py": "", "python/ns/self": Link("."), "python/ns/up": Link("../ns")})
    other = layers({f"{SITE}/ns/a.py": "", f"{SITE}/ns/self": Link("."), f"{SITE}/ns/up": Link("../ns")})
    messages = [finding.message for finding in found(stack_of(one, other), "stack-shadow")]
    assert any(text.startswith("import ns.a takes this, from b.zip") for text in messages)
    assert len(messages) < 10


def test_three_copies_of_a_module_hide_two(layers: Layers) -> None:
    stack = stack_of(layers({"python/foo.py": ""}), layers({f"{SITE}/foo.py": ""}), function=layers({"foo.py": ""}))
    assert len(found(stack, "stack-shadow")) == 2


def test_names_that_no_import_can_name_hide_nothing(layers: Layers) -> None:
    one, other = layers({"python/foo-bar.py": "", "python/x.txt": ""}), layers({f"{SITE}/foo-bar.py": ""})
    assert not found(stack_of(one, other, layers({f"{SITE}/x.txt": ""})), "stack-shadow")


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"json.py": ""}, "it hides the standard library's json"),
        ({"json/__init__.py": ""}, "it hides the standard library's json"),
        ({"boto3/__init__.py": ""}, "it hides the runtime's boto3"),
        ({"json/own.py": ""}, None),  # a folder without __init__ gives way
        ({"errno.py": ""}, None),  # built in: never looked for
        ({"os.py": ""}, None),  # loaded before the function
        ({"setuptools.py": ""}, None),  # not in 3.12's runtime any more
        ({"own/json.py": ""}, None),
    ],
)
def test_the_function_hides_the_standard_library(files: Files, told: str | None, layers: Layers) -> None:
    stack = stack_of(layers({"python/a.py": ""}), function=layers(files))
    assert [finding.message for finding in found(stack, "stack-shadow")] == ([told] if told else [])


def test_what_the_standard_library_has_depends_on_the_runtime(layers: Layers) -> None:
    function = layers({"setuptools.py": "", "tomllib.py": "", "distutils.py": "", "os.py": ""})
    told = {}
    for version in ("3.10", "3.11", "3.12"):
        (target,) = select_targets([f"python{version}-{ARCH}"])
        stack = stack_of(layers({"python/a.py": ""}), function=function, target=target)
        told[version] = [finding.message.rpartition(" ")[2] for finding in found(stack, "stack-shadow")]
    assert told["3.10"] == ["distutils", "os", "setuptools"]
    assert told["3.11"] == ["distutils", "setuptools", "tomllib"]
    assert told["3.12"] == ["tomllib"]


def test_a_function_without_files_of_its_own_has_no_folder(layers: Layers) -> None:
    stack = stack_of(layers({"python/a.py": ""}))
    assert stack.names("/var/task") == {}
    assert stack.names("/elsewhere") == {}
    assert stack.layer_of("/var/task/a.py") is None
    assert stack.find_module("sys") is None


@pytest.mark.parametrize("beside", ["python/other.py", "lib/other.so"])
def test_a_module_reached_through_a_link_is_found(beside: str, layers: Layers) -> None:
    stack = stack_of(layers({"python/foo.py": Link("../common/foo.py"), beside: ""}), layers({"common/foo.py": ""}))
    module = stack.find_module("foo")
    assert module is not None
    assert (module.kind, module.path, module.layer) == ("module", "/opt/python/foo.py", 1)


@pytest.mark.parametrize("beside", ["python/other.py", "lib/other.so"])
def test_a_package_reached_through_a_link_is_a_package(beside: str, layers: Layers) -> None:
    stack = stack_of(layers({"python/foo": Link("../common/foo"), "common/foo/__init__.py": "", beside: ""}))
    module = stack.find_module("foo")
    assert module is not None
    assert (module.kind, module.path, module.layer) == ("package", "/opt/python/foo/__init__.py", 0)


def test_modules_in_a_folder_are_named_as_imports_name_them() -> None:
    endings = modules.suffixes(TARGET)
    names = {"a.py": False, "b": True, "c.abi3.so": False, "__init__.py": False, "d.txt": False, "e-f.py": False}
    assert set(modules.module_names({**names, "__pycache__": True}, endings)) == {"a", "b", "c"}


# Requirements.


def test_the_wrong_version_of_a_requirement_wins(layers: Layers) -> None:
    app = layers(dist("app", "1.0", requires=["foo>=2"]), dist("foo", "2.0", {"foo.py": "2"}, info="foo.dist-info"))
    other = layers(dist("foo", "1.0", {"foo.py": "1"}, info="foo.dist-info"))
    told = message(stack_of(app, other), "stack-requirement")
    assert told == "app 1.0 of a.zip needs foo>=2; 1.0 of b.zip is imported"
    assert not found(stack_of(other, app), "stack-requirement")


def test_the_first_folder_of_sys_path_decides_over_the_order(layers: Layers) -> None:
    app = layers(dist("app", "1.0", requires=["foo>=2"]), dist("foo", "2.0", {"foo.py": "2"}, site="python"))
    other = layers(dist("foo", "1.0", {"foo.py": "1"}))
    for trees in ((app, other), (other, app)):
        assert found(stack_of(*trees), "stack-requirement")


def test_the_functions_version_decides_over_all_layers(layers: Layers) -> None:
    layer = layers(dist("app", "1.0", requires=["foo>=2"]), dist("foo", "2.0", {"foo.py": ""}))
    function = layers(dist("foo", "1.0", {"foo.py": ""}, site=""))
    told = message(stack_of(layer, function=function), "stack-requirement")
    assert told.endswith("1.0 of the function is imported")


def test_a_requirement_that_no_layer_has(layers: Layers) -> None:
    app = layers(dist("app", "1.0", requires=["foo"]))
    stack = stack_of(app, layers(dist("bar", "1.0")))
    (finding,) = found(stack, "stack-requirement")
    assert finding.message == "app 1.0 of a.zip needs foo, which no layer has"
    assert (finding.package, finding.path) == ("app 1.0", f"{SITE}/app-1.0.dist-info")


def test_what_the_function_needs_may_be_in_a_layer(layers: Layers) -> None:
    function = layers(dist("app", "1.0", requires=["foo>=1"], site=""))
    assert not errors(stack_of(layers(dist("foo", "1.0")), function=function))
    told = message(stack_of(layers(dist("bar", "1.0")), function=function), "stack-requirement")
    assert told == "app 1.0 of the function needs foo>=1, which no layer has"


@pytest.mark.parametrize(
    ("requires", "missing"),
    [
        ('foo; python_version < "3.12"', False),
        ('foo; python_version >= "3.12"', True),
        ('foo; sys_platform == "win32"', False),
        ('foo; extra == "more"', False),
        ("foo>=1,<2", True),
        ("what is this", False),
    ],
)
def test_markers_are_those_of_the_target(requires: str, missing: bool, layers: Layers) -> None:
    stack = stack_of(layers(dist("app", "1.0", requires=[requires])), layers(dist("bar", "1.0")))
    assert bool(found(stack, "stack-requirement")) is missing


def test_markers_follow_the_target(layers: Layers) -> None:
    trees = layers(dist("app", "1.0", requires=['foo; python_version < "3.12"'])), layers({"python/a.py": ""})
    (older,) = select_targets([f"python3.11-{ARCH}"])
    assert not found(stack_of(*trees), "stack-requirement")
    site = SITE.replace("3.12", "3.11")
    trees = layers(dist("app", "1.0", requires=['foo; python_version < "3.12"'], site=site)), trees[1]
    assert found(stack_of(*trees, target=older), "stack-requirement")


def test_extras_count_where_another_layer_asks_for_them(layers: Layers) -> None:
    foo = layers(dist("foo", "1.0", requires=['bar; extra == "more"']))
    plain, asking = (layers(dist("app", "1.0", requires=[text])) for text in ("foo", "foo[more]"))
    assert not found(stack_of(plain, foo), "stack-requirement")
    told = message(stack_of(asking, foo), "stack-requirement")
    assert told.startswith("foo 1.0 of a.zip needs bar")
    assert not found(stack_of(asking, foo, layers(dist("bar", "1.0"))), "stack-requirement")


def test_what_the_runtime_brings_is_a_note(layers: Layers) -> None:
    stack = stack_of(layers(dist("app", "1.0", requires=["boto3"])), layers({"python/a.py": ""}))
    assert not errors(stack)
    (finding,) = found(stack, "contents-requirement-runtime")
    assert finding.message == "app 1.0 of a.zip needs boto3, which the runtime brings in a version that changes"


def test_a_version_that_replaces_the_runtimes_must_fit(layers: Layers) -> None:
    app, boto3 = layers(dist("app", "1.0", requires=["boto3>=2"])), layers(dist("boto3", "1.0"))
    assert message(stack_of(app, boto3), "stack-requirement").endswith("1.0 of b.zip is imported")


# Layers that work only together.


def test_a_layer_that_needs_anothers_distribution(layers: Layers) -> None:
    app = layers(dist("app", "1.0", requires=["foo>=1"]))
    foo = layers(dist("foo", "1.0"))
    for trees in ((app, foo), (foo, app)):
        stack = stack_of(*trees)
        assert codes(stack) == {"stack-needs-layer"}
        assert message(stack, "stack-needs-layer") == "app 1.0 of a.zip needs foo>=1, which b.zip brings"


def test_a_layer_whose_own_version_does_not_fit_needs_the_one_that_replaces_it(layers: Layers) -> None:
    own = layers(dist("app", "1.0", requires=["foo>=2"]), dist("foo", "1.0", {"foo.py": ""}, site="python"))
    stack = stack_of(own, layers(dist("foo", "2.0", {"foo.py": ""})))
    assert message(stack, "stack-needs-layer") == "app 1.0 of a.zip needs foo>=2, which b.zip brings"


def test_what_is_met_by_no_layer_needs_none(layers: Layers) -> None:
    stack = stack_of(layers(dist("app", "1.0", requires=["foo", "boto3"])), layers(dist("bar", "1.0")))
    assert not found(stack, "stack-needs-layer")


def test_a_compiled_file_that_needs_anothers_library(tmp_path: Path, layers: Layers) -> None:
    library = shared_library(tmp_path / "gcc", "libown.so.1")
    module = shared_library(tmp_path / "gcc", "_own.so", tmp_path / "gcc/libown.so.1")
    extension, helper = layers({"python/_own.so": module}), layers({"lib/libown.so.1": library})
    stack = stack_of(extension, helper)
    (finding,) = found(stack, "stack-needs-layer")
    assert finding.path == "python/_own.so"
    assert "libown.so.1" in finding.message
    assert finding.message.endswith("alone, a.zip would not load it")
    assert codes(stack) == {"stack-needs-layer"}
    alone = stack_of(extension, layers({"python/a.py": ""}))
    assert "stack-needs-layer" not in codes(alone)
    assert "binary-library-unknown" in codes(alone)
    assert not codes(stack_of(layers({"python/_own.so": module, "lib/libown.so.1": library}), alone.layers[1]))


def test_a_library_where_the_loader_does_not_look_is_no_help(tmp_path: Path, layers: Layers) -> None:
    library = shared_library(tmp_path / "gcc", "libown.so.1")
    module = shared_library(tmp_path / "gcc", "_own.so", tmp_path / "gcc/libown.so.1")
    stack = stack_of(layers({"python/_own.so": module}), layers({"elsewhere/libown.so.1": library}))
    assert "binary-library-unreachable" in codes(stack)


def test_a_compiled_file_that_another_layer_replaces_needs_nothing(tmp_path: Path, layers: Layers) -> None:
    library = shared_library(tmp_path / "gcc", "libown.so.1")
    module = shared_library(tmp_path / "gcc", "_own.so", tmp_path / "gcc/libown.so.1")
    (tmp_path / "plain").mkdir()
    plain = shared_library(tmp_path / "plain", "_own.so")
    stack = stack_of(
        layers({"python/_own.so": module}), layers({"lib/libown.so.1": library, "python/_own.so": plain})
    )
    assert codes(stack) == {"stack-conflict"}


def test_compiled_files_are_looked_at_after_merging(tmp_path: Path, layers: Layers) -> None:
    other = 62 if ARCH == "arm64" else 183  # e_machine of x86_64, of aarch64
    wrong = layers({"python/_own.so": shared_library(tmp_path, "_own.so", machine=other)})
    right = layers({"python/_own.so": shared_library(tmp_path, "_own.so")})
    assert [finding.path for finding in found(stack_of(right, wrong), "binary-machine")] == ["python/_own.so"]
    assert not found(stack_of(wrong, right), "binary-machine")


def pyc(source: str, flags: int) -> bytes:
    """Bytecode of the target's Python that is tied to its source by a hash (PEP 552)."""
    magic = TARGET.runtime.bytecode_magic.to_bytes(2, "little") + b"\r\n"
    return magic + flags.to_bytes(4, "little") + importlib.util.source_hash(source.encode()) + b"code"


@pytest.mark.parametrize(("flags", "severity"), [(0b01, "error"), (0b11, "warning")])
def test_bytecode_of_a_source_that_another_layer_replaced(flags: int, severity: str, layers: Layers) -> None:
    cached = "python/__pycache__/foo.cpython-312.pyc"
    own = layers({"python/foo.py": "OLD = 1\n", cached: pyc("OLD = 1\n", flags)})
    other = layers({"python/foo.py": "NEW = 1\n"})
    (finding,) = found(stack_of(own, other), "contents-bytecode")
    assert (finding.path, finding.severity) == (cached, severity)
    assert not found(stack_of(other, own), "contents-bytecode")
    both = layers({"python/foo.py": "NEW = 1\n", cached: pyc("NEW = 1\n", flags)})
    assert not found(stack_of(own, both), "contents-bytecode")


def test_findings_come_worst_first(layers: Layers) -> None:
    one = layers(dist("foo", "1.0", {"foo.py": "1", "old.py": "1"}), {"bin/same": ""})
    other = layers(dist("foo", "2.0", {"foo.py": "2"}), {"bin/same": ""})
    severities = [finding.severity for finding in stack_of(one, other).findings()]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)
    assert set(severities) == {"error", "warning", "note"}


def test_the_functions_compiled_files_find_libraries_in_layers(tmp_path: Path, layers: Layers) -> None:
    library = shared_library(tmp_path / "gcc", "libown.so.1")
    module = shared_library(tmp_path / "gcc", "_own.so", tmp_path / "gcc/libown.so.1")
    function = layers({"_own.so": module})
    alone = stack_of(layers({"python/a.py": ""}), function=function)
    assert [one.path for one in found(alone, "binary-library-unknown")] == ["/var/task/_own.so"]
    helped = stack_of(layers({"lib/libown.so.1": library}), function=function)
    assert not [code for code in codes(helped) if code.startswith("binary-")]
