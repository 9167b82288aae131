"""The best order of a stack's layers, by trying all that differ."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations, product
from math import factorial, prod
from typing import TYPE_CHECKING

from layerbuild.errors import UsageError
from layerbuild.stack.rules import order_findings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from layerbuild.checks import Finding
    from layerbuild.stack import Stack

# 7! orders of layers that all collide with each other take some seconds.
_MOST_ORDERS = 5040


@dataclass(frozen=True, kw_only=True)
class Orders:
    """What the search found.

    Attributes:
        tried: how many orders there are that can differ.
        possible: how many orders there are at all.
        best: those with the fewest errors, then the fewest warnings; each as layer numbers, in order.
        errors, warnings: what the best still have.
        always: the errors that every order has.
    """

    tried: int
    possible: int
    best: tuple[tuple[int, ...], ...]
    errors: int
    warnings: int
    always: tuple[Finding, ...]


def best_orders(stack: Stack) -> Orders:
    """Tries every order that can make a difference.

    Layers that carry no path in common, or the same bytes in it, come out the same in either order; only those that
    collide are moved, and each group of them by itself.

    Raises:
        UsageError: there are more orders than can be tried.
    """
    groups = _colliding(stack)
    tried = prod(factorial(len(group)) for group in groups)
    if tried > _MOST_ORDERS:
        what = f"{max(map(len, groups))} layers collide with each other, which makes {tried:,} orders"
        raise UsageError("too-many-orders", what, hint="leave out layers, or build them from one lock")
    results: list[tuple[tuple[int, int], tuple[int, ...], list[Finding]]] = []
    for order in _orders(len(stack.layers), groups):
        found = order_findings(stack.reordered(order))
        errors = [one for one in found if one.severity == "error"]
        results.append(((len(errors), sum(one.severity == "warning" for one in found)), order, errors))
    fewest = min(counts for counts, _, _ in results)
    everywhere = set.intersection(*({_gist(one) for one in errors} for _, _, errors in results))
    always = {_gist(one): one for one in results[0][2] if _gist(one) in everywhere}
    return Orders(
        tried=tried,
        possible=factorial(len(stack.layers)),
        best=tuple(order for counts, order, _ in results if counts == fewest),
        errors=fewest[0],
        warnings=fewest[1],
        always=tuple(always.values()),
    )


def _gist(finding: Finding) -> tuple[str, str]:
    """What makes a finding the same in two orders: its path may be another layer's then."""
    return finding.code, finding.package or finding.path or ""


def _colliding(stack: Stack) -> list[list[int]]:
    """Groups of layers that carry different bytes under one path, or two versions of one distribution."""
    pairs: list[tuple[int, ...]] = [carried.layers for carried in stack.carried if not carried.identical]
    pairs += [(first, other) for _, first, other in stack.kind_conflicts]
    copies: dict[tuple[str, str], dict[int, str]] = {}
    for one in stack.installed:
        if one.layer is not None:
            copies.setdefault((one.site, one.name), {})[one.layer] = f"{one.version} {one.distribution.info}"
    pairs += [tuple(kinds) for kinds in copies.values() if len(set(kinds.values())) > 1]
    group = list(range(len(stack.layers)))
    for numbers in pairs:
        joined = {group[number] for number in numbers}
        group = [min(joined) if one in joined else one for one in group]
    return [[number for number, one in enumerate(group) if one == name] for name in sorted(set(group))]


def _orders(count: int, groups: list[list[int]]) -> Iterator[tuple[int, ...]]:
    """All orders that permute layers within their groups alone, the given one first."""
    for choice in product(*(permutations(group) for group in groups)):
        order = [0] * count
        for group, chosen in zip(groups, choice, strict=True):
            for place, number in zip(group, chosen, strict=True):
                order[place] = number
        yield tuple(order)
