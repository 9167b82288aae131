"""An application with a route, asked as API Gateway asks it."""

import asyncio
import json

from fastapi import FastAPI
from mangum import Mangum
from pydantic import BaseModel

asyncio.set_event_loop(asyncio.new_event_loop())
app = FastAPI()


class Order(BaseModel):
    number: int


@app.post("/orders/{name}")
async def order(name: str, order: Order):
    return {"name": name, "number": order.number}


http = {"method": "POST", "path": "/orders/x", "sourceIp": "127.0.0.1", "protocol": "HTTP/1.1"}
event = {"version": "2.0", "routeKey": "$default", "rawPath": "/orders/x", "rawQueryString": ""}
event.update(headers={"content-type": "application/json"}, body='{"number": 7}', isBase64Encoded=False)
event.update(requestContext={"http": http, "stage": "$default"})
answer = Mangum(app, lifespan="off")(event, None)
assert answer["statusCode"] == 200, answer
assert json.loads(answer["body"]) == {"name": "x", "number": 7}
assert "/orders/{name}" in app.openapi()["paths"]
