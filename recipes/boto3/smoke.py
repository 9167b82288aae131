"""Clients of common services, and a signed URL; nothing is asked of a network."""

import boto3

session = boto3.Session("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", region_name="eu-west-1")
clients = {name: session.client(name) for name in ("s3", "sqs", "dynamodb", "lambda")}
table = session.resource("dynamodb").Table("orders")
url = clients["s3"].generate_presigned_url("get_object", Params={"Bucket": "one", "Key": "two"}, ExpiresIn=60)
assert clients["sqs"].meta.region_name == "eu-west-1"
assert "Invoke" in clients["lambda"].meta.service_model.operation_names
assert table.name == "orders"
assert "amazonaws.com" in url
assert "Signature=" in url
