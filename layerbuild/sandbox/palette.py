"""Which package has which colour on a profile's page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from layerbuild.sandbox.markup import amount, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_COLOURS = 7
_NO_PACKAGE = "standard library"


class Palette:
    """The largest and slowest packages have colours of their own, as classes of the style sheet.

    Args:
        sizes, times: what a profile says about packages.
    """

    standard = "ks"
    others = "ko"
    merged = "km"
    compiled = "compiled"

    def __init__(self, sizes: Iterable[Mapping[str, Any]], times: Iterable[Mapping[str, Any]]) -> None:
        weights: dict[str, float] = {}
        for found in (
            [(one["package"], sum(amount(value) for value in one["types"].values())) for one in sizes],
            [(one["package"], amount(one["seconds"])) for one in times if one["package"] is not None],
        ):
            total = sum(value for _, value in found) or 1
            for package, value in found:
                weights[package] = weights.get(package, 0.0) + value / total
        ranked = sorted(weights, key=lambda package: (-weights[package], package))
        self._own = {package: f"k{place}" for place, package in enumerate(ranked[:_COLOURS])}

    def of(self, package: str | None) -> str:
        """The class of a package's colour; None is the standard library."""
        return self.standard if package is None else self._own.get(package, self.others)

    def name(self, package: str | None) -> str:
        """What a package is called."""
        return _NO_PACKAGE if package is None else shown(package)

    def ordered(self, colours: Iterable[str]) -> list[str]:
        """Classes of colours, in the order of a key: packages, then what stands for more than one."""
        last = (self.others, self.standard, self.merged, self.compiled)
        return sorted(colours, key=lambda one: (last.index(one) + 1 if one in last else 0, one))

    def meaning(self, colour: str) -> str:
        """What a class of colours stands for."""
        known = {
            self.standard: _NO_PACKAGE,
            self.others: "other packages",
            self.merged: "too small to draw, merged",
            self.compiled: "compiled from source at import",
        }
        own = {kind: shown(package) for package, kind in self._own.items()}
        return known.get(colour) or own[colour]
