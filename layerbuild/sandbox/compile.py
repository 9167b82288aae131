"""A compiler where this machine has none: the CPython of a sandbox, mostly a container's."""

from __future__ import annotations

import base64
import json
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from layerbuild.bytecode import COMPILER, COMPILER_FLAGS, divided
from layerbuild.errors import MachineError
from layerbuild.sandbox import GUEST, SandboxFile
from layerbuild.sandbox.smoke import LIMITS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from layerbuild.layer import LayerFile
    from layerbuild.sandbox import Sandbox


class SandboxCompiler:
    """See `layerbuild.bytecode.Compiler`. The sources go in as one file; what is compiled comes out by the driver."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self.version = sandbox.interpreter

    def compiled(self, members: Sequence[LayerFile]) -> list[bytes]:
        """The .pyc of each module; empty for those that cannot be compiled."""
        sources = [file.content() for file in members]
        starts = [end - len(source) for end, source in zip(accumulate(map(len, sources)), sources, strict=True)]
        request = {
            "archive": f"/{GUEST}/sources",
            "files": [
                [start, len(source), 0, f"/opt/{file.path}"]
                for start, source, file in zip(starts, sources, members, strict=True)
            ],
            "out": "/tmp/out",  # noqa: S108 - in there
        }
        contents = {"compiler.py": COMPILER.read_bytes(), "sources": b"".join(sources)}
        contents["request"] = json.dumps(request).encode()
        content = [
            SandboxFile(f"{GUEST}/{name}", 0o644, len(data), lambda data=data: data)  # type: ignore[misc]
            for name, data in contents.items()
        ]
        spec: dict[str, Any] = {
            "kind": "compile",
            "flags": list(COMPILER_FLAGS),
            "timeout": LIMITS.seconds,
            "memory": LIMITS.memory,
            "environment": {},
        }
        for said in self._sandbox.run(content, spec, LIMITS, network="none"):
            if "compiled" in said:
                return divided(base64.b64decode(said["compiled"]), said["sizes"])
        raise MachineError("sandbox-failed", "the sandbox cannot compile")
