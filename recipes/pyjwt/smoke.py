"""Tokens by a secret and by a key."""

import time

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

claims = {"sub": "user", "exp": int(time.time()) + 60, "aud": "smoke"}
secret = "s" * 32
key = ec.generate_private_key(ec.SECP256R1())
tokens = [(secret, jwt.encode(claims, secret, "HS256")), (key.public_key(), jwt.encode(claims, key, "ES256"))]
for public, token in tokens:
    assert jwt.decode(token, public, algorithms=["HS256", "ES256"], audience="smoke")["sub"] == "user"
refused = False
try:
    jwt.decode(tokens[0][1], "t" * 32, algorithms=["HS256"], audience="smoke")
except jwt.InvalidSignatureError:
    refused = True
assert refused
