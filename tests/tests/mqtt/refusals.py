"""Everything that `valve` may not do, and the code that says so. Arguments: port, server name, CA file, certificate file,
key file, version of the protocol. Says "done" at the end.

Packets are written by hand: paho does not show every code that it is told.
"""

import socket
import ssl
import struct
import sys

port, name, ca, certificate, key, version = sys.argv[1:7]
V5 = version == "5"
context = ssl.create_default_context(cafile=ca)
context.load_cert_chain(certificate, key)


def text(value):
    value = value.encode() if isinstance(value, str) else value
    return struct.pack(">H", len(value)) + value


def packet(first, body):
    length, digits = len(body), b""
    while True:
        digit, length = length & 0x7F, length >> 7
        digits += bytes([digit | 0x80 if length else digit])
        if not length:
            return bytes([first]) + digits + body


def properties(raw=b""):
    return bytes([len(raw)]) + raw if V5 else b""


def exactly(stream, count):
    got = b""
    while len(got) < count:
        more = stream.recv(count - len(got))
        if not more:
            raise EOFError
        got += more
    return got


def read(stream):
    first, length, shift = exactly(stream, 1)[0], 0, 0
    while True:
        digit = exactly(stream, 1)[0]
        length |= (digit & 0x7F) << shift
        shift += 7
        if not digit & 0x80:
            return first, exactly(stream, length)


def connect(client_id="valve", will=None, username=None):
    stream = context.wrap_socket(socket.create_connection(("127.0.0.1", int(port)), 60), server_hostname=name)
    flags = 2 | (4 if will else 0) | (0x80 if username else 0)
    body = text("MQTT") + bytes([int(version), flags]) + struct.pack(">H", 60) + properties() + text(client_id)
    if will:
        body += properties() + text(will) + text("gone")
    if username:
        body += text(username)
    stream.sendall(packet(0x10, body))
    first, answer = read(stream)
    assert first == 0x20, first
    return stream, answer


def subscribe(stream, *filters):
    body = struct.pack(">H", 7) + properties() + b"".join(text(one) + b"\x01" for one in filters)
    stream.sendall(packet(0x82, body))
    first, answer = read(stream)
    assert first == 0x90, first
    return list(answer[-len(filters):])


def publish(stream, topic, qos, more=b""):
    number = struct.pack(">H", 9) if qos else b""
    stream.sendall(packet(0x30 | qos << 1, text(topic) + number + properties(more) + b"hello"))


def ends(stream, code):
    if V5:
        first, answer = read(stream)
        assert (first, answer[0]) == (0xE0, code), (first, answer)
        assert b"fairlead" in answer, answer
    try:
        assert stream.recv(1) == b""
    except OSError:
        pass


refused = 0x87 if V5 else 0x80
stream, answer = connect()
assert answer[1] == 0, answer
own = "devices/valve/x"
assert subscribe(stream, "#", own, "$SYS/#", "devices/pump/#", "devices/+/x", "$share/g/devices/pump/#") == [
    refused, 1, refused, refused, refused, refused]
assert subscribe(stream, "$share/g/devices/valve/#", "news/today") == [1, 1]
assert subscribe(stream, "+/valve/x", "$share/g/#", "$queue/devices/valve/x") == [refused] * 3
publish(stream, "devices/pump/x", 0)
publish(stream, own, 1)
# The echoes of the own message and its PUBACK; of the other's nothing.
kinds = []
while 0x40 not in kinds:
    first, answer = read(stream)
    kinds.append(first & 0xF0)
    assert first & 0xF0 in (0x30, 0x40) and b"devices/pump" not in answer, (first, answer)
if V5:
    for qos, kind in ((1, 0x40), (2, 0x50)):
        publish(stream, "devices/pump/x", qos)
        while True:
            first, answer = read(stream)
            if first & 0xF0 != 0x30:
                break
        assert first == kind and answer[2] == 0x87 and b"fairlead: denied (session " in answer, (first, answer)
    # An alias is judged by what it stands for.
    publish(stream, "devices/pump/x", 0, b"\x23\x00\x01")
    publish(stream, "", 1, b"\x23\x00\x01")
    while True:
        first, answer = read(stream)
        if first & 0xF0 != 0x30:
            break
    assert first == 0x40 and answer[2] == 0x87, (first, answer)
    publish(stream, own, 0, b"\x23\x00\x00")
    ends(stream, 0x82)
    stream, _ = connect()
    publish(stream, own, 0, b"\x23\xff\xff")
    ends(stream, 0x94)
else:
    publish(stream, "devices/pump/x", 1)
    try:
        while read(stream):
            pass
    except (EOFError, OSError):
        pass

code = 0x87 if V5 else 5
for wrong in (dict(client_id="pump"), dict(will="devices/pump/x"), dict(will="news/x")):
    stream, answer = connect(**wrong)
    assert answer[1] == code, (wrong, answer)
    if V5:
        assert b"fairlead: denied (session " in answer, answer
stream, answer = connect(will="devices/valve/gone")
assert answer[1] == 0, answer
# CONNECT twice, and what only servers send.
for bad in (packet(0x10, text("MQTT") + bytes([int(version), 2, 0, 60]) + properties() + text("valve")), b"\x20\x02\x00\x00"):
    stream, _ = connect()
    stream.sendall(bad)
    ends(stream, 0x82)
print("done")
