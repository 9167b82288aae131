"""Options and arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from layerbuild.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from click.shell_completion import CompletionItem

    from layerbuild.builders import Builders
    from layerbuild.cache import Cache
    from layerbuild.console import Console
    from layerbuild.index import Index
    from layerbuild.lock import Lock
    from layerbuild.proof import Prover
    from layerbuild.recipe import Recipe
    from layerbuild.sandbox.choose import Sandboxes
    from layerbuild.shared_cache import Location
    from layerbuild.target import Target


def complete_recipe(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of recipes that begin as the user began."""
    from click.shell_completion import CompletionItem

    from layerbuild.recipe import recipe_folders

    return [CompletionItem(name) for name in recipe_folders(Path.cwd()) if name.startswith(incomplete)]


def complete_target(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of targets that begin as the user began."""
    from click.shell_completion import CompletionItem

    from layerbuild.target import all_targets

    return [CompletionItem(str(target)) for target in all_targets() if str(target).startswith(incomplete)]


def complete_rule(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Codes and families of rules that begin as the user began."""
    from click.shell_completion import CompletionItem

    from layerbuild.checks import rules

    families = dict.fromkeys(code.partition("-")[0] for code in rules())
    return [CompletionItem(code) for code in (*families, *rules()) if code.startswith(incomplete)]


# For commands about layers that are there.
recipes_argument = click.argument("recipes", metavar="[RECIPE]...", nargs=-1, shell_complete=complete_recipe)
target_option = click.option(
    "--target", metavar="PATTERN", multiple=True, shell_complete=complete_target,
    help="Only targets that match. Repeatable.",
)  # fmt: skip


def recipe_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """RECIPE arguments, ``--all``, ``-r``, ``--name`` and ``--target``, for commands over recipes."""
    decorators = [
        click.argument("recipes", metavar="[RECIPE[@TARGET]]...", nargs=-1, shell_complete=complete_recipe),
        click.option(
            "--all",
            "all_recipes",
            is_flag=True,
            help="Every recipe in ./recipes; without any, every shipped one.",
        ),
        click.option(
            "-r",
            "--requirements",
            "requirements",
            type=click.Path(path_type=Path),
            help="A requirements file instead of a recipe; needs --name.",
        ),
        click.option("--name", help="The layer's name, with --requirements."),
        click.option(
            "--target",
            metavar="PATTERN",
            multiple=True,
            shell_complete=complete_target,
            help="Only targets that match, such as python3.13-arm64 or 'python3.1*-arm64'. Repeatable.",
        ),
        click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document."),
    ]
    for decorate in reversed(decorators):
        function = decorate(function)
    return function


def container_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--builder`` and what concerns builds in containers."""
    decorators = [
        click.option(
            "--builder",
            type=click.Choice(["auto", "host", "container"]),
            default="auto",
            show_default=True,
            help="host: wheels only. container: all by pip in a container. auto: as the recipe says, else wheels "
            "by the host, and what has none in a container.",
        ),
        click.option(
            "--base-image",
            metavar="IMAGE",
            help="Base of the build image instead of AWS's own; {python} and {arch} are filled in.",
        ),
        click.option(
            "--build-network",
            type=click.Choice(["bridge", "host", "none"]),
            default="bridge",
            show_default=True,
            help="Network of builds. host reaches an index on this machine; with none, what builds need is fetched "
            "first.",
        ),
        click.option(
            "--build-memory",
            metavar="GIB",
            type=click.FloatRange(min=0.1),
            default=4,
            show_default=True,
            help="Memory that a build may use.",
        ),
        click.option(
            "--build-timeout",
            metavar="MINUTES",
            type=click.FloatRange(min=0.01),
            default=60,
            show_default=True,
            help="Time that a build may take.",
        ),
    ]
    for decorate in reversed(decorators):
        function = decorate(function)
    return function


_SHARED = "layerbuild.shared-cache"
_READ_ONLY = "layerbuild.shared-cache-read-only"
SHARED_VARIABLE = "LAYERBUILD_SHARED_CACHE"
READ_ONLY_VARIABLE = "LAYERBUILD_SHARED_CACHE_READ_ONLY"


def _shared_cache(ctx: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    """Refuses a wrong --cache before anything is done."""
    if value and not ctx.resilient_parsing:
        from layerbuild.shared_cache import parse_location

        ctx.meta[_SHARED] = parse_location(value)


def _read_only(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's
    ctx.meta[_READ_ONLY] = value


def cache_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--cache`` and ``--cache-read-only``, which `open_cache` knows of: the command itself is not told."""
    decorators = [
        click.option(
            "--cache",
            metavar="FOLDER|s3://BUCKET/PREFIX",
            envvar=SHARED_VARIABLE,
            expose_value=False,
            callback=_shared_cache,
            help=f"A cache that machines share, behind this one's own; also {SHARED_VARIABLE}.",
        ),
        click.option(
            "--cache-read-only",
            is_flag=True,
            envvar=READ_ONLY_VARIABLE,
            expose_value=False,
            callback=_read_only,
            help="Keep nothing there.",
        ),
    ]
    for decorate in reversed(decorators):
        function = decorate(function)
    return function


def open_cache(console: Console) -> Cache:
    """This machine's cache, with the shared one behind it that the running command was given, if any.

    When the command ends, `console` is told what that was good for.
    """
    from layerbuild.cache import Cache, default_cache_folder

    context = click.get_current_context()
    location: Location | None = context.meta.get(_SHARED)
    if location is None:
        return Cache(default_cache_folder())
    from layerbuild.shared_cache import FolderStore, Shared, Store

    read_only = bool(context.meta.get(_READ_ONLY))
    store: Store
    if location.folder is not None:
        store = FolderStore(location.folder, read_only=read_only)
    else:
        from layerbuild.publish.s3_cache import S3Store

        store = S3Store(location)
    shared = Shared(store, str(location), console.warn, read_only=read_only)

    def tell() -> None:
        if shared.used:
            console.note(f"shared cache {location}: {shared.taken} files taken, {shared.kept} kept")

    context.call_on_close(tell)
    return Cache(default_cache_folder(), shared)


def shared_cache_of(environ: Mapping[str, str]) -> tuple[Location, bool] | None:
    """The shared cache that an environment names, and whether it is only read; None if it names none.

    Raises:
        UsageError: what it names is none.
    """
    from layerbuild.shared_cache import parse_location

    if not (named := environ.get(SHARED_VARIABLE)):
        return None
    read_only = click.BOOL.convert(environ.get(READ_ONLY_VARIABLE) or "0", None, None)
    return parse_location(named), bool(read_only)


def make_builders(
    console: Console,
    cache: Cache,
    index: Index,
    *,
    builder: str,
    base_image: str | None,
    build_network: str,
    build_memory: float,
    build_timeout: float,
) -> Builders:
    """The builders that `container_options` ask for."""
    from layerbuild.builders import Builders, ContainerOptions, Limits
    from layerbuild.resolve import build_lock

    limits = Limits(memory=int(build_memory * 1024**3), seconds=build_timeout * 60)
    options = ContainerOptions(base_image=base_image, limits=limits, network=build_network)

    def resolve(requirements: Sequence[str], constraints: Sequence[str], target: Target) -> Lock:
        return build_lock(requirements, constraints, target, index)

    return Builders(cache, index, console, options, resolve, builder)


def sandbox_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that commands have in common which run code of layers: where to find these, and where to run it."""
    decorators = [
        click.option(
            "--target",
            metavar="PATTERN",
            multiple=True,
            shell_complete=complete_target,
            help="What the layers run on, if they do not say. Repeatable.",
        ),
        click.option(
            "--backend",
            type=click.Choice(["auto", "namespace", "container", "process"]),
            default="auto",
            show_default=True,
            help="Where to run it. auto: the first that works here.",
        ),
        click.option(
            "--base-image",
            metavar="IMAGE",
            help="Image of containers instead of AWS's; {python} and {arch} are filled in.",
        ),
        click.option(
            "--out",
            type=click.Path(path_type=Path, file_okay=False),
            default=Path("dist"),
            show_default=True,
            help="Where the archives of recipes are.",
        ),
        click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document."),
    ]
    for decorate in reversed(decorators):
        function = decorate(function)
    return function


# Not a plain process, which has all rights of the user.
ISOLATED = ("namespace", "container")


def make_sandboxes(
    cache: Cache, backend: str, base_image: str | None, auto: Sequence[str], *, pull: bool = False
) -> Sandboxes:
    """Where to run code, by the command line's ``--backend``.

    Args:
        cache: remembers interpreters.
        backend: what was asked for, or ``auto``.
        base_image: of containers.
        auto: what that stands for, best first.
        pull: whether an image may be fetched though no container was asked for.
    """
    from layerbuild.sandbox.choose import Sandboxes

    backends = auto if backend == "auto" else (backend,)
    return Sandboxes(cache, backends, base_image=base_image, pull=pull or backend == "container")


def make_prover(console: Console, cache: Cache, smoke: str, backend: str, base_image: str | None) -> Prover:
    """What imports and compiles layers, by the command line's ``--smoke`` and ``--backend``."""
    from layerbuild.proof import Prover

    sandboxes = make_sandboxes(cache, backend, base_image, ISOLATED, pull=smoke == "require")
    return Prover(sandboxes, cache, smoke, console.warn)


def chosen_recipes(
    words: Sequence[str], *, all_recipes: bool, requirements: Path | None, name: str | None
) -> tuple[list[Recipe], dict[str, list[str]]]:
    """The recipes that the command line asks for, and the targets of those that it names as ``recipe@target``.

    Raises:
        UsageError: it asks for none, or for one that does not exist or is invalid.
    """
    from layerbuild.recipe import load_recipe, recipe_folders, recipe_of_requirements

    project = Path.cwd()
    if requirements is not None:
        if not name or words or all_recipes:
            raise UsageError(
                "usage", "--requirements makes one layer: give it a --name and no RECIPE",
                hint="layerbuild make -r requirements.txt --name web",
            )  # fmt: skip
        return [recipe_of_requirements(requirements, name)], {}
    if name:
        raise UsageError("usage", "--name goes with --requirements", hint="a recipe has its own name")
    names = [word.partition("@")[0] for word in words]
    own: dict[str, list[str]] = {}
    for recipe, at, pattern in (word.partition("@") for word in words):
        if at:
            own.setdefault(recipe, []).append(pattern)
    for recipe in {word for word in words if word in own}:
        del own[recipe]  # it is asked for with all of its targets, too
    if all_recipes:
        found = recipe_folders(project)
        mine = [key for key, (_, shipped) in found.items() if not shipped]
        names, own = mine or list(found), {}
    if not names:
        raise UsageError("usage", "name a recipe, or ask for --all", hint="`layerbuild recipes` lists what there is")
    return [load_recipe(recipe, project) for recipe in dict.fromkeys(names)], own
