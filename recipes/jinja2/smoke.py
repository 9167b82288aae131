"""A page of a template that extends another."""

from jinja2 import DictLoader, Environment

templates = {
    "base.html": "<title>{% block title %}{% endblock %}</title>",
    "page.html": "{% extends 'base.html' %}{% block title %}{% for x in n %}{{ x|upper }}{% endfor %}{% endblock %}",
}
page = Environment(loader=DictLoader(templates), autoescape=True).get_template("page.html")
assert page.render(n=["a", "<b>"]) == "<title>A&lt;B&gt;</title>"
