"""paho in a WebSocket. Arguments: port, server name, CA file, certificate file, key file. Says "done" at the end."""

import socket
import ssl
import sys

import paho.mqtt.client as mqtt

port, name, ca, certificate, key = sys.argv[1:6]
own = socket.getaddrinfo
# In place of a DNS record.
socket.getaddrinfo = lambda host, *more, **named: own("127.0.0.1" if host == name else host, *more, **named)
context = ssl.create_default_context(cafile=ca)
context.load_cert_chain(certificate, key)
client = mqtt.Client("valve", transport="websockets", protocol=mqtt.MQTTv311)
client.tls_set_context(context)
granted = []


def on_subscribe(client, _data, _number, codes):
    granted.extend(codes)
    client.publish("devices/valve/x", b"w" * 300_000, 1)


def on_message(client, _data, message):
    assert message.payload == b"w" * 300_000
    client.disconnect()


client.on_connect = lambda client, *_: client.subscribe([("devices/valve/#", 1), ("devices/pump/#", 1)])
client.on_subscribe, client.on_message = on_subscribe, on_message
client.connect(name, int(port), 60)
client.loop_forever(retry_first_connection=False)
assert granted == [1, 128], granted
print("done")
