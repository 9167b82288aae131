"""The layers of real packages that `test_reality` makes and tries."""

from __future__ import annotations

from dataclasses import dataclass

BOTH = ("python3.11-x86_64", "python3.11-arm64")
NEWER = ("python3.13-x86_64", "python3.13-arm64")


@dataclass(frozen=True, kw_only=True)
class Case:
    """A layer and what it is to show.

    Args:
        pins: the distributions in the layer, the one in question first.
        imports: modules that a function would import.
        targets: what to make it for.
        misses: what the real loader must miss: names of libraries, symbol versions, or words of an import's error.
            Without any, all of the layer must load.
        by_name: the library that is missing when it is opened by name.
        platform: the platform tag to choose wheels by, instead of those that the target accepts.
        build: a pin without wheels in the index, to build one of.
        remark: for readers of the table.
    """

    pins: str
    imports: str
    targets: tuple[str, ...] = BOTH
    misses: str = ""
    by_name: str = ""
    platform: str = ""
    build: str = ""
    remark: str = ""

    @property
    def title(self) -> str:
        return self.pins.split()[0]


CASES = [
    Case(
        pins="opencv-python==5.0.0.93 numpy==2.2.6",
        imports="cv2",
        misses="libGL.so.1 libX11.so.6 libxcb.so.1 libgthread-2.0.so.0",
        remark="the classic",
    ),
    Case(pins="opencv-python-headless==5.0.0.93 numpy==2.2.6", imports="cv2"),
    Case(pins="numpy==2.2.6", imports="numpy"),
    Case(pins="pyarrow==20.0.0", imports="pyarrow pyarrow.parquet"),
    Case(pins="psycopg2-binary==2.9.11", imports="psycopg2"),
    Case(pins="psycopg-binary==3.2.13 psycopg==3.2.13 typing_extensions==4.15.0", imports="psycopg"),
    Case(
        pins="psycopg-c==3.2.13 psycopg==3.2.13 typing_extensions==4.15.0",
        imports="psycopg",
        build="psycopg-c==3.2.13",
        misses="libpq.so.5",
        remark="psycopg[c], built from source",
    ),
    Case(pins="cryptography==50.0.2 cffi==2.1.1 pycparser==2.23", imports="cryptography.fernet cryptography.x509"),
    Case(pins="grpcio==1.85.1 typing_extensions==4.15.0", imports="grpc"),
    Case(pins="lxml==6.1.3", imports="lxml.etree lxml.objectify"),
    Case(pins="pillow==12.2.0", imports="PIL.Image PIL._imaging PIL._imagingft PIL._webp PIL._avif"),
    Case(
        pins="scipy==1.16.3 numpy==2.2.6", imports="scipy.linalg scipy.sparse", remark="Fortran's libraries are in it"
    ),
    Case(pins="shapely==2.2.0 numpy==2.2.6", imports="shapely"),
    Case(pins="pyzmq==27.3.0", imports="zmq"),
    Case(pins="av==14.2.0", imports="av", remark="50 libraries in one folder need each other"),
    Case(pins="ninja==1.13.0", imports="ninja", remark="a program, not a library"),
    Case(
        pins="pygame==2.6.1",
        imports="pygame",
        misses="libX11.so.6 libglib-2.0.so.0 libgthread-2.0.so.0",
        remark="`pygame` itself imports; `pygame.mixer` and `pygame.scrap` do not",
    ),
    Case(
        pins="skia-python==87.7 numpy==2.2.6",
        imports="skia",
        misses="libGL.so.1",
        remark="libexpat is on Amazon Linux 2, as far as is known",
    ),
    Case(pins="pyodbc==5.5.0", imports="pyodbc", misses="libodbc.so.2"),
    Case(
        pins="lightgbm==3.3.5 numpy==2.2.6 scipy==1.16.3",
        imports="lightgbm",
        targets=BOTH[:1],
        misses="libgomp.so.1",
        remark="opened by ctypes, as a file of the layer",
    ),
    Case(
        pins="lightgbm==4.7.0 numpy==2.2.6 scipy==1.16.3", imports="lightgbm", targets=BOTH[1:], misses="libgomp.so.1"
    ),
    Case(
        pins="pyrealsense2==2.59.1.11053",
        imports="pyrealsense2",
        targets=BOTH[:1],
        misses="libusb-1.0.so.0 libudev.so.1 GLIBC_2.29",
        remark="its tag promises manylinux1",
    ),
    Case(pins="numpy==2.3.5", imports="numpy", platform="manylinux_2_28_{0}", misses="GLIBC_2.27"),
    Case(pins="numpy==2.2.6", imports="numpy", platform="musllinux_1_2_{0}", misses="libc.musl"),
    Case(
        pins="numpy==2.2.6",
        imports="numpy",
        targets=BOTH[1:],
        platform="manylinux2014_x86_64",
        misses="_multiarray_umath",
    ),
    Case(pins="numpy==2.3.5", imports="numpy", targets=NEWER),
    Case(
        pins="opencv-python==5.0.0.93 numpy==2.3.5",
        imports="cv2",
        targets=NEWER,
        misses="libGL.so.1 libX11.so.6 libxcb.so.1 libgthread-2.0.so.0",
    ),
    Case(pins="skia-python==144.1 numpy==2.3.5", imports="skia", targets=NEWER, misses="libGL.so.1 libexpat.so.1"),
    Case(pins="pyodbc==5.5.0", imports="pyodbc", targets=NEWER, misses="libodbc.so.2"),
    Case(pins="python-magic==0.4.27", imports="magic", by_name="libmagic"),
    Case(
        pins="soundfile==0.14.0 cffi==2.1.1 pycparser==2.23 numpy==2.2.6 typing_extensions==4.15.0",
        imports="soundfile",
        by_name="libsndfile",
    ),
    Case(
        pins="weasyprint==70.0 pydyf==0.13.0 cffi==2.1.1 pycparser==2.23 tinyhtml5==2.1.0 tinycss2==1.5.1 "
        "cssselect2==0.10.1 pyphen==0.18.1 pillow==12.2.0 fonttools==4.68.0 webencodings==0.6.1",
        imports="weasyprint",
        by_name="libgobject-2.0",
    ),
    Case(pins="psycopg==3.2.13 typing_extensions==4.15.0", imports="psycopg", by_name="libpq"),
]
