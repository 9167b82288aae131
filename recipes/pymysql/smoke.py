"""What needs no server: escaping, and the error where there is none."""

import pymysql
from pymysql.converters import escape_item
from pymysql.cursors import DictCursor

failed = None
try:
    pymysql.connect(unix_socket="/tmp/nowhere.sock", user="x", password="y", cursorclass=DictCursor)
except pymysql.err.OperationalError as error:
    failed = error
assert failed.args[0] == 2003
assert escape_item("it's", "utf8mb4") == "'it\\'s'"
assert pymysql.paramstyle == "pyformat"
