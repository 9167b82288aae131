"""Profiles of layers, as ``layerbuild profile`` measures them, for tests of their page."""

from __future__ import annotations

from typing import Any

HOSTILE_NAMES = (
    "<script>alert(1)</script>",
    "</style><img src=http://example.invalid/x onerror=alert(1)>",
    "\"quotes\" 'and' &amp; `more`",
    "]]><!--",
    "--></title></svg>",
    "wide" * 500,
    "\x00\x1b[31m\r\n\u202egnp.exe\udc80",
    "模块\u0301\U0001f40d﷽",
    "{} %s {name!r}",
    "",
)


def profile(**changes: Any) -> dict[str, Any]:
    """A profile without sizes and imports, changed as told."""
    return {
        "target": "python3.13-x86_64",
        "interpreter": "3.13.1",
        "backend": "namespace",
        "runs": 5,
        "layerbuild": "0.3.0",
        "layers": [{"name": "one-python3.13-x86_64", "zipped": 17_500_000, "unzipped": 23_400_000, "budget": None}],
        "limits": {"zipped": 52_428_800, "unzipped": 262_144_000},
        "sizes": [],
        "imports": [],
        "packages": [],
        **changes,
    }


def package(name: str, *, py: int = 0, pyc: int = 0, so: int = 0, data: int = 0) -> dict[str, Any]:
    """What a profile says about a package's size."""
    return {"package": name, "version": "1.2.3", "types": {"py": py, "pyc": pyc, "so": so, "data": data}}


def module(name: str, package: str | None, itself: float, cumulative: float, depth: int) -> dict[str, Any]:
    """What a profile says about a module that an import loads."""
    return {
        "name": name,
        "package": package,
        "self": itself,
        "cumulative": cumulative,
        "depth": depth,
        "compiled": False,
    }


def tree(name: str, packages: list[str | None], *, fan: int, depth: int, seconds: float) -> list[dict[str, Any]]:
    """Modules that import `fan` others each, `depth` levels deep; the first of them take longest."""

    def grow(path: str, number: int, level: int, seconds: float) -> list[dict[str, Any]]:
        found = [module(path, packages[number % len(packages)], seconds, seconds, level)]
        if level + 1 < depth:
            found[0]["self"] = seconds * 0.2
            weights = [1 / (place + 1) for place in range(fan)]
            for place, weight in enumerate(weights):
                part = seconds * 0.8 * weight / sum(weights)
                found += grow(f"{path}.part{place}", number + place * level + 1, level + 1, part)
        return found

    return grow(name, 0, 0, seconds)


def of_modules(modules: list[dict[str, Any]], name: str = "one") -> dict[str, Any]:
    """What a profile says about an import."""
    seconds = sum(one["cumulative"] for one in modules if one["depth"] == 0)
    return {"name": name, "seconds": seconds, "without_bytecode": seconds * 2.4, "modules": modules}


def times(imports: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The time of each package, out of that of the modules."""
    found: dict[str | None, list[float]] = {}
    for one in imports:
        for module in one["modules"]:
            found.setdefault(module["package"], []).append(module["self"])
    return [
        {"package": name, "modules": len(parts), "seconds": sum(parts), "without_bytecode": sum(parts) * 2.4}
        for name, parts in found.items()
    ]


def hostile() -> dict[str, Any]:
    """A profile in which every name tries to break out of the page."""
    modules = [module("root", None, 0.1, 1.1, 0)]
    modules += [module(name, name, 0.1, 0.1, 1) for name in HOSTILE_NAMES]
    imports = [of_modules(modules, name) for name in HOSTILE_NAMES[:2]]
    sizes = [{**package(name, py=50_000, data=90_000), "version": name} for name in HOSTILE_NAMES]
    layers = [{"name": name, "zipped": 10**7, "unzipped": 10**8, "budget": 10**7} for name in HOSTILE_NAMES[:5]]
    words = dict.fromkeys(("target", "interpreter", "backend", "layerbuild"), HOSTILE_NAMES[0])
    return profile(sizes=sizes, imports=imports, packages=times(imports), layers=layers, **words)


def large() -> dict[str, Any]:
    """A profile of 60 packages and more than 3,000 modules."""
    names = [f"package-{number}" for number in range(60)]
    modules = tree("one", [*names, None], fan=5, depth=6, seconds=2.0)[:3100]
    imports = [of_modules(modules)]
    sizes = [package(name, py=10**7 // (n + 1), pyc=10**7 // (n + 1), so=n * 1000) for n, name in enumerate(names)]
    return profile(sizes=sizes, imports=imports, packages=times(imports))


def realistic() -> dict[str, Any]:
    """A profile as one of boto3 and pandas could be."""
    boto3 = tree(
        "boto3", ["boto3", "botocore", None, "botocore", "urllib3", "jmespath"], fan=4, depth=6, seconds=0.214
    )
    pandas = tree("pandas", ["pandas", "pandas", "numpy", None, "numpy", "dateutil"], fan=3, depth=7, seconds=0.731)
    for one in pandas[5::9]:
        one["compiled"] = True
    imports = [of_modules(boto3, "boto3"), of_modules(pandas, "pandas")]
    imports[1]["without_bytecode"] = None
    kb, mb = 1000, 1_000_000
    return profile(
        layers=[
            {"name": "boto3-python3.13-x86_64", "zipped": 14_310_000, "unzipped": 29_400_000, "budget": 30_000_000},
            {
                "name": "pandas-python3.13-x86_64",
                "zipped": 54_120_000,
                "unzipped": 171_900_000,
                "budget": 160_000_000,
            },
        ],
        sizes=[
            package("botocore", py=1230 * kb, pyc=1410 * kb, data=22 * mb),
            package("boto3", py=410 * kb, pyc=390 * kb, data=690 * kb),
            package("pandas", py=9 * mb, pyc=11 * mb, so=42 * mb, data=310 * kb),
            package("numpy", py=5 * mb, pyc=7 * mb, so=34 * mb, data=900 * kb),
            package("pyarrow", py=2 * mb, pyc=3 * mb, so=49 * mb, data=2 * mb),
            package("python-dateutil", py=240 * kb, pyc=260 * kb, data=160 * kb),
            package("pytz", py=50 * kb, pyc=60 * kb, data=800 * kb),
            package("tzdata", py=3 * kb, pyc=4 * kb, data=640 * kb),
            package("urllib3", py=420 * kb, pyc=450 * kb, data=10 * kb),
            package("s3transfer", py=240 * kb, pyc=260 * kb, data=20 * kb),
            package("jmespath", py=60 * kb, pyc=70 * kb, data=12 * kb),
            package("six", py=34 * kb, pyc=41 * kb, data=5 * kb),
        ],
        imports=imports,
        packages=times(imports),
    )
