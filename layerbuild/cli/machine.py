"""Commands about Lambda's runtimes and this machine: ``runtimes``, ``cache``, ``completion``."""

from __future__ import annotations

import os

import click

from layerbuild.console import Console, readable_size


@click.command("runtimes")
@click.option("--tags", metavar="TARGET", help="List the wheel tags that TARGET accepts, best first.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document.")
@click.pass_obj
def runtimes_command(console: Console, /, *, tags: str | None, as_json: bool) -> int:
    """List Lambda's Python runtimes: system, glibc, wheels they accept, deprecation.

    \b
    layerbuild runtimes
    layerbuild runtimes --tags python3.12-arm64
    """
    from layerbuild.target import all_targets, runtimes, select_targets

    if tags is not None:
        names = [str(tag) for target in select_targets([tags]) for tag in target.tags()]
        if as_json:
            console.document({"target": tags, "tags": names})
        else:
            console.text("\n".join(names))
        return 0
    if as_json:
        rows = [
            {
                "target": str(target),
                "runtime": target.runtime.name,
                "architecture": target.arch,
                "python": target.runtime.python,
                "os": target.runtime.os,
                "glibc": "{}.{}".format(*target.runtime.glibc),
                "deprecation": target.runtime.deprecation.isoformat(),
                "default": not target.runtime.deprecated,
                "markers": target.marker_environment(),
                "tags": [str(tag) for tag in target.tags()],
            }
            for target in all_targets()
        ]
        console.document({"targets": rows})
        return 0
    table = [
        [
            runtime.name,
            runtime.os,
            "{}.{}".format(*runtime.glibc),
            "manylinux_{}_{}".format(*runtime.glibc),
            ("deprecated " if runtime.past_deprecation else "until ") + runtime.deprecation.isoformat(),
        ]
        for runtime in runtimes()
    ]
    console.table(("runtime", "system", "glibc", "wheels up to", "support"), table)
    console.result("each on x86_64 and arm64, as in python3.13-arm64")
    return 0


@click.group("cache", invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document.")
@click.pass_context
def cache_command(ctx: click.Context, *, as_json: bool) -> int:
    """Show where the cache is and what it holds.

    \b
    layerbuild cache
    layerbuild cache prune --unused-for 7
    LAYERBUILD_CACHE_DIR=/mnt/cache layerbuild make pillow
    LAYERBUILD_SHARED_CACHE=s3://build-cache/layerbuild layerbuild make pillow
    """
    from layerbuild.cache import Cache, default_cache_folder
    from layerbuild.cli.options import shared_cache_of

    if ctx.invoked_subcommand:
        return 0
    console: Console = ctx.obj
    folder = default_cache_folder()
    rows = Cache(folder).usage()
    shared = shared_cache_of(os.environ)
    if as_json:
        kinds = [{"kind": row.kind, "files": row.files, "bytes": row.size} for row in rows]
        told = {"location": str(shared[0]), "read_only": shared[1]} if shared else None
        console.document({"folder": str(folder), "kinds": kinds, "shared": told})
        return 0
    console.result(str(folder))
    if shared:
        console.result(f"shared by LAYERBUILD_SHARED_CACHE: {shared[0]}{', only read' if shared[1] else ''}")
    if rows:
        table = [[row.kind, str(row.files), readable_size(row.size)] for row in rows]
        total = ["total", str(sum(row.files for row in rows)), readable_size(sum(row.size for row in rows))]
        console.table(("kind", "files", "size"), [*table, total], numbers=("files", "size"))
    else:
        console.result("empty")
    return 0


@cache_command.command("prune")
@click.option(
    "--unused-for", "days", type=click.FloatRange(0), default=30, show_default=True, metavar="DAYS",
    help="Remove what has not been used for so many days; 0 empties the cache.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document.")
@click.pass_obj
def prune_command(console: Console, /, *, days: float, as_json: bool) -> int:
    """Remove what has not been used for a while.

    \b
    layerbuild cache prune
    layerbuild cache prune --unused-for 0
    """
    from layerbuild.cache import Cache, default_cache_folder

    removed = Cache(default_cache_folder()).prune(unused_days=days)
    if as_json:
        console.document({"removed": {"files": removed.files, "bytes": removed.size}})
    else:
        console.result(f"removed {removed.files} files, {readable_size(removed.size)}")
    return 0


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion_command(ctx: click.Context, *, shell: str) -> int:
    """Print the script that completes commands, recipes and targets in SHELL.

    \b
    eval "$(layerbuild completion bash)"          # in ~/.bashrc
    eval "$(layerbuild completion zsh)"           # in ~/.zshrc
    layerbuild completion fish > ~/.config/fish/completions/layerbuild.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None:  # pragma: no cover - click.Choice lets only shells through that click knows
        return 2
    console: Console = ctx.obj
    console.text(kind(ctx.find_root().command, {}, "layerbuild", "_LAYERBUILD_COMPLETE").source())
    return 0
