"""What a build in a container is told of this machine: little, and each bit of it the user is told, too."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from layerbuild.build_settings import BuildSettings
from layerbuild.builders.environment import CERTIFICATES, GLIBC_LIMIT, PassedOn, fixed_environment
from layerbuild.pip_settings import PipSettings
from layerbuild.target import runtimes

PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")
CERTIFICATE_VARIABLES = {"PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "CARGO_HTTP_CAINFO"}


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def passed_on(settings: PipSettings) -> tuple[dict[str, str], list[str]]:
    """The variables, and what the user is told."""
    told: list[str] = []
    return PassedOn(lambda: settings, told.append).index(), told


def build(**environment: str) -> BuildSettings:
    return BuildSettings(environment=tuple(sorted(environment.items())))


# The variables of every build.


def test_every_build_has_the_same_dates_seeds_locale_and_paths() -> None:
    fixed = fixed_environment(BuildSettings())
    assert fixed["SOURCE_DATE_EPOCH"] == "315532800"
    assert (fixed["PYTHONHASHSEED"], fixed["LC_ALL"], fixed["TZ"]) == ("0", "C.UTF-8", "UTC")
    assert (fixed["HOME"], fixed["TMPDIR"], fixed["PIP_CACHE_DIR"]) == ("/build", "/build/tmp", "/build/.cache/pip")
    assert fixed == fixed_environment(BuildSettings())


def test_variables_of_a_recipe_win() -> None:
    fixed = fixed_environment(build(TZ="Europe/Berlin", SOURCE_DATE_EPOCH="0", MAKEFLAGS="-j1", EMPTY=""))
    assert (fixed["TZ"], fixed["SOURCE_DATE_EPOCH"]) == ("Europe/Berlin", "0")
    assert (fixed["MAKEFLAGS"], fixed["EMPTY"]) == ("-j1", "")
    assert fixed["LC_ALL"] == "C.UTF-8"


def test_only_recipes_variables_make_a_difference() -> None:
    plain = fixed_environment(BuildSettings())
    other = BuildSettings(no_binary=("a",), constraints=("b",), system_packages=(("apt", ("c",)),), strip=True)
    assert fixed_environment(other) == plain


def test_nothing_of_this_machines_environment_goes_in(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "not for builds"
    for name in (
        *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "aws_profile"),
        *("HOME", "FOO", "TMPDIR", "TZ", "LC_ALL", "LANG", "PYTHONPATH", "PYTHONHASHSEED", "SOURCE_DATE_EPOCH"),
        *("CFLAGS", "CXXFLAGS", "LDFLAGS", "CC", "MAKEFLAGS", "LD_LIBRARY_PATH", "LD_PRELOAD", "SSH_AUTH_SOCK"),
        *("GITHUB_TOKEN", "PIP_CERT", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_INDEX_URL", "SSL_CERT_FILE"),
        *("DOCKER_HOST", "DOCKER_AUTH_CONFIG", "NETRC", "REQUESTS_CA_BUNDLE", "TWINE_PASSWORD", "ftp_proxy"),
    ):
        monkeypatch.setenv(name, secret)
    passed, told = passed_on(PipSettings())
    everything = {**fixed_environment(BuildSettings()), **passed}
    assert secret not in everything.values()
    assert "FOO" not in everything
    assert not [name for name in everything if name.upper().startswith("AWS_")]
    assert told == []


# pip's settings.


def test_where_pip_is_not_configured_nothing_is_passed_on() -> None:
    assert passed_on(PipSettings()) == ({}, [])


def test_all_that_pip_needs_for_its_indexes_is_passed_on() -> None:
    passed, told = passed_on(
        PipSettings(
            index_url="https://index.example/simple",
            extra_index_urls=("https://more.example/simple", "http://third.example/simple"),
            find_links=("https://links.example/page.html",),
            trusted_hosts=("third.example", "more.example:8080"),
            no_index=True,
            timeout=2.5,
            retries=0,
        )
    )
    assert passed == {
        "PIP_INDEX_URL": "https://index.example/simple",
        "PIP_EXTRA_INDEX_URL": "https://more.example/simple http://third.example/simple",
        "PIP_FIND_LINKS": "https://links.example/page.html",
        "PIP_TRUSTED_HOST": "third.example more.example:8080",
        "PIP_NO_INDEX": "1",
        "PIP_DEFAULT_TIMEOUT": "2.5",
        "PIP_RETRIES": "0",
    }
    assert sorted(told) == [f"passed into containers: {name}={value}" for name, value in sorted(passed.items())]


def test_what_pip_itself_reads_is_what_is_passed_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    config = tmp_path / "pip.conf"
    config.write_text(f"[global]\nindex-url = https://index.example/simple\nfind-links = {tmp_path}\nretries = 2\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://u:secret@more.example/simple")
    told: list[str] = []
    passed = PassedOn(PipSettings.read, told.append).index()
    assert passed["PIP_INDEX_URL"] == "https://index.example/simple"
    assert passed["PIP_EXTRA_INDEX_URL"] == "https://u:secret@more.example/simple"
    assert passed["PIP_RETRIES"] == "2"
    assert "PIP_FIND_LINKS" not in passed
    assert f"not passed into containers, as it is a folder of this machine: PIP_FIND_LINKS={tmp_path}" in told
    assert "secret" not in "".join(told)


def test_credentials_go_in_but_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://user:secret@proxy.example:3128")
    passed, told = passed_on(
        PipSettings(
            index_url="https://user:secret@index.example/simple",
            extra_index_urls=("https://secret@more.example/", "https://user:se%2Fcret@third.example/"),
            find_links=("https://user:secret@links.example/",),
        )
    )
    assert passed["PIP_INDEX_URL"] == "https://user:secret@index.example/simple"
    assert passed["PIP_EXTRA_INDEX_URL"] == "https://secret@more.example/ https://user:se%2Fcret@third.example/"
    assert passed["PIP_FIND_LINKS"] == "https://user:secret@links.example/"
    assert passed["https_proxy"] == passed["HTTPS_PROXY"] == "http://user:secret@proxy.example:3128"
    assert "passed into containers: PIP_INDEX_URL=https://****@index.example/simple" in told
    assert (
        "passed into containers: PIP_EXTRA_INDEX_URL=https://****@more.example/ https://****@third.example/" in told
    )
    assert "passed into containers: HTTPS_PROXY=http://****@proxy.example:3128" in told
    assert not [line for line in told if "secret" in line or "cret" in line or "user" in line]


@pytest.mark.parametrize("password", ["secret", "*secret", "****@secret", "a/secret", "a:secret"])
def test_credentials_of_a_proxy_without_a_scheme_are_not_told(password: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"user:{password}@proxy.example:3128")
    passed, told = passed_on(PipSettings())
    assert passed["http_proxy"] == f"user:{password}@proxy.example:3128"
    assert "secret" not in "".join(told)


def test_credentials_of_what_is_not_passed_on_are_not_told() -> None:
    _, told = passed_on(PipSettings(find_links=("ftp://user:secret@links.example/",)))
    assert len(told) == 1
    assert "secret" not in told[0]


@pytest.mark.parametrize("place", ["/srv/wheels", "file:///srv/wheels", "file://localhost/srv/wheels", "wheels"])
@pytest.mark.parametrize(
    ("setting", "variable"),
    [
        ("index_url", "PIP_INDEX_URL"),
        ("extra_index_urls", "PIP_EXTRA_INDEX_URL"),
        ("find_links", "PIP_FIND_LINKS"),
    ],
)
def test_folders_of_this_machine_are_not_passed_on_but_told(place: str, setting: str, variable: str) -> None:
    alone = PipSettings(**{setting: place if setting == "index_url" else (place,)})  # type: ignore[arg-type]
    note = f"not passed into containers, as it is a folder of this machine: {variable}={place}"
    # Nor may pip take its default index instead.
    none = setting == "index_url"
    assert passed_on(alone) == (
        ({"PIP_NO_INDEX": "1"}, [note, "passed into containers: PIP_NO_INDEX=1"]) if none else ({}, [note])
    )
    if setting != "index_url":
        beside = PipSettings(**{setting: ("https://a.example/", place, "HTTPS://b.example/")})  # type: ignore[arg-type]
        passed, told = passed_on(beside)
        assert passed == {variable: "https://a.example/ HTTPS://b.example/"}
        assert note in told


def test_each_setting_is_told_once_however_often_it_is_passed_on() -> None:
    told: list[str] = []
    settings = PipSettings(
        index_url="https://index.example/",
        find_links=("/srv",),
        cert="/ca.pem",
        client_cert="/me.pem",
        proxy="http://p",
    )
    passing = PassedOn(lambda: settings, told.append)
    first = passing.index()
    once = list(told)
    assert passing.index() == first
    assert told == once
    assert len(told) == len(set(told))
    settings = PipSettings(index_url="https://other.example/")
    passing.index()
    assert told == [*once, "passed into containers: PIP_INDEX_URL=https://other.example/"]


def test_settings_are_asked_for_only_when_they_are_needed() -> None:
    def broken() -> PipSettings:
        raise AssertionError("pip was asked")

    PassedOn(broken, lambda text: None)


# Proxies.


@pytest.mark.parametrize("name", ["http_proxy", "https_proxy", "no_proxy"])
@pytest.mark.parametrize("upper", [False, True])
def test_proxies_of_the_environment_go_in_under_both_cases(
    name: str, upper: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name.upper() if upper else name, "http://proxy.example:3128")
    passed, told = passed_on(PipSettings())
    assert passed == {name: "http://proxy.example:3128", name.upper(): "http://proxy.example:3128"}
    assert sorted(told) == [
        f"passed into containers: {variable}=http://proxy.example:3128" for variable in (name.upper(), name)
    ]


def test_of_both_cases_the_lower_one_wins_unless_it_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://lower.example")
    monkeypatch.setenv("HTTP_PROXY", "http://upper.example")
    monkeypatch.setenv("https_proxy", "")
    monkeypatch.setenv("HTTPS_PROXY", "http://upper.example")
    monkeypatch.setenv("NO_PROXY", "")
    assert PassedOn(PipSettings, lambda text: None).proxies() == {
        "http_proxy": "http://lower.example",
        "HTTP_PROXY": "http://lower.example",
        "https_proxy": "http://upper.example",
        "HTTPS_PROXY": "http://upper.example",
    }


def test_pips_own_proxy_wins_over_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://other.example")
    monkeypatch.setenv("no_proxy", "localhost")
    proxies = PassedOn(lambda: PipSettings(proxy="http://proxy.example:1"), lambda text: None).proxies()
    assert proxies == {
        **dict.fromkeys(["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"], "http://proxy.example:1"),
        "no_proxy": "localhost",
        "NO_PROXY": "localhost",
    }


# Certificates.


def test_certificates_are_passed_on_only_where_pip_is_told_of_some(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_bytes(b"-----BEGIN CERTIFICATE-----\nsecret\n\xff\n")
    told: list[str] = []
    passing = PassedOn(lambda: PipSettings(cert=str(path)), told.append)
    assert passing.index() == dict.fromkeys(CERTIFICATE_VARIABLES, CERTIFICATES)
    assert told == [f"passed into containers: the certificates in {path}"]
    assert passing.certificates() == path.read_bytes()
    without = PassedOn(PipSettings, told.append)
    assert not CERTIFICATE_VARIABLES & set(without.index())
    assert without.certificates() == b""


def test_certificates_that_are_not_there_are_none(tmp_path: Path) -> None:
    assert PassedOn(lambda: PipSettings(cert=str(tmp_path / "no.pem")), lambda text: None).certificates() == b""


@pytest.mark.parametrize("cert", ["folder", "no.pem"])
def test_containers_are_not_pointed_to_certificates_that_are_empty(cert: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "ca.pem").write_bytes(b"certificate")
    passing = PassedOn(lambda: PipSettings(cert=str(tmp_path / cert)), lambda text: None)
    assert passing.certificates() or not CERTIFICATE_VARIABLES & set(passing.index())


def test_certificates_in_the_home_folder_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "ca.pem").write_bytes(b"certificate")
    settings = PipSettings.parse("global.cert='~/ca.pem'\n")
    assert PassedOn(lambda: settings, lambda text: None).certificates() == b"certificate"


def test_a_client_certificate_stays_here_and_the_user_is_told(tmp_path: Path) -> None:
    path = tmp_path / "me.pem"
    path.write_bytes(b"private key")
    told: list[str] = []
    passing = PassedOn(lambda: PipSettings(client_cert=str(path)), told.append)
    assert passing.index() == {}
    assert passing.certificates() == b""
    assert told == ["not passed into containers, as it is a credential: pip's client-cert"]


# The limit of glibc.


@pytest.mark.parametrize("glibc", sorted({runtime.glibc for runtime in runtimes()}))
def test_wheels_for_a_newer_glibc_than_the_runtimes_are_not_seen(glibc: tuple[int, int], tmp_path: Path) -> None:
    (tmp_path / "_manylinux.py").write_text(GLIBC_LIMIT.format(glibc=glibc))
    code = "from packaging.tags import platform_tags; print(*platform_tags())"

    def minors(**variables: str) -> set[int]:
        done = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, **variables}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return {int(minor) for minor in re.findall(r"\bmanylinux_2_(\d+)_", done.stdout)}

    mine = minors()
    if not mine:
        pytest.skip("this machine loads no manylinux wheels")
    assert minors(PYTHONPATH=str(tmp_path)) == {minor for minor in mine if (2, minor) <= glibc}


def test_of_indexes_the_remote_ones_alone_are_asked() -> None:
    passed, _ = passed_on(PipSettings(index_url="file:///srv/simple", extra_index_urls=("https://a.example/simple",)))
    assert passed == {"PIP_INDEX_URL": "https://a.example/simple", "PIP_EXTRA_INDEX_URL": "https://a.example/simple"}
