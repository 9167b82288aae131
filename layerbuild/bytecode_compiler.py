"""Compiles modules; run by a target's interpreter, as a program of its own that imports nothing of layerbuild.

Its argument is a file with a JSON object: ``archive``, a file that holds the sources; ``files``, a list of [offset,
compressed size, compression method as in zips, file name for tracebacks]; ``out``, the file that all .pyc are written
to, one after the other. It prints the list of their sizes; 0 is for a file that cannot be compiled.

The bytes depend on the interpreter's state: which strings are interned, how often objects are referred to. So each
file is compiled in a child that was forked off the same state. Where there is no fork, the caller gives one file.
"""

import contextlib
import importlib.util
import json
import marshal
import os
import struct
import sys
import zlib

# A constant expression may ask for more than a machine has.
SECONDS, MEMORY = 60, 4 << 30
UNCHECKED_HASH = 1  # PEP 552: the hash is there, and nobody compares it.


def compiled(source, name):
    """The content of a .pyc that is valid whatever the dates of files are."""
    code = compile(source, name, "exec", dont_inherit=True, optimize=0)
    if sys.version_info < (3, 11) and has_unordered(code):
        raise ValueError("the order of a set is by addresses, and another in each process")
    header = importlib.util.MAGIC_NUMBER + struct.pack("<I", UNCHECKED_HASH) + importlib.util.source_hash(source)
    return header + marshal.dumps(code)


def has_unordered(code):
    """Whether there is a constant set whose order hash seeds do not decide, as None's hash is its address."""
    for value in code.co_consts:
        if isinstance(value, frozenset) and any(not isinstance(item, (str, bytes, int, float)) for item in value):
            return True
        if isinstance(value, type(code)) and has_unordered(value):
            return True
    return False


def limited():
    import resource

    for kind, wanted in ((resource.RLIMIT_CPU, SECONDS), (resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_CORE, 0)):
        hard = resource.getrlimit(kind)[1]
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(ValueError, OSError):  # not every system has each
            resource.setrlimit(kind, (limit, limit))


def in_child(source, name):
    """What `compiled` returns in a child; empty where it raises, or where that ends the child."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(read)
            limited()
            data = compiled(source, name)
            with open(write, "wb") as pipe:
                pipe.write(data)
        except BaseException:
            os._exit(1)
        os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:
        data = pipe.read()
    return data if os.waitpid(child, 0)[1] == 0 else b""


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        request = json.load(file)
    sizes = []
    with open(request["archive"], "rb") as archive, open(request["out"], "wb") as out:
        for offset, size, method, name in request["files"]:
            archive.seek(offset)
            source = archive.read(size)
            if method:
                source = zlib.decompress(source, -15)
            try:
                data = in_child(source, name) if hasattr(os, "fork") else compiled(source, name)
            except Exception:
                data = b""
            sizes.append(len(data))
            out.write(data)
    print(json.dumps(sizes))


main()
