"""What `Loader` says a library comes from is what the real ld.so does with the same files at /opt."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from os import geteuid
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from layerbuild.checks.loader import Loader, Need
from layerbuild.target import Target, select_targets
from layerbuild.tree import Tree, read_folder
from tests.elf_files import gcc, library, require_gcc, with_machine

(TARGET,) = select_targets(["python3.12-x86_64"])
# Lambda's, without /usr/lib64, which is where some systems' loaders look by themselves at last.
LIBRARY_PATH = "/var/lang/lib:/lib64:/var/runtime:/var/runtime/lib:/var/task:/var/task/lib:/opt/lib"
# Folders that loaders look into at last, when all else has failed: what is found there is missing on Lambda.
LAST = ("usr/lib", "usr/lib64")
SYSTEM = ("libutil.so.1", "libanl.so.1")

# Opens a file in a process of its own and prints what is loaded then, and what each name leads to.
PROBE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <limits.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char *real(const char *path) {
    static char buffer[PATH_MAX];
    return realpath(path, buffer) ? buffer : "?";
}

int main(int count, char **words) {
    if (chdir("/var/task"))
        return 1;
    struct link_map *root = dlopen(words[1], RTLD_LAZY);
    if (!root) {
        printf("refused\t%s\t\n", dlerror());
        return 0;
    }
    for (struct link_map *one = _r_debug.r_map; one; one = one->l_next)
        if (one->l_name[0] == '/')
            printf("loaded\t%s\t%s\n", one->l_name, real(one->l_name));
    for (int number = 2; number < count; number++) {
        struct link_map *found = dlopen(words[number], RTLD_LAZY | RTLD_NOLOAD);
        printf("found\t%s\t%s\n", words[number], found ? real(found->l_name) : "");
    }
    return 0;
}
"""


@dataclass(frozen=True)
class Lib:
    """A library to be made."""

    needed: tuple[str, ...] = ()
    soname: str = ""
    rpath: str | None = None
    runpath: str | None = None

    def made(self) -> bytes:
        return library(self.soname, needed=self.needed, rpath=self.rpath, runpath=self.runpath)


class Link(NamedTuple):
    """A symbolic link to be made."""

    target: str


# Path below /opt to what lies there.
Layout = Mapping[str, Lib | Link | bytes]
# A file and a name that it needs, to the file that is loaded for that: ``runtime`` for the system's, None for none.
Found = dict[tuple[str, str], str | None]
UNKNOWN = "unknown"


def write(folder: Path, layout: Layout) -> None:
    for path, content in layout.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Link):
            place.symlink_to(content.target)
        else:
            place.write_bytes(content.made() if isinstance(content, Lib) else content)


def needs_of(tree: Tree, target: Target = TARGET) -> list[Need]:
    """What `Loader` says of a layer, asked as the checks ask it."""

    def real_path(path: str) -> str | None:
        real = tree.real_path(path.removeprefix("/opt/")) if path.startswith("/opt/") else None
        return None if real is None else f"/opt/{real}"

    files = {f"/opt/{path}": entry.facts["elf"] for path, entry in tree.entries.items() if "elf" in entry.facts}
    return list(Loader(files, real_path, target).needs())


def simulated(tree: Tree) -> Found:
    return {(need.path, need.name): need.found for need in needs_of(tree)}


@dataclass
class Run:
    """What the real loader did with one file."""

    refused: str = ""
    loaded: dict[str, str] = field(default_factory=dict)
    found: dict[str, str] = field(default_factory=dict)


class RealLoader:
    """This machine's ld.so, in a root folder that has nothing but it, a few system libraries, and /opt."""

    def __init__(self, folder: Path) -> None:
        self._root = folder / "root"
        self.opt = self._root / "opt"
        self._stubs: set[str] = set()
        for name in ("lib64", "var/task", *LAST):
            (self._root / name).mkdir(parents=True)
        (folder / "probe.c").write_text(PROBE)
        gcc("-O1", "-o", self._root / "probe", folder / "probe.c", "-ldl")
        done = subprocess.run(["ldd", self._root / "probe"], capture_output=True, text=True, check=True)
        for word in done.stdout.split():
            if word.startswith("/"):
                shutil.copy(word, self._root / "lib64" / Path(word).name)
        for name in SYSTEM:
            (self._root / "lib64" / name).unlink(missing_ok=True)
            (self._root / "lib64" / name).write_bytes(library(name))

    def lay_out(self, layout: Layout) -> None:
        shutil.rmtree(self.opt, ignore_errors=True)
        self.opt.mkdir()
        write(self.opt, layout)

    def run(self, path: str, names: tuple[str, ...] = (), *, stubs: bool) -> Run:
        """Opens a file.

        Args:
            path: the file's.
            names: to be looked up when all is loaded. A name leads to one file in a process, whoever needs it.
            stubs: put something in the last place that the loader looks at for each name, so that what is missing
                keeps it from nothing else.
        """
        self._set_stubs({name for name in names if "/" not in name and name not in SYSTEM} if stubs else set())
        done = subprocess.run(
            ["chroot", str(self._root), "/probe", path, *names],
            env={"LD_LIBRARY_PATH": LIBRARY_PATH, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        ran = Run()
        for line in done.stdout.splitlines():
            kind, name, real = line.split("\t")
            if kind == "refused":
                ran.refused = name
            else:
                (ran.loaded if kind == "loaded" else ran.found)[name] = real
        return ran

    def _set_stubs(self, names: set[str]) -> None:
        for name in names ^ self._stubs:
            for folder in LAST:
                place = self._root / folder / name
                if name in names:
                    place.write_bytes(library())
                else:
                    place.unlink()
        self._stubs = names

    def found(self, tree: Tree) -> dict[tuple[str, str], set[str | None]]:
        """What each file's needed names lead to, in processes that open a file which no other one needs.

        A file that none of those processes loads is opened by itself.
        """
        files = {
            f"/opt/{path}": entry.facts["elf"]
            for path, entry in tree.entries.items()
            if entry.facts.get("elf", {}).get("machine") == TARGET.machine
        }
        needed = {path: elf.get("needed", []) for path, elf in files.items()}
        sonames = {path: elf.get("soname") for path, elf in files.items()}
        names = tuple(sorted({name for all_of_one in needed.values() for name in all_of_one}))
        runs = {path: self.run(path, names, stubs=True) for path in needed}
        refused = [ran.refused for ran in runs.values() if ran.refused]
        assert not refused
        wanted = {name.rpartition("/")[2] for name in names}
        tops = {path for path in needed if not {path.rpartition("/")[2], sonames[path]} & wanted}
        reached = {path for top in tops for path in runs[top].loaded.values()}
        results: dict[tuple[str, str], set[str | None]] = {}
        for root in (path for path in needed if path in tops or path not in reached):
            missing: set[str] = set()
            # In the order in which they were loaded, which is that in which ld.so looks at what they need.
            for place, path in runs[root].loaded.items():
                for name in needed.get(path, ()):
                    plain = name.replace("$ORIGIN/", place.rpartition("/")[0] + "/")
                    told = _told(runs[root].found[name] if plain == name else self._real(plain, runs[root]))
                    # Where another file would find it, had loading not ended at the first one: the stub hides that.
                    results.setdefault((path, name), set()).add(UNKNOWN if name in missing else told)
                    missing |= {name} if told is None else set()
        return results

    def _real(self, path: str, ran: Run) -> str:
        real = "/" + str((self._root / path[1:]).resolve().relative_to(self._root.resolve()))
        return real if real in ran.loaded.values() else ""


def _told(real: str) -> str | None:
    """A file's path as `Need.found` has it."""
    if real.startswith("/opt/"):
        return real
    return "runtime" if real.startswith("/lib64/") else None


@pytest.fixture(scope="session")
def real_loader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealLoader]:
    """A chroot; its /opt belongs to one test at a time."""
    if platform.system() != "Linux" or platform.machine() != TARGET.machine:
        pytest.skip(f"the real loader here is not one of Linux on {TARGET.machine}")
    if geteuid() != 0:
        pytest.skip("chroot needs root")
    for tool in ("chroot", "ldd"):
        if shutil.which(tool) is None:
            pytest.skip(f"there is no {tool} here")
    require_gcc()
    folder = tmp_path_factory.mktemp("loader")
    yield RealLoader(folder)
    shutil.rmtree(folder)


def compare(real_loader: RealLoader, layout: Layout) -> Found:
    """Asserts that the real loader and `Loader` agree; returns what they say."""
    real_loader.lay_out(layout)
    tree = read_folder(real_loader.opt, "test")
    told = simulated(tree)
    results = real_loader.found(tree)
    # Of several processes that load a file, `Loader` tells of one in which the need is met, if there is one.
    wrong = {
        key: (found, results[key])
        for key, found in told.items()
        if not results[key] & {found, UNKNOWN} or (found is None and results[key] - {None, UNKNOWN})
    }
    assert not wrong, f"(what Loader says, what ld.so does): {wrong}"
    assert told.keys() == results.keys()
    return told


EXT = "python/pkg/ext.so"
LAYOUTS: dict[str, Layout] = {
    # One library, one search path.
    "in /opt/lib": {EXT: Lib(("liba.so",)), "lib/liba.so": Lib()},
    "nowhere": {EXT: Lib(("liba.so",))},
    "beside it, without a path": {EXT: Lib(("liba.so",)), "python/pkg/liba.so": Lib()},
    "rpath": {EXT: Lib(("liba.so",), rpath="$ORIGIN"), "python/pkg/liba.so": Lib()},
    "runpath": {EXT: Lib(("liba.so",), runpath="$ORIGIN"), "python/pkg/liba.so": Lib()},
    "braces": {EXT: Lib(("liba.so",), runpath="${ORIGIN}/../pkg.libs"), "python/pkg.libs/liba.so": Lib()},
    "braces in an rpath": {EXT: Lib(("liba.so",), rpath="${ORIGIN}/../pkg.libs/"), "python/pkg.libs/liba.so": Lib()},
    "absolute rpath": {EXT: Lib(("liba.so",), rpath="/opt/python/deep"), "python/deep/liba.so": Lib()},
    "absolute runpath": {EXT: Lib(("liba.so",), runpath="/opt/python/deep"), "python/deep/liba.so": Lib()},
    "ORIGIN in the middle": {EXT: Lib(("liba.so",), rpath="/opt/../$ORIGIN"), "python/pkg/liba.so": Lib()},
    "a name that begins with ORIGIN": {
        EXT: Lib(("liba.so",), rpath="/opt/$ORIGINAL"),
        "$ORIGINAL/liba.so": Lib(),
    },
    "relative path": {EXT: Lib(("liba.so",), rpath="pkg:."), "python/pkg/liba.so": Lib()},
    "empty elements": {EXT: Lib(("liba.so",), rpath="::/opt/python/pkg:"), "python/pkg/liba.so": Lib()},
    "second element": {EXT: Lib(("liba.so",), rpath="/opt/none:$ORIGIN/.."), "python/liba.so": Lib()},
    "first element wins": {
        EXT: Lib(("liba.so",), runpath="$ORIGIN/..:$ORIGIN"),
        "python/liba.so": Lib(),
        "python/pkg/liba.so": Lib(),
    },
    "a path out of the layer": {EXT: Lib(("liba.so",), rpath="$ORIGIN/../../../opt/python"), "python/liba.so": Lib()},
    # Order.
    "rpath before /opt/lib": {
        EXT: Lib(("liba.so",), rpath="$ORIGIN"),
        "python/pkg/liba.so": Lib(),
        "lib/liba.so": Lib(),
    },
    "/opt/lib before runpath": {
        EXT: Lib(("liba.so",), runpath="$ORIGIN"),
        "python/pkg/liba.so": Lib(),
        "lib/liba.so": Lib(),
    },
    "rpath before the system": {
        EXT: Lib(("libutil.so.1",), rpath="$ORIGIN"),
        "python/pkg/libutil.so.1": Lib(),
    },
    "the system before runpath": {
        EXT: Lib(("libutil.so.1",), runpath="$ORIGIN"),
        "python/pkg/libutil.so.1": Lib(),
    },
    "the system before /opt/lib": {EXT: Lib(("libutil.so.1",)), "lib/libutil.so.1": Lib()},
    "rpath beside a runpath": {
        EXT: Lib(("liba.so", "libb.so"), rpath="$ORIGIN/one", runpath="$ORIGIN/two"),
        "python/pkg/one/liba.so": Lib(),
        "python/pkg/two/libb.so": Lib(),
    },
    # Inheritance.
    "rpath is inherited": {
        EXT: Lib(("liba.so",), rpath="$ORIGIN/libs"),
        "python/pkg/libs/liba.so": Lib(("libb.so",)),
        "python/pkg/libs/libb.so": Lib(),
    },
    "rpath is inherited twice": {
        EXT: Lib(("liba.so",), rpath="$ORIGIN/libs:/opt/python/far"),
        "python/pkg/libs/liba.so": Lib(("libb.so",)),
        "python/pkg/libs/libb.so": Lib(("libc1.so",)),
        "python/far/libc1.so": Lib(),
    },
    "the nearest rpath is first": {
        EXT: Lib(("liba.so",), rpath="$ORIGIN/libs"),
        "python/pkg/libs/liba.so": Lib(("libb.so",), rpath="$ORIGIN/own"),
        "python/pkg/libs/own/libb.so": Lib(),
        "python/pkg/libs/libb.so": Lib(),
    },
    "runpath is not inherited": {
        EXT: Lib(("liba.so",), runpath="$ORIGIN/libs"),
        "python/pkg/libs/liba.so": Lib(("libb.so",)),
        "python/pkg/libs/libb.so": Lib(),
    },
    "runpath shuts out what is inherited": {
        EXT: Lib(("liba.so",), rpath="$ORIGIN/libs"),
        "python/pkg/libs/liba.so": Lib(("libb.so",), runpath="/opt/none"),
        "python/pkg/libs/libb.so": Lib(),
    },
    "inherited through one with runpath": {
        EXT: Lib(("liba.so",), rpath="$ORIGIN/libs"),
        "python/pkg/libs/liba.so": Lib(("libb.so",), runpath="$ORIGIN/more"),
        "python/pkg/libs/more/libb.so": Lib(("libc1.so",)),
        "python/pkg/libs/libc1.so": Lib(),
    },
    "rpath beside a runpath is not inherited": {
        EXT: Lib(("liba.so",), rpath="$ORIGIN/one", runpath="$ORIGIN/two"),
        "python/pkg/two/liba.so": Lib(("libb.so",)),
        "python/pkg/one/libb.so": Lib(),
    },
    "a system library in an inherited rpath": {
        EXT: Lib(("liba.so",), rpath="$ORIGIN/libs"),
        "python/pkg/libs/liba.so": Lib(("libutil.so.1",)),
        "python/pkg/libs/libutil.so.1": Lib(),
    },
    # What is loaded already.
    "by soname": {
        EXT: Lib(("liba-1.so", "libb.so"), rpath="$ORIGIN"),
        "python/pkg/liba-1.so": Lib(soname="liba.so"),
        "python/pkg/libb.so": Lib(("liba.so",), runpath="/opt/none"),
    },
    "by the name it was needed by": {
        EXT: Lib(("liba.so", "libb.so"), rpath="$ORIGIN"),
        "python/pkg/liba.so": Lib(soname="liba-1.so"),
        "python/pkg/libb.so": Lib(("liba.so",), runpath="/opt/none"),
    },
    "later than it is needed": {
        EXT: Lib(("libb.so", "liba-1.so"), rpath="$ORIGIN"),
        "python/pkg/libb.so": Lib(("libc1.so",), runpath="$ORIGIN"),
        "python/pkg/libc1.so": Lib(("liba.so",), runpath="/opt/none"),
        "python/pkg/liba-1.so": Lib(soname="liba.so"),
    },
    "before a search that would find another": {
        EXT: Lib(("liba.so", "libb.so"), rpath="$ORIGIN"),
        "python/pkg/liba.so": Lib(),
        "python/pkg/libb.so": Lib(("liba.so",), rpath="$ORIGIN/own"),
        "python/pkg/own/liba.so": Lib(),
    },
    "the system's, before an rpath that has it": {
        EXT: Lib(("libutil.so.1", "libb.so"), runpath="$ORIGIN"),
        "python/pkg/libb.so": Lib(("libutil.so.1",), rpath="$ORIGIN/own"),
        "python/pkg/own/libutil.so.1": Lib(soname="libutil.so.1"),
    },
    "glibc, which every process has": {
        EXT: Lib(("libc.so.6",), rpath="$ORIGIN"),
        "python/pkg/libc.so.6": Lib(soname="libc.so.6"),
    },
    "the layer's own, before the system": {
        EXT: Lib(("libutil.so.1", "libb.so"), rpath="$ORIGIN/own:$ORIGIN"),
        "python/pkg/own/libutil.so.1": Lib(soname="libutil.so.1"),
        "python/pkg/libb.so": Lib(("libutil.so.1",), runpath="/opt/none"),
    },
    "one with a system library's soname": {
        EXT: Lib(("libhidden.so", "libutil.so.1"), runpath="$ORIGIN"),
        "python/pkg/libhidden.so": Lib(soname="libutil.so.1"),
    },
    "the file itself, by its soname": {
        EXT: Lib(("liba.so",), rpath="$ORIGIN"),
        "python/pkg/liba.so": Lib(("liba.so",)),
    },
    "the root, by its soname": {
        EXT: Lib(("liba.so",), soname="ext", rpath="$ORIGIN"),
        "python/pkg/liba.so": Lib(("ext",)),
    },
    "the root, by its file name alone": {
        EXT: Lib(("liba.so",), rpath="$ORIGIN"),
        "python/pkg/liba.so": Lib(("ext.so",), runpath="/opt/none"),
    },
    "two that need each other": {
        EXT: Lib(("liba.so",), rpath="$ORIGIN"),
        "python/pkg/liba.so": Lib(("libb.so",)),
        "python/pkg/libb.so": Lib(("liba.so",)),
    },
    "two that need each other, and nobody needs": {
        "python/pkg/liba.so": Lib(("libb.so",), rpath="$ORIGIN"),
        "python/pkg/libb.so": Lib(("liba.so",), rpath="$ORIGIN"),
    },
    "one needed twice": {
        EXT: Lib(("liba.so", "libb.so"), rpath="$ORIGIN"),
        "python/pkg/liba.so": Lib(("libc1.so",), runpath="/opt/none"),
        "python/pkg/libb.so": Lib(("libc1.so",), rpath="$ORIGIN/libs"),
        "python/pkg/libs/libc1.so": Lib(),
    },
    # Slashes.
    "an absolute name": {EXT: Lib(("/opt/python/deep/liba.so",)), "python/deep/liba.so": Lib()},
    "an absolute name with dots": {EXT: Lib(("/opt/python/./pkg/../deep//liba.so",)), "python/deep/liba.so": Lib()},
    "a name with ORIGIN": {EXT: Lib(("$ORIGIN/../deep/liba.so",)), "python/deep/liba.so": Lib()},
    "an absolute name, then its soname": {
        EXT: Lib(("/opt/python/deep/liba.so", "libb.so"), runpath="$ORIGIN"),
        "python/deep/liba.so": Lib(soname="liba.so.1"),
        "python/pkg/libb.so": Lib(("liba.so.1",)),
    },
    "an absolute name, then its file name": {
        EXT: Lib(("/opt/python/deep/liba.so", "libb.so"), runpath="$ORIGIN"),
        "python/deep/liba.so": Lib(),
        "python/pkg/libb.so": Lib(("liba.so",)),
    },
    # Links.
    "a link beside its target": {
        EXT: Lib(("liba.so.1",), rpath="$ORIGIN"),
        "python/pkg/liba.so.1": Link("liba.so.1.2.3"),
        "python/pkg/liba.so.1.2.3": Lib(soname="liba.so.1"),
    },
    "an absolute link": {
        EXT: Lib(("liba.so.1",)),
        "lib/liba.so.1": Link("/opt/python/pkg/liba.so.1"),
        "python/pkg/liba.so.1": Lib(),
    },
    "a link to nothing": {
        EXT: Lib(("liba.so",), rpath="$ORIGIN:$ORIGIN/.."),
        "python/pkg/liba.so": Link("none.so"),
        "python/liba.so": Lib(),
    },
    "a link that runs in a circle": {
        EXT: Lib(("liba.so",), rpath="$ORIGIN"),
        "python/pkg/liba.so": Link("liba.so"),
    },
    "a chain of links": {
        EXT: Lib(("liba.so",), rpath="$ORIGIN"),
        "python/pkg/liba.so": Link("liba.so.1"),
        "python/pkg/liba.so.1": Link("../../lib/deep/liba.so.1.2"),
        "lib/deep": Link("../deep"),
        "deep/liba.so.1.2": Lib(),
    },
    "a linked folder": {
        EXT: Lib(("liba.so",), rpath="$ORIGIN/libs"),
        "python/pkg/libs": Link("../../somewhere/deep"),
        "somewhere/deep/liba.so": Lib(),
    },
    "a linked /opt/lib": {EXT: Lib(("liba.so",)), "lib": Link("python/pkg"), "python/pkg/liba.so": Lib()},
    "up from a linked folder": {
        EXT: Lib(("liba.so",), rpath="$ORIGIN/link/../libs"),
        "python/pkg/link": Link("../../other/deep"),
        "other/deep/x": b"",
        "python/pkg/libs/liba.so": Lib(),
        "other/libs/liba.so": Lib(),
    },
    "up from a linked folder, by an absolute name": {
        EXT: Lib(("/opt/python/pkg/link/../libs/liba.so",)),
        "python/pkg/link": Link("../../other/deep"),
        "other/deep/x": b"",
        "other/libs/liba.so": Lib(),
    },
    "up from a folder that is not there": {
        EXT: Lib(("liba.so",), rpath="$ORIGIN/none/../libs"),
        "python/pkg/libs/liba.so": Lib(),
    },
    "ORIGIN of a linked library": {
        EXT: Lib(("liba.so",)),
        "lib/liba.so": Link("../python/pkg.libs/liba.so"),
        "python/pkg.libs/liba.so": Lib(("libb.so", "libc1.so"), runpath="$ORIGIN"),
        "python/pkg.libs/libb.so": Lib(),
        "lib/libc1.so": Lib(),
    },
    "ORIGIN of a linked folder": {
        EXT: Lib(("liba.so",), rpath="$ORIGIN/libs"),
        "python/pkg/libs": Link("../../somewhere/deep"),
        "somewhere/deep/liba.so": Lib(("libb.so",), runpath="$ORIGIN/../own"),
        "python/pkg/own/libb.so": Lib(),
        "somewhere/own/x": b"",
    },
    "one file by two names": {
        EXT: Lib(("liba.so", "liba.so.1", "libb.so"), rpath="$ORIGIN"),
        "python/pkg/liba.so": Lib(),
        "python/pkg/liba.so.1": Link("liba.so"),
        "python/pkg/libb.so": Lib(("liba.so.1",), runpath="/opt/none"),
    },
    # What is passed over.
    "another machine": {
        EXT: Lib(("liba.so",), rpath="$ORIGIN:$ORIGIN/.."),
        "python/pkg/liba.so": b"aarch64",
        "python/liba.so": Lib(),
    },
    "names with spaces": {
        "python/a b/ext.so": Lib(("lib a.so",), rpath="$ORIGIN/c d"),
        "python/a b/c d/lib a.so": Lib(),
    },
    "programs' folders and deep ones": {
        "python/lib/python3.12/site-packages/a/b/c/ext.so": Lib(("liba.so",), rpath="$ORIGIN/../../../a.libs"),
        "python/lib/python3.12/site-packages/a.libs/liba.so": Lib(("libb.so",), rpath="$ORIGIN"),
        "python/lib/python3.12/site-packages/a.libs/libb.so": Lib(),
    },
    # Several processes.
    "two modules, one of which reaches it": {
        "python/one.so": Lib(("liba.so",), rpath="$ORIGIN/libs"),
        "python/two.so": Lib(("liba.so",), runpath="$ORIGIN/libs"),
        "python/libs/liba.so": Lib(("libb.so",)),
        "python/libs/libb.so": Lib(),
    },
    "two modules with a library each": {
        "python/one/ext.so": Lib(("liba.so",), rpath="$ORIGIN"),
        "python/two/ext.so": Lib(("liba.so",), rpath="$ORIGIN"),
        "python/one/liba.so": Lib(),
        "python/two/liba.so": Lib(),
    },
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_library_is_found_where_the_real_loader_finds_it(real_loader: RealLoader, name: str) -> None:
    layout = {
        path: with_machine(library(), content.decode()) if content == b"aarch64" else content
        for path, content in LAYOUTS[name].items()
    }
    told = compare(real_loader, layout)
    # What `Loader` finds all of is what really loads.
    root = f"/opt/{next(iter(layout))}"
    opened = real_loader.run(root, stubs=False)
    assert bool(opened.refused) == (None in told.values()) or "two modules" in name, opened.refused


@pytest.mark.parametrize(
    ("missing", "reason"),
    [
        ("/opt/python/none/liba.so", "No such file"),
        ("deep/liba.so", "No such file"),
        ("./liba.so", "No such file"),
        ("/opt/python/deep", "directory"),
        ("/usr/none/liba.so", "No such file"),
    ],
)
def test_a_name_with_a_slash_that_leads_nowhere_is_missing(
    real_loader: RealLoader, missing: str, reason: str
) -> None:
    real_loader.lay_out({EXT: Lib((missing,), rpath="$ORIGIN:/opt/python"), "python/deep/liba.so": Lib()})
    refused = real_loader.run(f"/opt/{EXT}", stubs=False).refused
    assert missing in refused
    assert reason in refused
    assert simulated(read_folder(real_loader.opt, "test")) == {(f"/opt/{EXT}", missing): None}


@pytest.mark.parametrize(
    "content",
    [b"liba.so.1.2.3", b"INPUT(liba.so.1)\n" * 20, b"\x7fELF", b"", b"folder", b"whole"],
    ids=["text-instead-of-link", "ld-script", "cut-off", "empty", "folder", "whole"],
)
def test_what_is_no_library_ends_the_search(real_loader: RealLoader, content: bytes) -> None:
    """ld.so passes over a file of another machine, but gives up on one that is not a library at all."""
    first = "python/pkg/liba.so/folder" if content == b"folder" else "python/pkg/liba.so"
    real_loader.lay_out(
        {
            EXT: Lib(("liba.so",), rpath="$ORIGIN:$ORIGIN/.."),
            first: library() if content == b"whole" else content,
            "python/liba.so": Lib(),
        }
    )
    refused = real_loader.run(f"/opt/{EXT}", stubs=False).refused
    ((key, found),) = simulated(read_folder(real_loader.opt, "test")).items()
    assert key == (f"/opt/{EXT}", "liba.so")
    assert bool(refused) == (content != b"whole")
    assert found == (None if refused else "/opt/python/pkg/liba.so")


# Small graphs at random.

FOLDERS = ("lib", "python/a", "python/a/libs", "python/b.libs", "deep/down")
NAMES = ("liba.so.1", "libb.so.1", "libd.so.1", "libe.so.1", SYSTEM[0])
SEARCHED = (
    *("$ORIGIN", "${ORIGIN}", "$ORIGIN/..", "$ORIGIN/libs", "$ORIGIN/../b.libs", "${ORIGIN}/../../lib/"),
    *("/opt/lib", "/opt/python/b.libs", "/opt/python/a/libs", "/opt/linked", "/nowhere", "$ORIGIN/linked/.."),
)
SEARCH = st.none() | st.lists(st.sampled_from(SEARCHED), min_size=1, max_size=2).map(":".join)


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    places = draw(
        st.lists(st.tuples(st.sampled_from(FOLDERS), st.sampled_from(NAMES)), min_size=1, max_size=5, unique=True)
    )
    paths = [f"{folder}/{name}" for folder, name in places]
    needed = st.lists(
        st.sampled_from(NAMES) | st.sampled_from([f"/opt/{path}" for path in paths]), max_size=3, unique=True
    )
    made: dict[str, Lib | Link | bytes] = {}
    for path in (*paths, "python/a/ext.so"):
        entry = path.endswith("/ext.so")
        soname = draw(st.sampled_from(("", path.rpartition("/")[2], *NAMES))) if not entry else ""
        names = draw(needed.filter(bool) if entry else needed)
        made[path] = Lib(tuple(names), soname, draw(SEARCH), draw(SEARCH))
    free = [f"{folder}/{name}" for folder in FOLDERS for name in NAMES if f"{folder}/{name}" not in made]
    for path in draw(st.lists(st.sampled_from(free), max_size=2, unique=True)):
        made[path] = Link(f"/opt/{draw(st.sampled_from(paths))}")
    if draw(st.booleans()):
        made["linked"] = Link(draw(st.sampled_from(["python/b.libs", "/opt/deep/down", "python/a/libs"])))
    if draw(st.booleans()):
        made["python/a/linked"] = Link(draw(st.sampled_from(["../b.libs", "/opt/deep/down", "libs"])))
    return made


@settings(
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(layout=layouts())
def test_small_graphs_at_random_are_resolved_as_the_real_loader_does(real_loader: RealLoader, layout: Layout) -> None:
    told = compare(real_loader, layout)
    event(f"{len(set(told.values()))} answers")
