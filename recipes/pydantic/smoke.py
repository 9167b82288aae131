"""Models that accept, refuse, and become JSON."""

import datetime
from typing import List, Optional

from pydantic import BaseModel, Field, TypeAdapter, ValidationError


class Line(BaseModel):
    name: str = Field(min_length=1)
    price: float


class Order(BaseModel):
    at: datetime.datetime
    lines: List[Line]
    note: Optional[str] = None


order = Order.model_validate_json('{"at": "2024-01-31T12:00:00Z", "lines": [{"name": "x", "price": "1.5"}]}')
wrong = []
try:
    Order.model_validate({"at": "never", "lines": [{"name": ""}]})
except ValidationError as error:
    wrong = error.errors()
assert order.lines[0].price == 1.5
assert Order.model_validate_json(order.model_dump_json()) == order
assert len(wrong) == 3
assert TypeAdapter(List[int]).validate_python(["1"]) == [1]
