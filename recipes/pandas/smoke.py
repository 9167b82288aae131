"""Reads CSV, groups, joins, resamples, writes CSV and JSON; Parquet where there is a library for it."""

import importlib.util
import io

import pandas as pd

text = "day,name,value\n2024-01-01,a,1\n2024-01-01,b,2\n2024-01-08,a,4\n"
frame = pd.read_csv(io.StringIO(text), parse_dates=["day"])
sums = frame.groupby("name")["value"].sum()
weeks = frame.set_index("day")["value"].resample("7D").sum()
joined = frame.merge(pd.DataFrame({"name": ["a"], "title": ["A"]}), on="name", how="left")
assert sums.to_dict() == {"a": 5, "b": 2}
assert list(weeks) == [3, 4]
assert joined["title"].isna().sum() == 1
assert sums.to_csv().splitlines() == ["name,value", "a,5", "b,2"]
assert len(pd.read_json(io.StringIO(frame.to_json(orient="records")))) == 3
if importlib.util.find_spec("pyarrow"):
    assert frame.to_parquet().startswith(b"PAR1")
