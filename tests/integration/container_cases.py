"""Real packages without a fitting wheel, and a program: recipes, what their layers bring, and a use of each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """A recipe, and what is known of its layer.

    Attributes:
        recipe: its text.
        builder: the one to make it with.
        built: what is built from source.
        fetched: what has wheels.
        brings: patterns of libraries that must be in the layer.
        code: Python code to run where the layer is.
        says: what that prints.
    """

    recipe: str
    code: str
    says: str
    builder: str = "auto"
    built: tuple[str, ...] = ()
    fetched: tuple[str, ...] = ()
    brings: tuple[str, ...] = ()


CASES = {
    # A C extension that needs nothing.
    "netifaces": Case(
        recipe='name = "netifaces"\nrequirements = ["netifaces"]\n',
        builder="container",
        built=("netifaces",),
        code="""
import netifaces
addresses = netifaces.ifaddresses("lo")[netifaces.AF_INET]
print(netifaces.interfaces(), addresses[0]["addr"])
""",
        says="['lo'] 127.0.0.1\n",
    ),
    # A client library, with all that it needs in turn.
    "psycopg2": Case(
        recipe="""name = "psycopg2"
requirements = ["psycopg2"]

[system-packages]
apt = ["libpq-dev"]
dnf = ["libpq-devel"]
yum = ["postgresql-devel"]
""",
        built=("psycopg2",),
        brings=("psycopg2.libs/libpq-*.so.5*", "psycopg2.libs/libldap-*.so*", "psycopg2.libs/libgssapi_krb5-*.so.2*"),
        code="""
import psycopg2, psycopg2.extensions
try:
    psycopg2.connect("host=127.0.0.1 port=1 user=nobody")
except psycopg2.OperationalError as error:
    print(psycopg2.extensions.libpq_version() // 10000, "Connection refused" in str(error))
""",
        says="15 True\n",
    ),
    # There are wheels, but the recipe wants none.
    "lxml": Case(
        recipe="""name = "lxml"
requirements = ["lxml"]
no-binary = ["lxml"]
strip = true
environment = { CFLAGS = "-O0" } # compiles in a third of the time

[system-packages]
apt = ["libxml2-dev", "libxslt1-dev", "zlib1g-dev"]
dnf = ["libxml2-devel", "libxslt-devel"]
""",
        built=("lxml",),
        brings=("lxml.libs/libxml2-*.so.2*", "lxml.libs/libxslt-*.so.1*", "lxml.libs/libexslt-*.so.0*"),
        code="""
from lxml import etree
sheet = etree.XML('''<xsl:stylesheet version="1.0" xmlns:xsl="http://www.w3.org/1999/XSL/Transform">
<xsl:output method="text"/>
<xsl:template match="/"><xsl:for-each select="//b"><xsl:value-of select="@n"/>,</xsl:for-each></xsl:template>
</xsl:stylesheet>''')
print(etree.XSLT(sheet)(etree.XML("<a><b n='1'/><b n='2'/></a>")), etree.LIBXML_VERSION >= (2, 9))
""",
        says="1,2, True\n",
    ),
    # C++, and another package that has a wheel. Its build asks for ninja only when there is none: by a hook that is
    # not run where the build has no network.
    "shapely": Case(
        recipe="""name = "shapely"
requirements = ["shapely"]
no-binary = ["shapely"]
system-packages = { apt = ["libgeos-dev", "ninja-build"], dnf = ["geos-devel", "ninja-build"] }
""",
        built=("shapely",),
        fetched=("numpy",),
        brings=("shapely.libs/libgeos-*.so*", "shapely.libs/libgeos_c-*.so.1*"),
        code="""
import shapely
print(round(shapely.Point(0, 0).buffer(2, quad_segs=64).area, 1), shapely.geos_version >= (3, 11))
""",
        says="12.6 True\n",
    ),
    # Another build system: scikit-build-core and CMake.
    "pyzmq": Case(
        recipe="""name = "pyzmq"
requirements = ["pyzmq"]
no-binary = ["pyzmq"]
system-packages = { apt = ["libzmq3-dev", "cmake", "ninja-build"], dnf = ["zeromq-devel", "cmake", "ninja-build"] }
""",
        built=("pyzmq",),
        brings=("pyzmq.libs/libzmq-*.so.5*", "pyzmq.libs/libsodium-*.so.23*"),
        code="""
import zmq
context = zmq.Context()
push, pull = context.socket(zmq.PUSH), context.socket(zmq.PULL)
pull.bind("inproc://here")
push.connect("inproc://here")
push.send(b"hello")
print(pull.recv(), zmq.zmq_version(), zmq.has("curve"))
context.destroy()
""",
        says="b'hello' 4.3.4 True\n",
    ),
    # A program of the image.
    "qpdf": Case(
        recipe="""name = "qpdf"
system-packages = { apt = ["qpdf"], dnf = ["qpdf"] }

[[files]]
from = "/usr/bin/qpdf"
to = "bin/"
""",
        brings=("lib/libqpdf.so.29", "lib/libgnutls.so.30", "lib/libjpeg.so.62"),
        code="""
import subprocess
subprocess.run(["qpdf", "--empty", "/tmp/empty.pdf"], check=True)
subprocess.run(["qpdf", "--encrypt", "u", "o", "256", "--", "/tmp/empty.pdf", "/tmp/locked.pdf"], check=True)
done = subprocess.run(["qpdf", "--check", "--password=u", "/tmp/locked.pdf"], check=True, capture_output=True)
print(b"No syntax or stream encoding errors found" in done.stdout, b"AESv3" in done.stdout)
""",
        says="True True\n",
    ),
}
