"""Imports modules and runs a script with the search path of a function; says what failed and what was loaded.

Its arguments are a JSON file, the number of a file descriptor, and names of modules, if not those of the file. It
reports a JSON object to the descriptor: ``items``, a list of [name, seconds, error], and ``loaded``, the source files
whose code was asked for, in that order.
"""

import contextlib
import json
import os
import runpy
import sys
import time
import traceback

import bootstrap

MARK = "layerbuild: imports"


def watch():
    """A list that grows by the source of each module that is loaded from one."""
    from importlib import _bootstrap_external as machinery

    loaded = []
    original = machinery.SourceLoader.get_code

    def get_code(self, fullname):
        loaded.append(self.get_filename(fullname))
        return original(self, fullname)

    machinery.SourceLoader.get_code = get_code
    return loaded


class Marks:
    """Tells what follows in the interpreter's own report of import times from what this program needed.

    Modules may do with standard error what they like: close it, or leave half a line in it.
    """

    def __init__(self, wanted):
        self.kept = os.dup(2) if wanted else None

    def put(self):
        """Writes a mark on a line of its own."""
        if self.kept is not None:
            with contextlib.suppress(Exception):
                sys.stderr.flush()
            os.dup2(self.kept, 2)
            os.write(2, "\n{}\n".format(MARK).encode())


def leave_forked(own):
    """Ends a child that ran on instead of exiting: there is one report."""
    if os.getpid() != own:
        os._exit(0)


def attempt(work, *, may_exit=False):
    """(seconds, what went wrong or an empty text)"""
    started = time.perf_counter()
    said = ""
    try:
        work()
    except SystemExit as stop:
        said = "" if may_exit and stop.code in (None, 0) else "SystemExit: {}".format(stop.code)
    except BaseException as error:
        said = "".join(traceback.format_exception(type(error), error, error.__traceback__)[-12:])
    return time.perf_counter() - started, said


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        spec = json.load(file)
    report = os.fdopen(int(sys.argv[2]), "w", encoding="utf-8")
    own = os.getpid()
    # The folder of this program is on nobody's search path.
    del sys.path[0]
    bootstrap.set_search_path()
    sys.modules.pop("bootstrap", None)
    loaded = watch() if spec["watch"] else []
    items = []
    marks = Marks(spec["kind"] == "profile")
    marks.put()
    for name in sys.argv[3:] or spec["imports"]:
        items.append([name, *attempt(lambda name=name: __import__(name))])
        leave_forked(own)
        if items[-1][2]:
            break
    marks.put()
    if spec["script"] and not any(item[2] for item in items):
        sys.argv = [spec["script"]]
        run = lambda: runpy.run_path(spec["script"], run_name="__main__")  # noqa: E731
        items.append(["smoke.py", *attempt(run, may_exit=True)])
        leave_forked(own)
    json.dump({"items": items, "loaded": loaded}, report)
    report.close()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    # What a module left running at exit is none of ours.
    os._exit(0)


main()
