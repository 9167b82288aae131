"""Signs and verifies, encrypts and decrypts; OpenSSL's version."""

from cryptography.fernet import Fernet
from cryptography.hazmat.backends.openssl import backend
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
scheme = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
key.public_key().verify(key.sign(b"text", scheme, hashes.SHA256()), b"text", scheme, hashes.SHA256())
small = ed25519.Ed25519PrivateKey.generate()
small.public_key().verify(small.sign(b"text"), b"text")
curve = ec.generate_private_key(ec.SECP256R1())
pem = curve.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
box = Fernet(Fernet.generate_key())
assert box.decrypt(box.encrypt(b"text")) == b"text"
assert serialization.load_pem_public_key(pem) == curve.public_key()
assert backend.openssl_version_text().startswith("OpenSSL")
