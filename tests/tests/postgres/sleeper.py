"""A Postgres client by hand: direct TLS (ALPN postgresql), SCRAM-SHA-256, then a long query.

Says the cancel key it was shown ("NUMBER SECRET-IN-HEX"), then the SQLSTATE that ends the query.
Arguments: port, server name, CA file, certificate file, key file, password.
"""

import base64
import hashlib
import hmac
import os
import socket
import ssl
import struct
import sys

port, name, ca, certificate, key, password = sys.argv[1:7]
context = ssl.create_default_context(cafile=ca)
context.load_cert_chain(certificate, key)
context.set_alpn_protocols(["postgresql"])
stream = context.wrap_socket(socket.create_connection(("127.0.0.1", int(port))), server_hostname=name)
assert stream.selected_alpn_protocol() == "postgresql"
reader = stream.makefile("rb")


def send(kind, body):
    stream.sendall(kind + struct.pack("!I", len(body) + 4) + body)


def message():
    head = reader.read(5)
    if len(head) < 5:
        sys.exit("the connection ended")
    return head[:1], reader.read(struct.unpack("!I", head[1:])[0] - 4)


def fields(body):
    return {part[:1]: part[1:].decode() for part in body.split(b"\0") if part}


def proof(server_first, client_bare):
    parts = dict(part.split("=", 1) for part in server_first.split(","))
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(parts["s"]), int(parts["i"]))
    client = hmac.digest(salted, b"Client Key", "sha256")
    without = "c=biws,r=" + parts["r"]
    signed = ",".join((client_bare, server_first, without)).encode()
    signature = hmac.digest(hashlib.sha256(client).digest(), signed, "sha256")
    shown = bytes(a ^ b for a, b in zip(client, signature))
    return without + ",p=" + base64.b64encode(shown).decode()


startup = struct.pack("!I", 196608) + b"user\0postgres\0database\0billing\0application_name\0by hand\0\0"
stream.sendall(struct.pack("!I", len(startup) + 4) + startup)
bare = "n=,r=" + base64.b64encode(os.urandom(18)).decode()
while True:
    kind, body = message()
    if kind == b"E":
        sys.exit(fields(body)[b"M"])
    elif kind == b"R":
        step = struct.unpack("!I", body[:4])[0]
        if step == 10:
            first = ("n,," + bare).encode()
            send(b"p", b"SCRAM-SHA-256\0" + struct.pack("!I", len(first)) + first)
        elif step == 11:
            send(b"p", proof(body[4:].decode(), bare).encode())
    elif kind == b"K":
        print(struct.unpack("!I", body[:4])[0], body[4:].hex(), flush=True)
    elif kind == b"Z":
        break
send(b"Q", b"select pg_sleep(60)\0")
while True:
    kind, body = message()
    if kind == b"E":
        print(fields(body)[b"C"], flush=True)
        break
sys.stdin.read()
