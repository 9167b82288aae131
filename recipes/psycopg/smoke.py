"""Its client library, and what needs no server: composing and adapting."""

import psycopg
from psycopg import pq, sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

query = sql.SQL("select {} from {} where id = %s").format(sql.Identifier("name"), sql.Identifier("orders"))
failed = None
try:
    psycopg.connect(host="/tmp/nowhere", dbname="x", connect_timeout=1, row_factory=dict_row)
except psycopg.OperationalError as error:
    failed = error
assert pq.__impl__ == "binary"
assert pq.version() >= 120000
assert query.as_string(None) == 'select "name" from "orders" where id = %s'
assert make_conninfo(host="h", dbname="d") == "host=h dbname=d"
assert Jsonb({"a": 1}).obj == {"a": 1}
assert "nowhere" in str(failed)
