"""A handler with structured logs, metrics, parsing and validation."""

import json
from types import SimpleNamespace

from aws_lambda_powertools import Logger, Metrics, Tracer
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver
from aws_lambda_powertools.utilities.parser import BaseModel, parse
from aws_lambda_powertools.utilities.validation import validate


class Order(BaseModel):
    number: int


logger = Logger(service="smoke", level="ERROR")
metrics = Metrics(namespace="smoke", service="smoke")
tracer = Tracer(service="smoke", disabled=True)
app = APIGatewayHttpResolver()


@app.get("/orders/<number>")
def order(number):
    return {"number": parse({"number": number}, model=Order).number}


@tracer.capture_lambda_handler
@logger.inject_lambda_context
def handler(event, context):
    return app.resolve(event, context)


context = SimpleNamespace(
    function_name="smoke", memory_limit_in_mb=128, invoked_function_arn="arn", aws_request_id="1"
)
event = {
    "rawPath": "/orders/7",
    "requestContext": {"http": {"method": "GET", "path": "/orders/7"}, "stage": "$default"},
}
validate(event={"number": 7}, schema={"type": "object", "required": ["number"]})
answer = handler(event, context)
assert answer["statusCode"] == 200
assert json.loads(answer["body"]) == {"number": 7}
