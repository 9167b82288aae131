"""A session with retries; the error where nobody listens; certificates that load."""

import ssl

import certifi
import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

session = requests.Session()
session.mount("https://", HTTPAdapter(max_retries=Retry(total=1, backoff_factor=0)))
request = session.prepare_request(requests.Request("POST", "https://example.org/a", params={"q": "ü"}, json={"a": 1}))
failed = None
try:
    session.get("http://127.0.0.1:1/", timeout=1)
except requests.ConnectionError as error:
    failed = error
assert request.url == "https://example.org/a?q=%C3%BC"
assert request.body == b'{"a": 1}'
assert failed is not None
assert ssl.create_default_context(cafile=certifi.where()).cert_store_stats()["x509_ca"] > 50
