"""What is told of builds that fail: what is missing, and which system package brings it.

The outputs are as the tools print them: compilers, linkers, pkg-config, shells, and the setup programs of packages.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Callable
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from layerbuild.builders.failures import build_failure, find_missing, metadata_failure
from layerbuild.errors import BuildError
from layerbuild.lock import Pin
from layerbuild.recipe import parse_recipe
from layerbuild.target import select_targets
from tests.elf_files import require_gcc

ROWS: list[dict[str, Any]] = tomllib.loads(
    files("layerbuild").joinpath("builders", "failures.toml").read_text("utf-8")
)["missing"]
(TARGET,) = select_targets(["python3.13-x86_64"])

POSTGRESQL = "pg_config (PostgreSQL's client library)"
MYSQL = "mysql_config (MySQL's or MariaDB's client library)"
LIBXML = "xml2-config (libxml2 and libxslt)"
GEOS = "geos-config (GEOS)"
RUST = "Rust's compiler"
OPENSSL = "openssl/ssl.h (OpenSSL)"
HDF5 = "hdf5.h (HDF5)"


def header_missing(source: str, line: int, header: str) -> str:
    """What gcc says of a header that is not there."""
    include = f"#include <{header}>"
    return f"""\
      building 'demo._demo' extension
      gcc -fno-strict-overflow -Wsign-compare -DNDEBUG -g -O3 -Wall -fPIC -I/var/lang/include/python3.13 -c {source}
      {source}:{line}:10: fatal error: {header}: No such file or directory
      {line:5} | {include}
            |          ^{"~" * (len(header) + 1)}
      compilation terminated.
      error: command '/usr/bin/gcc' failed with exit code 1
      [end of output]
"""


def library_missing(name: str) -> str:
    """What the linker says of a library that is not there, as of binutils 2.38."""
    return f"""\
      gcc -shared build/temp.linux-x86_64-cpython-313/demo.o -L/var/lang/lib -l{name} -o build/lib/demo.so
      /usr/bin/ld: cannot find -l{name}: No such file or directory
      collect2: error: ld returned 1 exit status
      error: command '/usr/bin/gcc' failed with exit code 1
"""


EXAMPLES: list[tuple[str, str]] = [
    (
        POSTGRESQL,
        """\
  error: subprocess-exited-with-error

  \u00d7 Getting requirements to build wheel did not run successfully.
  │ exit code: 1
  ╰─> [35 lines of output]
      running egg_info
      creating psycopg2.egg-info
      writing psycopg2.egg-info/PKG-INFO
      writing dependency_links to psycopg2.egg-info/dependency_links.txt
      writing top-level names to psycopg2.egg-info/top_level.txt
      writing manifest file 'psycopg2.egg-info/SOURCES.txt'

      Error: pg_config executable not found.

      pg_config is required to build psycopg2 from source.  Please add the directory
      containing pg_config to the $PATH or specify the full executable path with the
      option:

          python setup.py build_ext --pg-config /path/to/pg_config build ...

      or with the pg_config option in 'setup.cfg'.

      If you prefer to avoid building psycopg2 from source, please install the PyPI
      'psycopg2-binary' package instead.

      [end of output]

  note: This error originates from a subprocess, and is likely not a problem with pip.
ERROR: Failed to build 'psycopg2' when getting requirements to build wheel
""",
    ),
    (POSTGRESQL, header_missing("./psycopg/psycopg.h", 36, "libpq-fe.h")),
    (POSTGRESQL, library_missing("pq")),
    (POSTGRESQL, "      sh: line 1: pg_config: command not found\n"),
    (
        MYSQL,
        """\
      /bin/sh: 1: pkg-config: not found
      /bin/sh: 1: pkg-config: not found
      Trying pkg-config --exists mysqlclient
      Command 'pkg-config --exists mysqlclient' returned non-zero exit status 127.
      Trying pkg-config --exists mariadb
      Command 'pkg-config --exists mariadb' returned non-zero exit status 127.
      Traceback (most recent call last):
        File "<string>", line 156, in <module>
        File "<string>", line 49, in get_config_posix
        File "<string>", line 28, in find_package_name
      Exception: Can not find valid pkg-config name.
      Specify MYSQLCLIENT_CFLAGS and MYSQLCLIENT_LDFLAGS env vars manually
      [end of output]
""",
    ),
    (MYSQL, "      /bin/sh: 1: mysql_config: not found\n      OSError: mysql_config not found\n"),
    (MYSQL, "      /bin/sh: mariadb_config: command not found\n      OSError: mariadb_config not found.\n"),
    (MYSQL, header_missing("src/MySQLdb/_mysql.c", 29, "mysql.h")),
    (
        LIBXML,
        """\
      Building lxml version 5.3.0.
      Building without Cython.
      Error: Please make sure the libxml2 and libxslt development packages are installed.
      [end of output]
""",
    ),
    (
        LIBXML,
        """\
      /bin/sh: 1: xml2-config: not found
      /bin/sh: 1: xslt-config: not found
      ** make sure the development packages of libxml2 and libxslt are installed **
""",
    ),
    (LIBXML, header_missing("src/lxml/etree.c", 245, "libxml/xmlversion.h")),
    (LIBXML, header_missing("src/lxml/etree.c", 247, "libxslt/xsltconfig.h")),
    (
        GEOS,
        """\
      Could not find geos-config executable. Either append the path to geos-config to PATH or manually provide the
      include_dirs, library_dirs, libraries and other link args for compiling against a GEOS version >=3.5.
      running bdist_wheel
      running build_ext
      building 'shapely._geos' extension
      gcc -pthread -DNDEBUG -g -O3 -Wall -fPIC -I/var/lang/include/python3.13 -c shapely/_geos.c -o _geos.o
      shapely/_geos.c:1270:10: fatal error: geos_c.h: No such file or directory
      compilation terminated.
      error: command '/usr/bin/gcc' failed with exit code 1
""",
    ),
    (GEOS, header_missing("src/ufuncs.c", 8, "geos_c.h")),
    ("ffi.h (libffi)", header_missing("src/c/_cffi_backend.c", 15, "ffi.h")),
    ("ffi.h (libffi)", library_missing("ffi")),
    (
        "ffi.h (libffi)",
        """\
      Package libffi was not found in the pkg-config search path.
      Perhaps you should add the directory containing `libffi.pc'
      to the PKG_CONFIG_PATH environment variable
      No package 'libffi' found
""",
    ),
    ("Python.h (Python's own headers)", header_missing("src/demo.c", 1, "Python.h")),
    (
        RUST,
        """\
  \u00d7 Preparing metadata (pyproject.toml) did not run successfully.
  │ exit code: 1
  ╰─> [6 lines of output]

      Cargo, the Rust package manager, is not installed or is not on PATH.
      This package requires Rust and Cargo to compile extensions. Install it through
      the system's package manager or via https://rustup.rs/.

      Checking for Rust toolchain....
      [end of output]
""",
    ),
    (
        RUST,
        """\
      running build_rust

          =============================DEBUG ASSISTANCE=============================
          If you are seeing a compilation error please try the following steps to
          successfully install cryptography:
          1) Upgrade to the latest pip and try again. This will fix errors for most
             users. See: https://pip.pypa.io/en/latest/installing/#upgrading-pip
          3) Ensure you have a recent Rust toolchain installed.
          =============================DEBUG ASSISTANCE=============================

      error: can't find Rust compiler

      If you are using an outdated pip version, it is possible a prebuilt wheel is available for this package
      but pip is not able to install from it.
""",
    ),
    (RUST, "      FileNotFoundError: [Errno 2] No such file or directory: 'cargo'\n"),
    (RUST, "      FileNotFoundError: [Errno 2] No such file or directory: 'rustc'\n"),
    (RUST, "      sh: line 1: cargo: command not found\n"),
    (RUST, "      /bin/sh: 1: rustc: not found\n"),
    (OPENSSL, header_missing("build/temp/_openssl.c", 575, "openssl/opensslv.h")),
    (OPENSSL, library_missing("ssl")),
    (OPENSSL, library_missing("crypto")),
    (
        OPENSSL,
        """\
         Compiling openssl-sys v0.9.104
      error: failed to run custom build command for `openssl-sys v0.9.104`

      Caused by:
        process didn't exit successfully: `/build/tmp/target/release/build/openssl-sys/build-script-main` (exit: 101)
        --- stdout
        cargo:rustc-check-cfg=cfg(osslconf, values("OPENSSL_NO_OCB", "OPENSSL_NO_SM4"))
        cargo:rerun-if-env-changed=OPENSSL_DIR
        OPENSSL_DIR unset

        --- stderr
        Could not find openssl via pkg-config:
        The system library `openssl` required by crate `openssl-sys` was not found.
        The file `openssl.pc` needs to be installed and the PKG_CONFIG_PATH environment variable must contain it.

        Could not find directory of OpenSSL installation, and this `-sys` crate cannot
        proceed without this knowledge.
      warning: build failed, waiting for other jobs to finish...
      maturin failed
        Caused by: Failed to build a native library through cargo
""",
    ),
    (OPENSSL, "      No package 'openssl' found\n"),
    (
        "curl-config (libcurl)",
        """\
      Traceback (most recent call last):
        File "<string>", line 229, in configure_unix
      FileNotFoundError: [Errno 2] No such file or directory: 'curl-config'

      During handling of the above exception, another exception occurred:

      __main__.ConfigurationError: Could not run curl-config: [Errno 2] No such file or directory: 'curl-config'
""",
    ),
    ("curl-config (libcurl)", header_missing("src/pycurl.h", 12, "curl/curl.h")),
    ("lber.h (OpenLDAP)", header_missing("Modules/common.h", 15, "lber.h")),
    ("lber.h (OpenLDAP)", header_missing("Modules/common.h", 16, "ldap.h")),
    ("lber.h (OpenLDAP)", library_missing("ldap_r")),
    ("sasl/sasl.h (Cyrus SASL)", header_missing("sasl/saslwrapper.h", 22, "sasl/sasl.h")),
    (
        "krb5-config (Kerberos)",
        """\
      /bin/sh: 1: krb5-config: not found
      Traceback (most recent call last):
        File "/build/tmp/pip-wheel-x/gssapi/setup.py", line 109, in <module>
          raw_output = get_output(f"{kc} --libs gssapi")
      subprocess.CalledProcessError: Command 'krb5-config --libs gssapi' returned non-zero exit status 127.
""",
    ),
    ("krb5-config (Kerberos)", header_missing("gssapi/raw/creds.c", 1111, "gssapi/gssapi.h")),
    ("krb5-config (Kerberos)", header_missing("src/kerberos.h", 3, "krb5.h")),
    ("sql.h (unixODBC)", header_missing("src/pyodbc.h", 56, "sql.h")),
    ("sql.h (unixODBC)", library_missing("odbc")),
    (
        "jpeglib.h (libjpeg)",
        """\
        File "<string>", line 1066, in <module>
      RequiredDependencyException:

      The headers or library files could not be found for jpeg,
      a required dependency when compiling Pillow from source.

      Please see the install instructions at:
         https://pillow.readthedocs.io/en/latest/installation/basic-installation.html
""",
    ),
    ("jpeglib.h (libjpeg)", header_missing("src/libImaging/Jpeg.h", 12, "jpeglib.h")),
    (
        "zlib.h (zlib)",
        """\
      The headers or library files could not be found for zlib,
      a required dependency when compiling Pillow from source.
""",
    ),
    ("zlib.h (zlib)", header_missing("src/zip.c", 3, "zlib.h")),
    ("zlib.h (zlib)", library_missing("z")),
    ("zlib.h (zlib)", "/usr/bin/ld: cannot find -lz\ncollect2: error: ld returned 1 exit status\n"),
    ("bzlib.h (bzip2)", library_missing("bz2")),
    ("lzma.h (XZ)", header_missing("src/xz.c", 3, "lzma.h")),
    ("lzma.h (XZ)", library_missing("lzma")),
    ("zmq.h (ZeroMQ)", header_missing("build/temp/scratch/vers.c", 4, "zmq.h")),
    ("zmq.h (ZeroMQ)", library_missing("zmq")),
    (HDF5, header_missing("/build/tmp/pip-wheel-x/tables/src/utils.h", 1, "hdf5.h")),
    (HDF5, library_missing("hdf5")),
    ("magic.h (libmagic)", header_missing("magic.c", 4, "magic.h")),
    ("yaml.h (LibYAML)", header_missing("yaml/_yaml.h", 2, "yaml.h")),
    ("snappy-c.h (Snappy)", header_missing("src/snappy/snappy_cffi.c", 570, "snappy-c.h")),
    ("snappy-c.h (Snappy)", library_missing("snappy")),
    ("graphviz/cgraph.h (Graphviz)", header_missing("pygraphviz/graphviz_wrap.c", 3023, "graphviz/cgraph.h")),
    ("graphviz/cgraph.h (Graphviz)", library_missing("cgraph")),
    ("gmp.h (GMP)", header_missing("src/gmpy2.h", 57, "gmp.h")),
    ("gmp.h (GMP)", library_missing("gmp")),
    ("sndfile.h (libsndfile)", header_missing("src/sound.c", 3, "sndfile.h")),
    (
        "a Fortran compiler",
        """\
      ../meson.build:88:0: ERROR: Unknown compiler(s): [['gfortran'], ['flang-new'], ['flang'], ['ifort'], ['ifx']]
      The following exception(s) were encountered:
      Running `gfortran --help` gave "[Errno 2] No such file or directory: 'gfortran'"
      Running `gfortran --version` gave "[Errno 2] No such file or directory: 'gfortran'"
""",
    ),
    ("a Fortran compiler", "      sh: line 1: gfortran: command not found\n"),
    (
        "CMake",
        """\
        File "<string>", line 120, in get_cmake_version
      RuntimeError:
      *******************************************************************
       CMake must be installed to build the following extensions: _dlib_pybind11
      *******************************************************************
""",
    ),
    ("CMake", "      FileNotFoundError: [Errno 2] No such file or directory: 'cmake'\n"),
    ("CMake", "      /bin/sh: 1: cmake: not found\n"),
    ("CMake", "      scikit_build_core.errors.CMakeNotFoundError: Could not find CMake with version >=3.15\n"),
    (
        "SWIG",
        """\
      building 'M2Crypto._m2crypto' extension
      swigging src/SWIG/_m2crypto.i to src/SWIG/_m2crypto_wrap.c
      swig -python -py3 -o src/SWIG/_m2crypto_wrap.c src/SWIG/_m2crypto.i
      unable to execute 'swig': No such file or directory
      error: command 'swig' failed with exit status 1
""",
    ),
    ("SWIG", "      RuntimeError: swig executable not found on path!\n"),
    ("git", "      FileNotFoundError: [Errno 2] No such file or directory: 'git'\n"),
    ("git", "ERROR: Cannot find command 'git' - do you have 'git' installed and in your PATH?\n"),
    ("pkg-config", "      /bin/sh: 1: pkg-config: not found\n"),
    ("pkg-config", "      FileNotFoundError: [Errno 2] No such file or directory: 'pkg-config'\n"),
    (
        "a C++ compiler",
        """\
      gcc -pthread -DNDEBUG -g -O3 -Wall -fPIC -c ./lib/ujson.cpp -o build/temp/ujson.o
      gcc: fatal error: cannot execute 'cc1plus': execvp: No such file or directory
      compilation terminated.
      error: command '/usr/bin/gcc' failed with exit code 1
""",
    ),
    ("a C++ compiler", "      error: command 'g++' failed: No such file or directory\n"),
]


@pytest.mark.parametrize(("what", "output"), EXAMPLES)
def test_what_a_build_lacks_is_told_with_the_packages_that_bring_it(what: str, output: str) -> None:
    missing = find_missing(output.splitlines())
    assert missing is not None
    assert missing.what == what
    (row,) = [row for row in ROWS if row["what"] == what]
    assert missing.packages == {manager: row[manager] for manager in ("apt", "dnf", "yum") if manager in row}


def test_every_row_has_an_example() -> None:
    assert {row["what"] for row in ROWS} == {what for what, _ in EXAMPLES}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["what"])
def test_every_row_is_whole(row: dict[str, Any]) -> None:
    assert set(row) <= {"what", "patterns", "apt", "dnf", "yum"}
    assert row["patterns"]
    assert "apt" in row
    for pattern in row["patterns"]:
        assert re.compile(pattern).search("") is None


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["what"])
def test_a_hint_can_be_written_into_a_recipe_as_it_is(row: dict[str, Any]) -> None:
    (output,) = [output for what, output in EXAMPLES if what == row["what"]][:1]
    missing = find_missing(output.splitlines())
    assert missing is not None
    line = missing.hint.removeprefix("add to the recipe: ")
    recipe = parse_recipe(f'name = "demo"\nrequirements = ["demo"]\n{line}\n', folder=Path("demo"))
    expected = {manager: tuple(row[manager].split()) for manager in ("apt", "dnf", "yum") if manager in row}
    assert dict(recipe.build.system_packages) == expected
    assert all(expected.values())


# What other versions of the tools, and other shells, print.
ALSO_KNOWN = [
    ("bzlib.h (bzip2)", header_missing("src/bz.c", 3, "bzlib.h")),
    # In a UTF-8 locale, in which builds run, gcc quotes with other marks.
    ("a C++ compiler", "gcc: fatal error: cannot execute \u2018cc1plus\u2019: execvp: No such file or directory\n"),
    # pkgconf, which is the pkg-config of Amazon Linux 2023 and of Debian 12.
    ("ffi.h (libffi)", "Package 'libffi', required by 'virtual:world', not found\n"),
    (OPENSSL, "Package 'openssl', required by 'virtual:world', not found\n"),
    # setuptools from 59 on.
    ("SWIG", "swig -python -o demo_wrap.c demo.i\nerror: command 'swig' failed: No such file or directory\n"),
    # bash, which is the sh of Amazon Linux.
    ("git", "sh: line 1: git: command not found\n"),
    # psycopg-c.
    (
        POSTGRESQL,
        "couldn't run 'pg_config --includedir': [Errno 2] No such file or directory: 'pg_config'\n",
    ),
    # h5py.
    (
        HDF5,
        """\
error: Unable to load dependency HDF5, make sure HDF5 is installed properly
on sys.platform='linux' with platform.machine()='x86_64'
error: libhdf5.so: cannot open shared object file: No such file or directory
""",
    ),
]
# What leads the rows astray: the last line says what is missing.
MISLEADING = [
    ("the header uuid/uuid.h", "checking for krb5-config... /usr/bin/krb5-config\n"),
    ("the header uuid/uuid.h", "Using xml2-config and xslt-config from /usr/bin\n"),
    ("the header uuid/uuid.h", "Checking for Rust toolchain....\n"),
    ("the header linux/magic.h", ""),
    ("the header netinet/igmp.h", ""),
]


@pytest.mark.parametrize(("what", "output"), ALSO_KNOWN)
def test_outputs_of_well_known_tools_are_known(what: str, output: str) -> None:
    missing = find_missing(output.splitlines())
    assert missing is not None
    assert missing.what == what


@pytest.mark.parametrize(("what", "before"), MISLEADING)
def test_what_is_mentioned_is_not_taken_for_what_is_missing(what: str, before: str) -> None:
    header = what.removeprefix("the header ")
    missing = find_missing((before + header_missing("demo.c", 1, header)).splitlines())
    assert missing is not None
    assert missing.what == what


# What no row knows.


@pytest.mark.parametrize(
    ("output", "what"),
    [
        (header_missing("src/demo.c", 3, "uuid/uuid.h"), "the header uuid/uuid.h"),
        (header_missing("src/demo.cpp", 3, "c++config+x.hpp"), "the header c++config+x.hpp"),
        (library_missing("rdkafka"), "the library rdkafka"),
        ("/usr/bin/ld: cannot find -lstdc++\ncollect2: error: ld returned 1 exit status\n", "the library stdc++"),
        (
            "/usr/bin/ld: skipping incompatible /lib/libx.so when searching for -lx\nld: cannot find -lx\n",
            "the library x",
        ),
        (
            "Package libsystemd was not found in the pkg-config search path.\nNo package 'libsystemd' found\n",
            "the module libsystemd",
        ),
        ("Package 'gtk+-3.0', required by 'virtual:world', not found\n", "the module gtk+-3.0"),
        ("Package 'gobject-2.0', required by 'gtk+-3.0', not found\n", "the module gobject-2.0"),
        ("configure: error: Package 'demo' not found\n", "the module demo"),
        ("/bin/sh: 1: thrift: not found\n", "the program thrift"),
        ("      sh: line 1: llvm-config-15: command not found\n", "the program llvm-config-15"),
        ("bash: bison: command not found\n", "the program bison"),
        ("flex: not found\n", "the program flex"),
        ("FileNotFoundError: [Errno 2] No such file or directory: 'protoc'\n", "the file protoc"),
    ],
)
def test_what_no_row_knows_is_named(output: str, what: str) -> None:
    missing = find_missing(output.splitlines())
    assert missing is not None
    assert (missing.what, missing.packages) == (what, {})
    error = build_failure("demo==1.0", TARGET, output.splitlines())
    assert error.what == f"demo==1.0 cannot be built for python3.13-x86_64: {what} is missing"
    assert error.hint == "find the system package that brings it, and name it under system-packages in the recipe"


@pytest.mark.parametrize("line", ["make: flex: No such file or directory", "make[1]: flex: Command not found"])
def test_a_program_that_make_does_not_find_is_named(line: str) -> None:
    missing = find_missing([line])
    assert missing is not None
    assert missing.what == "the program flex"


@pytest.mark.parametrize(
    "output",
    [
        "",
        "      AttributeError: module 'configparser' has no attribute 'SafeConfigParser'\n",
        "      demo.c:4:5: error: implicit declaration of function 'foo'\n      compilation terminated.\n",
        "      warning: no previously-included files matching '*.pyc' found anywhere in distribution\n",
        "      warning: manifest_maker: standard file '-c' not found\n",
        "      -- Looking for pthread_create in pthread - not found\n      -- Could NOT find OpenMP_C\n",
        "      checking for inline... no\n      ModuleNotFoundError: No module named 'numpy'\n",
    ],
)
def test_where_nothing_is_missing_the_end_of_the_output_is_told(output: str) -> None:
    assert find_missing(output.splitlines()) is None
    error = build_failure("demo==1.0", TARGET, output.splitlines())
    assert (error.code, error.exit_code) == ("build-failed", 3)
    assert error.what == "demo==1.0 cannot be built for python3.13-x86_64"
    assert error.causes == tuple(output.splitlines())
    assert error.hint == "the lines above are the end of its output"


def test_what_is_known_wins_over_what_stands_before_it() -> None:
    lines = [*header_missing("a.c", 1, "unknown.h").splitlines(), *library_missing("pq").splitlines()]
    missing = find_missing(lines)
    assert missing is not None
    assert missing.what == POSTGRESQL


def test_what_is_particular_wins_over_what_is_general() -> None:
    lines = ["/bin/sh: 1: pkg-config: not found", "Exception: Can not find valid pkg-config name."]
    for order in (lines, lines[::-1]):
        missing = find_missing(order)
        assert missing is not None
        assert missing.what == MYSQL


def test_what_a_compiler_does_not_find_is_told_before_what_a_shell_looked_for() -> None:
    lines = ["/bin/sh: 1: first: not found", "a.c:1:10: fatal error: second.h: No such file or directory"]
    missing = find_missing(lines)
    assert missing is not None
    assert missing.what == "the header second.h"


@pytest.mark.xfail(reason="what a compiler lacks wins, even where a build went on without it")
def test_a_header_that_a_build_gets_along_without_is_not_blamed() -> None:
    tried = header_missing("build/temp/check_libyaml.c", 2, "yaml.h")
    went_on = "libyaml is not found or a compiler error: forcing --without-libyaml\nerror: can't find Rust compiler\n"
    missing = find_missing((tried + went_on).splitlines())
    assert missing is not None
    assert missing.what == RUST


def test_any_iterable_of_lines_can_be_searched() -> None:
    missing = find_missing(iter(library_missing("pq").splitlines()))
    assert missing is not None
    assert missing.what == POSTGRESQL


# The error.


def test_the_error_of_a_build_says_what_is_missing_and_what_to_write() -> None:
    pin = Pin(name="psycopg2", version="2.9.10", hashes=("0" * 64,))
    lines = [f"line {number}" for number in range(30)] + ["Error: pg_config executable not found."]
    error = build_failure(pin, TARGET, lines)
    assert (error.code, error.exit_code) == ("build-failed", 3)
    assert error.what == f"psycopg2==2.9.10 cannot be built for python3.13-x86_64: {POSTGRESQL} is missing"
    assert error.causes == tuple(lines[-15:])
    lists = 'apt = ["libpq-dev"], dnf = ["libpq-devel"], yum = ["postgresql-devel"]'
    assert error.hint == f"add to the recipe: system-packages = {{ {lists} }}"


def test_a_cause_before_the_lines_that_are_told_is_found() -> None:
    lines = ["Error: pg_config executable not found.", *(f"line {number}" for number in range(30))]
    error = build_failure("psycopg2==2.9.10", TARGET, lines)
    assert POSTGRESQL in error.what
    assert error.causes == tuple(lines[-15:])


def test_a_row_without_a_package_manager_leaves_it_out() -> None:
    error = build_failure("shapely==2.0", TARGET, header_missing("a.c", 1, "geos_c.h").splitlines())
    assert error.hint == 'add to the recipe: system-packages = { apt = ["libgeos-dev"] }'


@pytest.mark.parametrize("needed", ["setuptools-scm>=8", "flit_core<4,>=3.8", "maturin==1.9.4"])
def test_a_build_requirement_that_cannot_be_had_is_named(needed: str) -> None:
    output = f"""\
  \u00d7 installing build dependencies did not run successfully.
  │ exit code: 1
  ╰─> [4 lines of output]
      Looking in links: /build/sources
      ERROR: Could not find a version that satisfies the requirement {needed} (from versions: none)
      ERROR: No matching distribution found for {needed}
      [end of output]

  note: This error originates from a subprocess, and is likely not a problem with pip.
"""
    error = build_failure("demo==1.0", TARGET, output.splitlines())
    assert error.code == "build-failed"
    assert error.what == (
        f"demo==1.0 cannot be built for python3.13-x86_64: it needs {needed} to build, which cannot be had"
    )
    assert error.causes == tuple(output.splitlines())
    assert "--build-network none" in str(error.hint)


# What the tools of this machine say.


def said(*command: str | Path, given: str = "") -> list[str]:
    done = subprocess.run(
        [str(word) for word in command],
        input=given,
        capture_output=True,
        text=True,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    assert done.returncode != 0
    return (done.stdout + done.stderr).splitlines()


def test_what_a_real_compiler_and_linker_say_is_understood() -> None:
    require_gcc()
    compiling = said("gcc", "-x", "c", "-fsyntax-only", "-", given="#include <nowhere/missing.h>\n")
    linking = said("gcc", "-x", "c", "-shared", "-o", os.devnull, "-", "-lnowhere_missing", given="int nothing;\n")
    for lines, what in ((compiling, "the header nowhere/missing.h"), (linking, "the library nowhere_missing")):
        missing = find_missing(lines)
        assert missing is not None, lines
        assert missing.what == what


@pytest.mark.parametrize("shell", ["sh", "bash", "dash", "busybox"])
def test_what_a_real_shell_says_is_understood(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    lines = said(shell, *(["sh"] if shell == "busybox" else []), "-c", "nowhere-missing --version")
    missing = find_missing(lines)
    assert missing is not None, lines
    assert missing.what == "the program nowhere-missing"


def test_what_a_real_pkg_config_says_is_understood() -> None:
    if shutil.which("pkg-config") is None:
        pytest.skip("there is no pkg-config here")
    lines = said("pkg-config", "--print-errors", "--cflags", "nowhere-missing")
    missing = find_missing(lines)
    assert missing is not None, lines
    assert missing.what == "the module nowhere-missing"


# Packages that pip cannot even ask what they need.

BACKEND = """\
import os


def step(name):
    if name == {step!r}:
        print("  /bin/sh: 1: pg_config: not found")
        raise SystemExit(1)


def get_requires_for_build_wheel(config_settings=None):
    step("requirements")
    return []


def prepare_metadata_for_build_wheel(folder, config_settings=None):
    step("metadata")
    place = os.path.join(folder, "needy-1.0.dist-info")
    os.mkdir(place)
    with open(os.path.join(place, "METADATA"), "w") as file:
        file.write("Metadata-Version: 2.1\\nName: needy\\nVersion: 1.0\\n")
    return "needy-1.0.dist-info"


def build_wheel(folder, config_settings=None, metadata_directory=None):
    step("wheel")
"""


@pytest.fixture
def run_pip(tmp_path: Path) -> Callable[..., list[str]]:
    """Runs pip or pip-compile over a source package whose build fails at a step, and gives all that it printed."""

    def run(step: str, *command: str) -> list[str]:
        texts = {
            "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
            "backend.py": BACKEND.format(step=step),
            "PKG-INFO": "Metadata-Version: 2.1\nName: needy\nVersion: 1.0\n",
        }
        with tarfile.open(tmp_path / "needy-1.0.tar.gz", "w:gz") as archive:
            for name, text in texts.items():
                entry = tarfile.TarInfo(f"needy-1.0/{name}")
                entry.size = len(text)
                archive.addfile(entry, io.BytesIO(text.encode()))
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
        env = {**kept, "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=tmp_path,
            input="needy\n",
            capture_output=True,
            text=True,
            env={**env, "PIP_CACHE_DIR": str(tmp_path / "cache"), "PYTHONUTF8": "1"},
        )
        assert done.returncode != 0, done.stdout + done.stderr
        return (done.stdout + done.stderr).splitlines()

    return run


PIP_COMPILE = ("piptools", "compile", "--verbose", "--allow-unsafe", "--no-config", "--output-file", "-", "-")


@pytest.mark.parametrize("step", ["requirements", "metadata", "wheel"])
def test_what_pip_says_of_a_build_that_fails_is_understood(step: str, run_pip: Callable[..., list[str]]) -> None:
    lines = run_pip(step, "pip", "wheel", "--no-deps", "--wheel-dir", "built", "needy")
    error = build_failure("needy==1.0", TARGET, lines)
    assert error.what == f"needy==1.0 cannot be built for python3.13-x86_64: {POSTGRESQL} is missing"


@pytest.mark.skipif(Version(version("pip")) < Version("25.3"), reason="pip in build images is newer")
@pytest.mark.parametrize("step", ["requirements", "metadata"])
def test_what_pip_compile_says_of_a_package_that_cannot_be_asked_is_understood(
    step: str, run_pip: Callable[..., list[str]]
) -> None:
    lines = run_pip(step, *PIP_COMPILE)
    error = metadata_failure("\n".join(lines), TARGET)
    assert isinstance(error, BuildError)
    assert "needy, asked what it needs, cannot be built for python3.13-x86_64" in error.what
    assert POSTGRESQL in error.what
    assert "          /bin/sh: 1: pg_config: not found" in error.causes
    assert not any("Traceback" in line or "pip/_internal" in line for line in error.causes)


VERBOSE = """\
  Using cached demo-1.0.tar.gz (3.0 kB)
  error: subprocess-exited-with-error

  \u00d7 Getting requirements to build wheel did not run successfully.
  │ exit code: 1
  ╰─> [1 lines of output]
      AttributeError: no such thing in demo
      [end of output]

  note: This error originates from a subprocess, and is likely not a problem with pip.
Traceback (most recent call last):
  File "/venv/lib/python3.13/site-packages/pip/_internal/resolution/resolvelib/candidates.py", line 242, in _prepare
    dist = self._prepare_distribution()
FileNotFoundError: [Errno 2] No such file or directory: 'git'
"""


@pytest.mark.parametrize(
    "last",
    [
        "ERROR: Failed to build 'demo.x-y_z' when getting requirements to build wheel",
        "pip._internal.exceptions.FailedToPrepareCandidate: Failed to build 'demo.x-y_z' when preparing metadata",
        "ERROR: Failed to build demo.x-y_z when getting requirements to build wheel",
    ],
)
def test_pips_own_traceback_is_cut_off(last: str) -> None:
    error = metadata_failure(f"{VERBOSE}{last}\n", TARGET)
    assert error is not None
    assert error.what == "demo.x-y_z, asked what it needs, cannot be built for python3.13-x86_64"
    assert error.causes == tuple(VERBOSE.splitlines()[:9])
    assert error.causes[-3:] == ("      AttributeError: no such thing in demo", "      [end of output]", "")


def test_an_output_without_a_traceback_is_told_to_its_end() -> None:
    error = metadata_failure("one\ntwo\nERROR: Failed to build 'demo' when preparing metadata\nthree", TARGET)
    assert error is not None
    assert error.causes == ("one", "two", "ERROR: Failed to build 'demo' when preparing metadata", "three")


@pytest.mark.parametrize(
    "output",
    [
        "",
        "ERROR: No matching distribution found for demo\n",
        "Failed to build demo\nERROR: Failed to build one or more wheels\n",
        "ERROR: Cannot install demo==1 and demo==2 because these package versions have conflicting dependencies.\n",
    ],
)
def test_other_failures_of_resolving_are_not_taken_for_a_build(output: str) -> None:
    assert metadata_failure(output, TARGET) is None
