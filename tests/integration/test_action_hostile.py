"""What a job of GitHub Actions is told must not drive it: inputs, packages, handlers, archives, recipes.

That no command is forged, no secret told and nothing run is asserted of every step by `Job.sound` and `read_log`.
"""

from __future__ import annotations

import json
import stat
import zipfile
from pathlib import Path

import pytest

from layerbuild.sandbox.namespace import obstacle
from tests.actions import Runner
from tests.elf_files import library
from tests.integration.test_faults import FOREIGN_ARCH, HOST, make_sdist
from tests.interpreters import find_python
from tests.jobs import PASSWORD, QUICKLY, Job, job_fixture  # noqa: F401 - a fixture
from tests.publishing import HOME, Shop, fake_credentials, moto_fixture, shop_fixture  # noqa: F401 - as well
from tests.running import ARCH, run_cache  # noqa: F401 - a fixture
from tests.wheels import make_wheel
from tests.workflow_commands import SUMMARY_LIMIT

TARGET = f"python3.13-{FOREIGN_ARCH}"
COMMANDS = (
    "::error::forged",
    " \t::set-output name=layers::forged",
    "\u00a0::add-mask::e",
    "text ##[error]forged",
    "##[set-env name=PATH;]/forged",
    "::stop-commands::x",
    "::group::forged",
    "::endgroup::",
    "one\r::warning::forged",
    "%0A::error::forged",
)
VALUES = {
    "shell": "'\"$(touch pwned)`touch pwned`;touch pwned|touch pwned&&touch pwned #",
    "lines": "x\n::error::forged\nEOF\nchanged=forged\nlayers<<EOF\nforged\nEOF\r::warning::forged\n##[error]forged",
    "hole": "${{ github.token }}%0A::error::forged%0D::error::forged",
    "option": "--out=pwned",
    "strange": "模块\u202e\U0001f40d\u00a0é$HOME~",
    "long": "x" * 100_000,
}
# What goes with an input, so that it is the only one that is wrong.
BASES = {
    "command": {"recipes": "demo"},
    "recipes": {},
    "targets": {"recipes": "demo"},
    "requirements": {"name": "web"},
    "name": {"requirements": "needs.txt"},
    "builder": {"recipes": "demo"},
    "regions": {"command": "publish"},
    "args": {"recipes": "demo"},
    "version": {"recipes": "demo"},
    "cache": {"recipes": "demo"},
    "working-directory": {"recipes": "demo"},
}
# `make` takes that option, for whoever may write workflows.
_FINE = {("args", "option")}


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("name", BASES)
def test_an_input_is_refused_and_neither_run_nor_obeyed(
    job: Job, name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if (name, value) in _FINE:
        pytest.skip("that is what args is for")
    job.locked("demo", targets=[TARGET])
    (job.project / "needs.txt").write_text("demo\n")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    if name == "version":
        job.runner.replaced = {}
    inputs = {**BASES[name], "targets": TARGET, name: VALUES[value]}
    if inputs.get("command") == "publish":
        del inputs["targets"]
    ran = job.action(**inputs)

    if name == "working-directory":
        assert ran.code == 1  # the runner's own
        return
    assert ran.code == 2, ran.text[:3000]
    assert ran.outputs == {"layers": "[]", "arns": "[]", "catalogue": "", "changed": "false"}
    assert job.index.requests == []
    errors = [one for one in ran.annotations if one.level == "error"]
    assert errors
    for one in ran.annotations:
        assert one.title.startswith("layerbuild"), one
        assert "internal" not in one.title
        assert len(one.message) < 5000
    assert len(ran.summary) < SUMMARY_LIMIT / 4


@pytest.mark.parametrize("words", ["--locked '$(touch pwned)'", "--force `touch pwned`", "--ignore ';touch pwned'"])
def test_further_options_are_split_but_not_expanded(job: Job, words: str) -> None:
    job.locked("demo", targets=[TARGET])
    ran = job.action(recipes="demo", args=words)
    assert ran.code == 2
    assert [one.title for one in ran.annotations]


def test_further_options_are_split_as_a_shell_would(job: Job) -> None:
    job.locked("demo", targets=[TARGET])
    ran = job.action(recipes="demo", args="--locked --out='my dist' \"--ignore\" contents")
    assert ran.code == 0, ran.text
    assert (job.project / "my dist" / f"demo-{TARGET}.zip").is_file()


def hostile_zip(path: Path, names: tuple[str, ...]) -> None:
    """An archive each of whose names has something wrong with it: files that would not load, and a link out of it."""
    native = library(needed=["libGL.so.1"])
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(f"python/{name}.so", native)
            archive.writestr(f"{name}.so", native)
            info = zipfile.ZipInfo(f"python/{name}-link")
            info.create_system = 3
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, f"../../{name}")
            metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {name}\n"
            archive.writestr(f"python/{name.replace('/', '_')}-1.dist-info/METADATA", metadata)


HOSTILE_FILES = (
    *COMMANDS,
    "two\n::error::forged",
    "a\u2028::error::forged",
    "a\x85::error::forged",
    "a\x0c::error::forged",
)


@pytest.mark.parametrize(
    "command",
    [
        "check strange.zip --target python3.13-x86_64",
        "check strange.zip --target python3.13-x86_64 --format github",
        "check strange.zip --target python3.13-x86_64 --format sarif",
        "check strange.zip --target python3.13-x86_64 --json",
        "stack strange.zip other.zip --target python3.13-x86_64",
        "diff strange.zip other.zip",
        "diff strange.zip other.zip --format markdown",
        "-q check strange.zip --target python3.13-x86_64",
    ],
)
def test_names_in_an_archive_say_nothing_to_the_runner(job: Job, command: str) -> None:
    hostile_zip(job.project / "strange.zip", HOSTILE_FILES)
    hostile_zip(job.project / "other.zip", HOSTILE_FILES[:3])

    ran = job.script(f"layerbuild {command}")

    assert ran.code in (0, 1, 2), ran.text
    for one in ran.log.annotations:
        assert one.title.startswith("layerbuild"), one
    # It is about these files, so that there was something to forge.
    assert "forged" in ran.text + ran.summary
    assert set(ran.outputs) <= {"changed"}


def test_the_name_of_a_file_says_nothing_to_the_runner(job: Job) -> None:
    for place, name in enumerate(HOSTILE_FILES):
        with zipfile.ZipFile(job.project / f"{name.replace('/', '_')}{place}.zip", "w") as archive:
            archive.writestr("python/x.py", "")
    ran = job.action(command="check", args="--out .", targets=TARGET)
    assert ran.code in (0, 1, 2)
    assert all(one.title.startswith("layerbuild") for one in ran.annotations)
    assert "forged" in ran.summary


def test_an_index_says_nothing_to_the_runner(job: Job) -> None:
    names = (f"demo-1.0-py3-none-{text.strip().replace('/', '_')}.whl" for text in COMMANDS)
    job.recipe("demo", targets=[TARGET])
    for name in names:
        make_wheel(job.wheelhouse, "demo").rename(job.wheelhouse / name)
    make_sdist(job.wheelhouse, "demo", "1.0")
    ran = job.action(recipes="demo", builder="host")
    assert ran.code == 3
    assert all(one.title.startswith("layerbuild") for one in ran.annotations)


def test_recipes_and_settings_say_nothing_to_the_runner(job: Job) -> None:
    forged = json.dumps("x\n::error::forged\r\n##[error]forged\nEOF\nchanged=true")
    job.recipe("demo", targets=[TARGET]).write_text(f"name = {forged}\nrequirements = [{forged}]\n{forged} = 1\n")
    ran = job.action(recipes="demo")
    assert ran.code == 2
    assert all(one.title.startswith("layerbuild") for one in ran.annotations)
    (job.project / "layerbuild.toml").write_text(f"[make]\n{forged} = {forged}\n")
    ran = job.action(recipes="demo")
    assert ran.code == 2
    assert all(one.title.startswith("layerbuild") for one in ran.annotations)


def test_metadata_of_what_is_published_says_nothing_to_the_runner(job: Job, shop: Shop) -> None:
    shop.make("one", licence="##[error]forged, ::error::forged")
    ran = job.action(command="publish", regions=HOME)
    assert ran.code == 0, ran.text
    told = [f"export --format {form}" for form in ("json", "csv", "sam", "cloudformation", "cdk", "terraform")]
    for command in [*told, "list", "list --json"]:
        ran_alone = job.script(f"layerbuild {command}")
        assert (ran_alone.code, ran_alone.log.annotations) == (0, []), command


def test_an_output_of_several_lines_sets_itself_and_no_other(job: Job, shop: Shop) -> None:
    shop.make("one")
    name = "a\nEOF\nlayers<<EOF\nforged\nEOF\nchanged=forged"
    ran = job.action(command="publish", regions=HOME, args=f"--catalogue '{name}'")
    assert ran.code == 0, ran.text
    assert ran.outputs["catalogue"] == name
    assert (ran.outputs["layers"], ran.outputs["changed"]) == ("[]", "true")


def test_a_traceback_says_nothing_to_the_runner(job: Job) -> None:
    job.runner.script(QUICKLY["Install layerbuild"])
    ran = job.runner.script("layerbuild --debug make '##[error]forged'")
    assert ran.code != 0
    assert "Traceback" in ran.text
    assert all(one.title.startswith("layerbuild") for one in ran.log.annotations)


@pytest.mark.parametrize("fails", [True, False])
def test_code_of_a_package_says_nothing_to_the_runner(job: Job, fails: bool) -> None:
    version = HOST.split("-")[0].removeprefix("python")
    find_python(version)
    if reason := obstacle():
        pytest.skip(reason)
    said = f"import os, sys\nfor one in {COMMANDS!r}:\n    print(one)\n    print(one, file=sys.stderr)\n"
    ends = f"raise ValueError({chr(10).join(COMMANDS)!r})\n" if fails else ""
    path = job.locked("demo", targets=[HOST], more='imports = ["demo"]\n', files={"demo.py": said})
    (path.parent / "smoke.py").write_text(said + ends)

    ran = job.action(recipes="demo", args="--smoke require")

    assert ran.code == int(fails), ran.text
    assert all(one.title.startswith("layerbuild") for one in ran.annotations)
    if fails:
        assert "smoke-failed" in ran.summary
        assert json.loads(ran.outputs["layers"]) == []


@pytest.mark.network
@pytest.mark.parametrize("words", ["", "--json"])
def test_a_handler_says_nothing_to_the_runner(
    project: Path, tmp_path: Path, run_cache: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    find_python("3.13")
    if reason := obstacle():
        pytest.skip(reason)
    monkeypatch.setenv("LAYERBUILD_CACHE_DIR", str(run_cache))
    code = f"""
import os, sys
SAID = {COMMANDS!r}
for one in SAID:
    print(one)
def handler(event, context):
    for one in SAID:
        print(one, file=sys.stderr, flush=True)
        os.write(1, (one + chr(10)).encode())
    open("/tmp/x", "w").write("x")
    if event:
        raise ValueError(chr(10).join(SAID))
    return SAID[0] if event == [] else list(SAID)
"""
    (project / "fn").mkdir()
    (project / "fn/app.py").write_text(code)
    runner = Runner(workspace=project, temp=tmp_path, replaced=QUICKLY)
    runner.script(QUICKLY["Install layerbuild"])
    events = "--event '{}' --event '{\"a\": 1}' --event '[]'"
    ran = runner.script(
        f"layerbuild run --function fn --handler app.handler --target python3.13-{ARCH} {events} {words}"
    )
    assert ran.code == 1, ran.text
    assert "forged" in ran.text
    assert all(one.title.startswith("layerbuild") for one in ran.log.annotations)
    assert ran.values == ()


# Secrets


@pytest.mark.parametrize("fault", ["401", "500", "hang", "garbage", "none"])
def test_the_password_of_an_index_is_not_told_when_it_fails(
    job: Job, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wheel(job.wheelhouse, "demo")
    job.recipe("demo", targets=[TARGET])
    monkeypatch.setenv("PIP_TIMEOUT", "1")
    if fault == "none":
        job.index.password = "user:another"
    else:
        where = "/files/demo-1.0-py3-none-any.whl" if fault == "garbage" else "/simple/demo/"
        job.index.faults = {where: fault}
    ran = job.action(recipes="demo")
    assert ran.code in (3, 4)
    assert [one for one in ran.annotations if one.level == "error"]
    assert f"127.0.0.1:{job.index.port}" in ran.text or fault == "garbage"
    ran = job.action(recipes="demo", args="--json")
    assert ran.code in (3, 4)


def test_a_password_in_an_input_of_pip_is_not_told(job: Job) -> None:
    """One in a requirements file is refused, and not repeated."""
    url = job.index.url.replace("://", f"://user:{PASSWORD}@")
    (job.project / "needs.txt").write_text(f"demo @ {url}x.whl\n--index-url {url}\ndemo\n")
    ran = job.action(requirements="needs.txt", name="web", targets=TARGET)
    assert ran.code == 2


# What is too much


def test_a_summary_that_is_full_is_left_alone(job: Job) -> None:
    job.locked("demo", targets=[TARGET])
    ran = job.script(
        f'head -c {SUMMARY_LIMIT - 10} /dev/zero | tr "\\0" x > "$GITHUB_STEP_SUMMARY"; layerbuild make demo'
    )
    assert ran.code == 0, ran.text
    assert set(ran.summary) == {"x"}
    assert ran.outputs["changed"] == "true"


def test_thousands_of_findings_have_room_in_the_summary(job: Job) -> None:
    native = library(needed=["libGL.so.1"])
    with zipfile.ZipFile(job.project / "large.zip", "w") as archive:
        for number in range(1500):
            archive.writestr(f"python/{'long' * 40}/module{number}/native.so", native)
            archive.writestr(f"python/package{number}-1.dist-info/RECORD", "missing.py,,\n")
            archive.writestr(f"python/package{number}-1.dist-info/METADATA", "broken")
    ran = job.action(command="check", recipes="large.zip", targets="python3.13-x86_64")
    assert ran.code == 1
    assert "more" in ran.summary
    assert len(ran.summary) < 300_000
