"""What a Docker engine, its SDK and all below it say when something is wrong, as errors of ours."""

from __future__ import annotations

import json
import tarfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

from layerbuild.errors import MachineError
from layerbuild.process import redact, stop_if_interrupted

if TYPE_CHECKING:
    from collections.abc import Iterator


# What an answer that no engine would give leads to.
_NONSENSE = (json.JSONDecodeError, tarfile.TarError, LookupError, TypeError, AttributeError)


_FULL = ("no space left on device", "disk quota exceeded")


@contextmanager
def told() -> Iterator[None]:
    """Turns what the SDK and its layers raise into errors of ours."""
    import docker.errors
    import requests
    import urllib3

    try:
        yield
    except docker.errors.APIError as error:
        text = str(error.explanation or error)
        raise_known(text)
        raise MachineError("engine-refused", "the Docker engine refuses", causes=[redact(text)]) from None
    except (docker.errors.DockerException, requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        stop_if_interrupted()
        raise MachineError(
            "engine-lost",
            "the Docker engine stopped answering",
            causes=[redact(str(error))],
            hint="look at the engine (`docker info`), then run the same command again",
        ) from None
    except (*_NONSENSE, docker.errors.StreamParseError) as error:
        stop_if_interrupted()
        cause = redact(f"{type(error).__name__}: {error}")
        raise MachineError(
            "engine-lost", "the Docker engine answers nonsense, or broke off", causes=[cause]
        ) from None


def raise_known(text: str) -> None:
    """Raises the error for what the engine says, where it has one of its own."""
    if any(said in text.lower() for said in _FULL):
        raise MachineError(
            "engine-disk-full",
            "the Docker engine's disk is full",
            causes=[redact(text.strip().splitlines()[-1])],
            hint="`docker system df` shows what is on it, `docker system prune` frees what is not used",
        )
    if "exec format error" in text:
        raise MachineError(
            "no-emulation",
            "the Docker engine cannot run programs for this architecture",
            causes=[redact(text)],
            hint="install emulation on its machine: `docker run --privileged --rm tonistiigi/binfmt --install all`, "
            "or the packages qemu-user-static and binfmt-support",
        )


def unreachable(error: Exception, where: str) -> MachineError:
    """The error for an engine that cannot be spoken to."""
    reason = _innermost(error)
    causes = [redact(f"asked for at {where}"), redact(getattr(reason, "strerror", None) or str(reason))]
    if isinstance(reason, PermissionError):
        return MachineError(
            "engine-not-permitted",
            "you may not use the Docker engine's socket",
            causes=causes,
            hint="add yourself to its group (`sudo usermod -aG docker $USER`, then log in again), or use a rootless "
            "engine and DOCKER_HOST",
        )
    return MachineError(
        "no-engine",
        "there is no Docker engine to build in",
        causes=causes,
        hint="start Docker or Podman, or set DOCKER_HOST; `--builder host` needs none where all have wheels",
    )


def _innermost(error: BaseException) -> BaseException:
    """What the operating system said, below all that the SDK and its layers made of it."""
    # Its ssh connections need what it does not install by itself.
    if isinstance(error, NameError) and "SSH" in str(error):
        return ImportError("connections over ssh need paramiko: pip install 'docker[ssh]'")
    inner = error.__context__ or next((item for item in error.args if isinstance(item, BaseException)), None)
    return error if isinstance(error, OSError) and error.errno else _innermost(inner) if inner else error
