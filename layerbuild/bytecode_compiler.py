"""Compiles modules; run by a target's interpreter, as a program of its own that imports nothing of layerbuild.

Its argument is a file with a JSON object: ``archive``, a file that holds the sources; ``files``, a list of [offset,
compressed size, compression method as in zips, file name for tracebacks]; ``out``, the file that all .pyc are written
to, one after the other. It prints the list of their sizes; 0 is for a file that cannot be compiled.

The bytes depend on the interpreter's state: which strings are interned, how often objects are referred to. So each
file is compiled in a child that was forked off the same state. Where there is no fork, the caller gives one file.
"""

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
    header = importlib.util.MAGIC_NUMBER + struct.pack("<I", UNCHECKED_HASH) + importlib.util.source_hash(source)
    return header + marshal.dumps(code)


def limited():
    import resource

    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


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
