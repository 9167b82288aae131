"""Parses XML and HTML, asks by XPath, transforms by XSLT."""

import lxml.html
from lxml import etree

tree = etree.fromstring("<orders><order id='1'>One</order><order id='2'>Zwölf</order></orders>")
sheet = etree.XML(
    "<xsl:stylesheet version='1.0' xmlns:xsl='http://www.w3.org/1999/XSL/Transform'>"
    "<xsl:template match='/'><n><xsl:value-of select='count(//order)'/></n></xsl:template></xsl:stylesheet>"
)
page = lxml.html.fromstring("<p>See <a href='/one'>one</a><br>two")
assert tree.xpath("//order[@id = '2']/text()") == ["Zwölf"]
assert etree.XSLT(sheet)(tree).getroot().text == "2"
assert [link for _, _, link, _ in page.iterlinks()] == ["/one"]
assert etree.LIBXML_VERSION >= (2, 9)
