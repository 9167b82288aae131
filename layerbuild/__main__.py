"""The program ``layerbuild``: the one place that exits."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path


def main() -> None:
    """Runs the command line and exits with its code; 130 when interrupted."""
    try:
        for name in ("stdout", "stderr"):
            if getattr(sys, name) is None:  # the caller closed it
                setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - for good
            # A locale that cannot show a character must not end the program.
            getattr(sys, name).reconfigure(errors="backslashreplace")
        from layerbuild.cli import run

        code = run(sys.argv[1:])
        # The work is done: a late interrupt must not spoil how it is told.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    except KeyboardInterrupt:  # before or after the command line could see to it
        from layerbuild.console import Console

        code = Console().interrupted()
    sys.stdout.flush()
    sys.stderr.flush()
    if code == 130:
        # Downloads in other threads may still wait for the network: they are not waited for.
        from layerbuild.cache import remove_scratch_files

        remove_scratch_files()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
