"""MQTT 5 by paho: says lines to a topic and reads them again; what it is told goes to standard error.

Arguments: port, server name, CA file, certificate file, key file, ALPN or nothing, port of the broker or nothing. With the
last, it subscribes to more than it reads, which a second connection straight to the broker publishes.
"""

import os
import socket
import ssl
import sys
import threading

import paho.mqtt.client as mqtt

port, name, ca, certificate, key, alpn, broker = sys.argv[1:8]
own = socket.getaddrinfo
# In place of a DNS record.
socket.getaddrinfo = lambda host, *more, **named: own("127.0.0.1" if host == name else host, *more, **named)
context = ssl.create_default_context(cafile=ca)
context.load_cert_chain(certificate, key)
if alpn:
    context.set_alpn_protocols([alpn])
ready, heard, left = threading.Event(), threading.Semaphore(0), threading.Event()


def told(reason):
    print(reason or "the connection was lost", file=sys.stderr, flush=True)
    os._exit(1)


def on_connect(client, _data, _flags, reason, properties=None):
    if reason != 0:
        told(getattr(properties, "ReasonString", None))
    client.subscribe("flood/x" if broker else "talk/x", 0 if broker else 1)


def on_message(_client, _data, message):
    os.write(1, message.payload + b"\n")
    heard.release()


def on_disconnect(_client, _data, reason, properties=None):
    if reason != 0:
        told(getattr(properties, "ReasonString", None))
    left.set()


def flood():
    straight = mqtt.Client()
    straight.connect("127.0.0.1", int(broker))
    while True:
        straight.publish("flood/x", b"x" * 10000)
        straight.loop(0.001)


client = mqtt.Client(protocol=mqtt.MQTTv5)
client.tls_set_context(context)
client.on_connect, client.on_message, client.on_disconnect = on_connect, on_message, on_disconnect
client.on_subscribe = lambda *_: ready.set()
try:
    client.connect(name, int(port), 60)
except OSError as error:
    print(error, file=sys.stderr, flush=True)
    sys.exit(1)
# An alert of TLS ends the client's own thread.
threading.excepthook = lambda failed: told(str(failed.exc_value))
client.loop_start()
ready.wait(90)
if broker:
    flood()
said = 0
for line in sys.stdin:
    client.publish("talk/x", line.strip(), 1)
    said += 1
for _ in range(said):
    heard.acquire()
client.disconnect()
left.wait(30)
