"""paho: every quality of service, and what it is told of a filter and a message that are refused. Arguments: port, server
name, CA file, certificate file, key file, transport (tcp or websockets), version (4 or 5). Says "done" at the end."""

import queue
import socket
import ssl
import sys

import paho.mqtt.client as mqtt

port, name, ca, certificate, key, transport, version = sys.argv[1:8]
own = socket.getaddrinfo
# In place of a DNS record.
socket.getaddrinfo = lambda host, *more, **named: own("127.0.0.1" if host == name else host, *more, **named)
context = ssl.create_default_context(cafile=ca)
context.load_cert_chain(certificate, key)
client = mqtt.Client("valve", transport=transport, protocol=int(version))
client.tls_set_context(context)
told = queue.Queue()


def awaited(kind):
    while True:
        found = told.get(timeout=60)
        if found[0] == kind:
            return found[1:]


client.on_connect = lambda _client, _data, _flags, code, *_: told.put(("connected", int(getattr(code, "value", code))))
client.on_subscribe = lambda _client, _data, _number, codes, *_: told.put(
    ("subscribed", [getattr(code, "value", code) for code in codes]))
client.on_message = lambda _client, _data, message: told.put(("message", message.topic, message.qos, message.payload))
client.connect(name, int(port), 60)
client.loop_start()
assert awaited("connected") == (0,)
client.subscribe([("devices/valve/#", 2), ("devices/pump/#", 1), ("#", 0), ("news/+", 2)])
refused = 0x87 if version == "5" else 0x80
assert awaited("subscribed") == ([2, refused, refused, 2],)
for qos in (0, 1, 2):
    payload = b"%d" % qos * 100_000
    client.publish("devices/valve/x", payload, qos).wait_for_publish(60)
    assert awaited("message") == ("devices/valve/x", qos, payload), qos
    # Dropped, and in version 5 told; the connection of 3.1.1 would end of more than QoS 0.
    if version == "5" or qos == 0:
        client.publish("devices/pump/x", b"no", qos).wait_for_publish(60)
client.publish("devices/valve/x", b"last", 1)
assert awaited("message") == ("devices/valve/x", 1, b"last")
client.disconnect()
client.loop_stop()
print("done")
