"""Reads and writes by the parser in C."""

import yaml

text = "name: Grüße\nlist: [1, 2.5, yes]\nat: 2024-01-31\n"
data = yaml.load(text, Loader=yaml.CSafeLoader)
assert data == yaml.safe_load(text)
assert data["list"] == [1, 2.5, True]
assert yaml.load(yaml.dump(data, Dumper=yaml.CSafeDumper, allow_unicode=True), Loader=yaml.CSafeLoader) == data
