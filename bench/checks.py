"""Measures what checks cost: how much slower `make` is with them, and how long `check` takes for a large layer.

    python bench/checks.py --rounds 9 --markdown bench/README.md

Exits 1 when a goal is missed, and 2 when nothing can be measured.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from layers import (
    OURS,
    SETS,
    Bench,
    BenchError,
    Contender,
    LayerSet,
    Step,
    Timing,
    interleaved,
    our_step,
    run,
    say,
)

from layerbuild.cache import CACHE_VARIABLE, default_cache_folder
from layerbuild.console import readable_size

BEGIN, END = "<!-- checks -->", "<!-- end of checks -->"
WITHOUT, FIRST = "without checks", "first time"
UNSEEN, SEEN = "unseen", "seen"
LARGE = LayerSet(name="large", requirements=("numpy", "pandas", "scipy", "pillow"), goal=0)
MAKE_LIMIT, UNSEEN_LIMIT, SEEN_LIMIT = 1.2, 3.0, 0.5

# The same program with its one call of the checks taken out.
PROGRAM = """\
import layerbuild.pipeline
layerbuild.pipeline.check_job = lambda *_: ()
from layerbuild.__main__ import main
main()
"""


def making(bench: Bench) -> dict[str, Timing]:
    """`make` of one set, everything cached: as it is, without checks, and with findings not yet known."""
    with_checks = bench.ours(remove=(bench.dist,))
    run(with_checks.steps, bench.log)
    (step,) = with_checks.steps
    words = [sys.executable, "-c", PROGRAM, *step.command[-7:]]
    without = Contender(name=WITHOUT, steps=(Step(command=words, cwd=step.cwd, env=step.env),), remove=(bench.dist,))
    first = bench.ours(name=FIRST, remove=(bench.dist, bench.cache / "findings"))
    return interleaved([with_checks, without, first], ROUNDS, bench.log, f"make {bench.layer.name}")


def checking(bench: Bench) -> tuple[dict[str, Timing], int]:
    """`check` of one large archive, and its unzipped bytes."""
    run(bench.ours().steps, bench.log)
    trees = bench.cache / "trees"
    words = ["check", str(bench.archive), "--json"]
    step = our_step(bench.work, words, bench.folder, {CACHE_VARIABLE: str(bench.cache)})
    contenders = [
        Contender(name=UNSEEN, steps=(step,), remove=(trees,)),
        Contender(name=SEEN, steps=(step,)),
    ]
    timings = {}
    for contender in contenders:
        timings |= interleaved([contender], ROUNDS, bench.log, f"check, {contender.name}")
    return timings, json.loads(bench.archive.with_suffix(".json").read_bytes())["unzipped"]


def table(made: dict[str, dict[str, Timing]], checked: dict[str, Timing], unzipped: int) -> list[str]:
    """The results as Markdown."""
    lines = [
        f"`make` with everything cached, median of {ROUNDS}; in brackets, against making without checks:",
        "",
        "| set | with checks | content not checked before | without checks |",
        "|:----|------------:|---------------------------:|---------------:|",
    ]
    for name, timings in made.items():
        base = timings[WITHOUT].seconds
        cells = [f"{timings[key].seconds:.2f} s ({timings[key].seconds / base:.2f})" for key in (OURS, FIRST)]
        lines.append(f"| {name} | {cells[0]} | {cells[1]} | {base:.2f} s |")
    peak = max(timing.peak for timing in checked.values())
    lines += [
        "",
        f"`check` of a layer of {readable_size(unzipped)} unzipped: {checked[UNSEEN].seconds:.2f} s when it has not",
        f"been seen, {checked[SEEN].seconds:.2f} s when it has; at most {readable_size(peak)} of memory.",
    ]
    return lines


def main() -> int:
    """Measures, prints, and says whether the goals are met."""
    global ROUNDS  # noqa: PLW0603 - one number that everything here needs
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    work = default_cache_folder().with_name("layerbuild-bench")
    parser.add_argument("--work", type=Path, default=work, help="folder for caches and what is made")
    parser.add_argument("--markdown", type=Path, help="a file with the two markers to put the table between")
    options = parser.parse_args()
    ROUNDS = options.rounds
    try:
        work = options.work.absolute()
        work.mkdir(parents=True, exist_ok=True)
        made = {layer.name: making(Bench(layer, work)) for layer in SETS}
        checked, unzipped = checking(Bench(LARGE, work))
    except BenchError as error:
        say(f"nothing measured: {error}")
        return 2
    lines = table(made, checked, unzipped)
    print("\n".join(lines))
    if options.markdown:
        text = options.markdown.read_text("utf-8")
        before, after = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
        options.markdown.write_text(before + "\n\n" + "\n".join(lines) + "\n\n" + after, "utf-8")
    slowest = max(timings[OURS].seconds / timings[WITHOUT].seconds for timings in made.values())
    goals = {
        f"checks add at most 20 % to a warm make: {slowest - 1:.0%}": slowest <= MAKE_LIMIT,
        f"an unseen layer in under 3 s: {checked[UNSEEN].seconds:.2f} s": checked[UNSEEN].seconds < UNSEEN_LIMIT,
        f"a seen one in under 0.5 s: {checked[SEEN].seconds:.2f} s": checked[SEEN].seconds < SEEN_LIMIT,
    }
    for goal, met in goals.items():
        say(f"{'met' if met else 'MISSED'}: {goal}")
    return 0 if all(goals.values()) else 1


ROUNDS = 9

if __name__ == "__main__":
    sys.exit(main())
