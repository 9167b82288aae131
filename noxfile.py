"""Sessions for developers: `nox` runs the quick ones, `nox -s full` everything."""

from __future__ import annotations

import nox

nox.options.sessions = ["lint", "tests"]
nox.options.default_venv_backend = "uv|virtualenv"


@nox.session
def lint(session: nox.Session) -> None:
    """Style and types."""
    session.install("-e", ".[test]")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy")


@nox.session(python=["3.11", "3.12", "3.13", "3.14"])
def tests(session: nox.Session) -> None:
    """What runs without a package index."""
    session.install("-e", ".[test]")
    session.run("pytest", "-n", "auto", *session.posargs)


@nox.session
def full(session: nox.Session) -> None:
    """Everything, against the package index, with coverage."""
    session.install("-e", ".[test]")
    session.run("pytest", "-n", "auto", "--slow", "--docker", "--cov", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """The benchmark against other tools."""
    session.install("-e", ".")
    session.run("python", "bench/layers.py", *session.posargs)
