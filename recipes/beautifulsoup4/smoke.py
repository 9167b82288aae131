"""Links and text of a page."""

from bs4 import BeautifulSoup

soup = BeautifulSoup("<ul><li><a href='/one'>One</a><li class='x'>Gr&uuml;&szlig;e</ul>", "html.parser")
assert [link["href"] for link in soup.find_all("a")] == ["/one"]
assert soup.select_one("li.x").get_text() == "Grüße"
