"""The Docker engine: images and short-lived containers. It alone imports docker, with `running` and `engine_errors`.

Nothing of the host is mounted: files go in and come out through the engine's archive calls, so that a remote engine,
a rootless one and one inside a container serve as well as a local one.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import time
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from layerbuild.builders import Limits
from layerbuild.builders.engine_errors import raise_known, told, unreachable
from layerbuild.builders.running import Container
from layerbuild.builders.streams import BUILD_USER, Tail, tar_of
from layerbuild.errors import BuildError, MachineError
from layerbuild.process import redact, stop_if_interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from docker import APIClient

    Log = Callable[[str], object]

LABEL = "layerbuild"
RUNTIME = "/var/runtime"
PLACES = ("/opt", "/var/task", RUNTIME, "/layerbuild")
SANDBOX_USER = "993:990"  # as functions on Lambda
_DOWNLOADS = "/build/.cache/pip/http-v2"  # of pip from 23.3 on; its wheels beside are not shared between builds
_POLL_SECONDS = 0.2
_REMOVAL_SECONDS, _CONFLICT = 1.5, 409
_STEP_IMAGE = re.compile(r" ---> ([0-9a-f]{12,})")


class Engine:
    """A Docker engine, or one that speaks its language, such as Podman. Connects when first asked for something."""

    @cached_property
    def _api(self) -> APIClient:
        from docker import APIClient
        from docker.context import ContextAPI
        from docker.context.config import get_current_context_name
        from docker.utils import kwargs_from_env

        where = "its default socket"
        try:
            # DOCKER_HOST goes before the context, as for the docker command.
            name = os.environ.get("DOCKER_CONTEXT") or get_current_context_name()
            if not os.environ.get("DOCKER_HOST") and ContextAPI.get_context(name) is None:
                where = f"the Docker context {name}"
                raise LookupError("there is no such context")
            given: Any = kwargs_from_env() if os.environ.get("DOCKER_HOST") else ContextAPI.kwargs_from_context()
            where = given.get("base_url") or where
            client = APIClient(version="auto", timeout=60, use_ssh_client=True, **given)
        except Exception as error:  # whatever its layers raise: there is no engine
            raise unreachable(error, where) from None
        return client

    @property
    def architecture(self) -> str:
        """The engine's own architecture, as Docker calls it: ``amd64``, ``arm64``."""
        with told():
            return str(self._api.version()["Arch"])

    def image_id(self, reference: str, architecture: str | None = None) -> str | None:
        """The id of an image that the engine has, for an architecture; None where it has none."""
        from docker.errors import ImageNotFound

        with told():
            try:
                found: dict[str, str] = self._api.inspect_image(reference)  # type: ignore[no-untyped-call]
            except ImageNotFound:
                return None
            return found["Id"] if architecture in (None, found["Architecture"]) else None

    def pull(self, reference: str, architecture: str, log: Log) -> str:
        """Fetches an image, and returns its id.

        Raises:
            MachineError: it cannot be had.
        """
        try:
            with told():
                for row in self._api.pull(reference, platform=f"linux/{architecture}", stream=True, decode=True):
                    stop_if_interrupted()
                    if "error" in row:
                        raise_known(str(row["error"]))
                        raise _ImageError(str(row["error"]))
                    if "progress" not in row and "status" in row:
                        log(" ".join(filter(None, (row.get("id"), row["status"]))))
                found = self.image_id(reference, architecture)
        except (_ImageError, MachineError) as error:
            if isinstance(error, MachineError) and error.code != "engine-refused":
                raise
            causes = error.causes if isinstance(error, MachineError) else [redact(str(error))]
            raise MachineError(
                "image-unavailable",
                f"the image {reference} cannot be pulled for {architecture}",
                causes=causes,
                hint="check its name, the network and `docker login`; --base-image names another",
            ) from None
        if found is None:
            raise MachineError(
                "image-unavailable",
                f"the image {reference} is not there for {architecture}",
                hint="--base-image names another",
            )
        return found

    def build(
        self, files: Mapping[str, bytes], tag: str, architecture: str, arguments: Mapping[str, str], log: Log
    ) -> None:
        """Builds an image of a context in memory.

        Raises:
            BuildError: a step of it failed; the end of its output is told.
            MachineError: the engine cannot do it.
        """
        tail = Tail(log)
        context = tar_of(files)
        with (
            told(),
            self._steps() as steps,
            contextlib.closing(
                self._api.build(
                    fileobj=io.BytesIO(context),
                    custom_context=True,
                    tag=tag,
                    platform=f"linux/{architecture}",
                    buildargs=dict(arguments),
                    labels={LABEL: "image"},
                    dockerfile="Dockerfile.build",
                    rm=True,
                    forcerm=True,
                    use_config_proxy=False,
                    decode=True,
                )
            ) as rows,
        ):
            for row in rows:
                stop_if_interrupted()
                if "stream" in row:
                    steps.append(row["stream"])
                    if not row["stream"].startswith((" --->", "Removing intermediate")):
                        tail.add(row["stream"].encode())
                elif "error" in row:
                    # The engine's own disk is what a step writes to.
                    raise_known("\n".join([*tail.lines(), row["error"]]))
                    raise BuildError(
                        "image-failed",
                        f"the build image {tag} could not be made",
                        causes=[*tail.lines(), redact(str(row["error"]).strip())],
                        hint="look at the base image (--base-image) and at the recipe's system-packages",
                    )
        tail.end()

    @contextmanager
    def _steps(self) -> Iterator[list[str]]:
        """The output of an image's steps; where they end early, the images that they left are removed."""
        steps: list[str] = []
        try:
            yield steps
        except BaseException:
            if left := [match[1] for line in steps if (match := _STEP_IMAGE.match(line))]:
                self._remove_image(left[-1])
            raise

    def _remove_image(self, identity: str) -> None:
        """Removes an image, and those that nothing but it stands on; it may be in use for a while yet."""
        from docker.errors import APIError

        deadline = time.monotonic() + _REMOVAL_SECONDS
        while time.monotonic() < deadline:
            try:
                self._api.remove_image(identity)
            except APIError as error:
                if error.status_code != _CONFLICT:
                    return
            except Exception:  # the engine may be gone, and this is only to tidy up
                return
            else:
                return
            time.sleep(_POLL_SECONDS / 2)

    def check_runs(self, image: str, architecture: str, program: Sequence[str] = ("cat",)) -> None:
        """Sees whether containers of an image run: one for another architecture does where the engine emulates it.

        Args:
            image: one with `program`, which reads its input to its end.
            architecture: of the image.
            program: to try.

        Raises:
            MachineError: they do not.
        """
        if architecture != self.architecture:
            with self._running(image, architecture, Limits(seconds=60), {"network_mode": "none"}, program) as box:
                # The engine starts a program that cannot run; it has ended when the next one is asked for.
                runs = box.can_run(program)
            if not runs:
                raise_known(f"exec format error: no program of {image} runs")

    @contextmanager
    def container(
        self, image: str, architecture: str, limits: Limits, *, network: str, volume: str | None = None
    ) -> Iterator[Container]:
        """A running container without rights that waits for commands; it is gone when the block ends.

        Its first process ends when our end of its input closes, and the engine then removes it: so it is gone, too,
        when this process is killed.

        Args:
            image: to make it of.
            architecture: of the image.
            limits: what it may use.
            network: ``bridge``, ``host`` or ``none``.
            volume: name of a volume for pip's downloads, kept between builds.
        """
        with told():
            if volume:
                self._api.create_volume(volume, labels={LABEL: "downloads"})
        mounts = [f"{volume}:{_DOWNLOADS}"] if volume and network != "none" else None
        given = {"binds": mounts, "network_mode": network}
        with self._running(image, architecture, limits, given, user=str(BUILD_USER), working_dir="/build") as box:
            yield box

    @contextmanager
    def sandbox(
        self,
        image: str,
        architecture: str,
        limits: Limits,
        content: Iterable[bytes],
        program: Sequence[str],
        waiting: Sequence[str],
        *,
        environment: Mapping[str, str],
        network: str,
        tmp: int,
    ) -> Iterator[Container]:
        """A program in a container with content, where nothing can be written but /tmp; it is gone with the block.

        Args:
            image: to make it of.
            architecture: of the image.
            limits: what it may use.
            content: a tar archive of what lies in `PLACES`; where the image has a runtime of its own, that is kept.
            program: what runs there; it is to end when its input does. Its output is the container's `output`.
            waiting: a program of the image that reads its input to its end.
            environment: of the program.
            network: ``bridge``, ``host`` or ``none``.
            tmp: bytes of /tmp.
        """
        # What is read-only for one container has to be written by another.
        holder = self._running(image, architecture, limits, {"network_mode": "none"}, waiting, volumes=list(PLACES))
        with holder as store:
            store.fill(content, kept=RUNTIME if store.has(f"{RUNTIME}/bootstrap.py") else "")
            given = {
                "network_mode": network,
                "ipc_mode": "none",  # no /dev/shm, as on Lambda
                "read_only": True,
                "tmpfs": {"/tmp": f"size={tmp},mode=1777,exec"},  # noqa: S108
                "volumes_from": [f"{store.identity}:ro"],
            }
            more = {"user": SANDBOX_USER, "environment": dict(environment)}
            with self._running(image, architecture, limits, given, program, listening=True, **more) as box:
                yield box

    @contextmanager
    def _running(
        self,
        image: str,
        architecture: str,
        limits: Limits,
        given: Mapping[str, Any],
        program: Sequence[str] = ("cat",),
        *,
        listening: bool = False,
        **more: Any,
    ) -> Iterator[Container]:
        """A running container without rights; `program` ends when our end of its input closes."""
        api = self._api
        with told():
            identity = api.create_container(
                image,
                list(program),
                entrypoint=[],
                stdin_open=True,
                labels={LABEL: "build"},
                use_config_proxy=False,
                platform=f"linux/{architecture}",
                host_config=api.create_host_config(
                    auto_remove=True,
                    cap_drop=["ALL"],
                    security_opt=["no-new-privileges"],
                    mem_limit=limits.memory,
                    memswap_limit=limits.memory,
                    pids_limit=limits.processes,
                    **given,
                ),
                **more,
            )["Id"]
        container = Container(api, identity, limits)
        try:
            with told():
                # Its only guest: when this connection goes, its input ends.
                stdin = api.attach_socket(identity, params={"stdin": 1, "stream": 1})
                if listening:
                    container.listen()
                api.start(identity)
            with container.watched():
                yield container
        finally:
            with contextlib.suppress(Exception):
                # In this order: the answer lives on the socket.
                stdin._response.close()  # noqa: SLF001 - the SDK gives no other way
                stdin.close()
            container.remove()


class _ImageError(Exception):
    """What the engine says of an image that it cannot have."""
