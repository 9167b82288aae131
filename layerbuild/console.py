"""The only code that prints: results to stdout, everything else to stderr."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
import threading
from typing import TYPE_CHECKING, Any, TextIO

from layerbuild.github import current_step, harmless
from layerbuild.process import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from rich.progress import Progress, ProgressColumn

    from layerbuild.errors import LayerbuildError, SourceLine
    from layerbuild.github import Step

INTERRUPTED = 130
_NO_TERMINAL = 1000
_BAR_WIDTH = 20

_STYLES = {"red": "31", "yellow": "33", "green": "32", "bold": "1", "dim": "2"}
_OWN_SEQUENCES = {f"\x1b[{number}m" for number in (0, *_STYLES.values())}


class Console:
    """Where output goes and how it looks.

    Args:
        quiet: print results, warnings and errors, nothing in between.
        as_json: results are one JSON document; tables are left out.
        stacks: the stacks that the project's settings name, as tables.

    In a job of GitHub Actions, what is said in between is folded, warnings and errors are annotations, and text from
    elsewhere is no command of the job's.
    """

    def __init__(
        self, *, quiet: bool = False, as_json: bool = False, stacks: Mapping[str, dict[str, Any]] | None = None
    ) -> None:
        self.quiet = quiet
        self.as_json = as_json
        self.stacks = stacks or {}
        self._progress: Progress | None = None
        self._lock = threading.Lock()
        self.step = current_step(os.environ)
        # What is folded in a job's log, and whether its group is open: it opens with its first line.
        self._group = ""
        self._open = False

    @property
    def interactive(self) -> bool:
        """Whether a person watches: a terminal that is not a CI's."""
        return sys.stderr.isatty() and not os.environ.get("CI") and os.environ.get("TERM") != "dumb"

    def note(self, text: str) -> None:
        """Something worth knowing while waiting."""
        if not self.quiet:
            self._err(text)

    def warn(self, text: str) -> None:
        """Something that may be wrong."""
        if self.step:
            self._tell(self.step.annotation("warning", text, title="layerbuild"))
            return
        self._err(self._styled("warning: ", "yellow", sys.stderr) + text)

    def error(self, error: LayerbuildError, lines: Sequence[SourceLine] = ()) -> None:
        """What could not be done, why, and what to do next; `lines` instead of the error's own."""
        if self.step:
            self._annotate(self.step, error, lines or error.lines)
            return
        self._err(
            self._styled("error: ", "red", sys.stderr)
            + error.what
            + self._styled(f" [{error.code}]", "dim", sys.stderr)
        )
        for cause in error.causes:
            for line in self._wrapped(f"  {cause}"):
                self._err(line)
        if error.hint:
            self._err(self._styled("hint: ", "bold", sys.stderr) + error.hint)

    def traceback(self, error: Exception) -> None:
        """Where in the program an error comes from."""
        from traceback import format_exception

        for line in "".join(format_exception(error)).splitlines():
            self._err(redact(line))

    def _annotate(self, step: Step, error: LayerbuildError, lines: Sequence[SourceLine]) -> None:
        """An annotation for each line that has something wrong of its own, or one with all that there is to say."""
        title = f"layerbuild {error.code}"
        for line in (told := [line for line in lines if line.message]):
            self._tell(step.annotation("error", f"{error.what}: {line.message}", title=title, line=line))
        if not told:
            hint = [f"hint: {error.hint}"] if error.hint else []
            text = "\n".join([error.what, *error.causes, *hint])
            self._tell(step.annotation("error", text, title=title, line=lines[0] if lines else None))

    def _wrapped(self, text: str) -> list[str]:
        """Prose that is longer than a terminal's line, in lines that are not."""
        columns = shutil.get_terminal_size().columns
        if not sys.stderr.isatty() or len(text) <= columns or " " not in text.strip():
            return [text]
        import textwrap

        return textwrap.wrap(text, columns, subsequent_indent="    ", break_long_words=False)

    def interrupted(self) -> int:
        """Says that the user interrupted the program; returns the exit code for that."""
        self.warn("interrupted; what is finished is kept, run the same command to go on")
        return INTERRUPTED

    def result(self, text: str) -> None:
        """A line of the result. What comes from files may hold control characters: they are shown as such."""
        text = _visible(text, sys.stdout)
        sys.stdout.write((harmless(text) if self.step else text) + "\n")

    def text(self, text: str) -> None:
        """A result of several lines, in which characters are as they are to be."""
        lines = text.split("\n")
        sys.stdout.write("\n".join(map(harmless, lines) if self.step else lines) + "\n")

    def commands(self, commands: Iterable[str]) -> None:
        """Commands of a job as a result, which `github` has made."""
        for one in commands:
            sys.stdout.write(f"{one}\n")

    def paragraph(self, text: str, *, indent: int, styles: Mapping[str, str] | None = None) -> None:
        """Prose of the result, wrapped where a terminal is narrower.

        Args:
            text: what to print.
            indent: spaces before the first line; the others have two more.
            styles: words of the text, each with the style that it gets where it stands first.
        """
        import textwrap

        margin = " " * indent
        width = min(self.width(), 100) if self.width() < _NO_TERMINAL else _NO_TERMINAL
        wrapper = textwrap.TextWrapper(width, initial_indent=margin, subsequent_indent=margin + "  ")
        wrapper.break_long_words = wrapper.break_on_hyphens = False
        left = dict(styles or {})
        for line in wrapper.wrap(_visible(text, None)):
            shown = line
            for words in [words for words in left if words in line]:
                shown = shown.replace(words, self.styled(words, left.pop(words)), 1)
            self.result(shown)

    def styled(self, text: str, style: str) -> str:
        """`text` in a colour or weight, where results go to a terminal that shows them."""
        return self._styled(text, style, sys.stdout)

    def document(self, data: Any) -> None:
        """The result as JSON."""
        text = json.dumps(data, indent=2)
        # In a string: JSON's escape of a character that a job's commands begin with.
        self.text(text.replace("##[", "#\\u0023[") if self.step else text)

    def summary(self, markdown: Callable[[], str]) -> None:
        """Adds to the summary of the job that this is; where it is none, nothing is worked out."""
        if not self.step:
            return
        try:
            if not self.step.add_summary(markdown()):
                self.warn("the job's summary has no room for more")
        except OSError as error:  # the work itself is done
            self.warn(f"the job's summary cannot be written: {error.strerror}")

    def output_value(self, name: str, value: str) -> None:
        """Sets an output of the step that this is, if it is one."""
        if not self.step:
            return
        try:
            self.step.set_output(name, value)
        except OSError as error:
            self.warn(f"the output {name} cannot be set: {error.strerror}")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[str] = ()) -> None:
        """The result as aligned columns; those named in `numbers` are aligned to the right.

        On a terminal too narrow for them, the last column is cut.
        """
        widths = [max(len(row[place]) for row in (columns, *rows)) for place in range(len(columns))]

        available = self.width()

        def line(row: Sequence[str]) -> str:
            cells = [
                text.rjust(width) if column in numbers else text.ljust(width)
                for text, width, column in zip(row, widths, columns, strict=True)
            ]
            text = "  ".join(cells).rstrip()
            return text if len(text) <= available else text[: available - 1] + "…"

        self.result(self._styled(line(columns), "bold", sys.stdout))
        for row in rows:
            self.result(line(row))

    def width(self) -> int:
        """Columns of the terminal that results go to; very many where it is none."""
        told = sys.stdout.isatty() or "COLUMNS" in os.environ
        return shutil.get_terminal_size().columns if told else _NO_TERMINAL

    @contextlib.contextmanager
    def progress(self) -> Iterator[None]:
        """Shows a bar for each download meanwhile, where a person watches; folds what is said, in a job's log."""
        if self.step and not self.quiet:
            import click

            context = click.get_current_context(silent=True)
            with self._folded(context.command_path if context else "layerbuild"):
                yield
            return
        if not self.interactive or self.quiet:
            yield
            return
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        columns = (
            # What builds print is shown here, too: brackets in it are no markup.
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=_BAR_WIDTH),
            _of_downloads(DownloadColumn()),
            _of_downloads(TransferSpeedColumn()),
        )
        with Progress(*columns, console=RichConsole(stderr=True), transient=True) as progress:
            self._progress = progress
            try:
                yield
            finally:
                self._progress = None

    @contextlib.contextmanager
    def _folded(self, title: str) -> Iterator[None]:
        """Folds what is said meanwhile in a job's log."""
        self._group = title
        try:
            yield
        finally:
            self._group = ""
            self._log(None)

    def annotate(self, annotations: Iterable[str]) -> None:
        """Shows annotations, which `github` has made."""
        for one in annotations:
            self._tell(one)

    def _tell(self, annotation: str) -> None:
        """Shows an annotation, outside of what is folded."""
        with self._lock:
            self._log(annotation)

    def _log(self, line: str | None, *, group: str = "") -> None:
        """A line of a job's log, in a group or outside of any, as groups cannot be nested."""
        lines = ["::endgroup::"] if self._open and not group else []
        lines += [f"::group::{group}"] if group and not self._open else []
        lines += [line] if line is not None else []
        self._open = bool(group)
        sys.stdout.flush()  # both may be one stream
        sys.stderr.write("".join(f"{one}\n" for one in lines))
        sys.stderr.flush()

    @property
    def asks(self) -> bool:
        """Whether there is someone to ask."""
        return self.interactive and sys.stdin.isatty()

    def confirm(self, question: str) -> bool:
        """Asks whoever watches; where no one does, the answer is yes."""
        if not self.asks:
            return True
        import click

        return click.confirm(question, err=True)

    def download(self, filename: str) -> contextlib.AbstractContextManager[Callable[[int, int | None], object]]:
        """A download's progress; see `transfer`."""
        return self.transfer(filename, "downloading")

    @contextlib.contextmanager
    def transfer(self, filename: str, verb: str) -> Iterator[Callable[[int, int | None], object]]:
        """The progress of a file that is on its way: a bar on a terminal, a line elsewhere."""
        progress = self._progress
        if progress is None:
            self.note(f"{verb} {filename}")
            yield lambda _arrived, _total: None
            return
        task = progress.add_task(filename if len(filename) <= 34 else filename[:33] + "…", total=None, bytes=True)
        try:
            yield lambda arrived, total: progress.update(task, advance=arrived, total=total)
        finally:
            progress.remove_task(task)

    @contextlib.contextmanager
    def output(self, title: str) -> Iterator[Callable[[str], object]]:
        """The output of something that takes long: its last line on a terminal, all of it elsewhere."""
        progress = self._progress
        if progress is None:
            self.note(title)
            yield lambda line: self.note(f"  {line}")
            return
        task = progress.add_task(title, total=None)
        room = progress.console.width - _BAR_WIDTH - 2
        try:
            yield lambda line: progress.update(task, description=_visible(f"{title}: {line.strip()}", None)[:room])
        finally:
            progress.remove_task(task)

    def _err(self, text: str) -> None:
        text = _visible(text, sys.stderr)
        with self._lock:
            if self.step:
                self._log(harmless(text), group=self._group)
            elif self._progress is not None:
                self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)
            else:
                sys.stderr.write(text + "\n")
                sys.stderr.flush()

    def _styled(self, text: str, style: str, stream: TextIO) -> str:
        if os.environ.get("NO_COLOR") or not stream.isatty() or self._progress is not None:
            return text
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m"


def _of_downloads(column: ProgressColumn) -> ProgressColumn:
    """The column, empty for what is not counted in bytes."""
    render = column.render
    column.render = lambda task: render(task) if task.fields.get("bytes") else ""  # type: ignore[method-assign]
    return column


# Control characters, but for tabs and the sequences that colour text.
_CONTROLS = re.compile(r"\x1b\[\d+m|[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def _visible(text: str, stream: TextIO | None) -> str:
    """`text` with control characters as escapes, so that a name in an archive cannot drive the terminal."""

    def shown(match: re.Match[str]) -> str:
        found = match[0]
        return (
            found
            if found in _OWN_SEQUENCES and stream and stream.isatty()
            else found.encode("unicode_escape").decode()
        )

    return _CONTROLS.sub(shown, text)


def counted(count: int, what: str) -> str:
    """A number of things for people: ``1 layer``, ``1,800 layers``."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def readable_size(size: int) -> str:
    """Bytes for people, in decimal units as Lambda's 262 MB limit is: ``51 kB``, ``7.2 MB``."""
    return f"{size / 1_000_000:.1f} MB" if size >= 1_000_000 else f"{size / 1000:.0f} kB"
