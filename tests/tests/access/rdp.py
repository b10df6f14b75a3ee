"""The part of an RDP client that Fairlead reads, with lines in place of a picture: asks `fairlead rdp` for a token, shows it
in a Connection Request, and says on what stands in standard input.

Usage: FAIRLEAD DESKTOP FILE [flood]
"""

import re
import socket
import struct
import subprocess
import sys
import threading

fairlead, desktop, file, *flood = sys.argv[1:]
asked = subprocess.run([fairlead, "rdp", desktop, "--out", file], capture_output=True, text=True)
if asked.returncode:
    sys.exit(asked.stderr)
text = open(file).read()
host, port = re.search(r"full address:s:(.+):(\d+)", text).groups()
line = re.search(r"loadbalanceinfo:s:(.+)", text).group(1).encode() + b"\r\n"
body = b"\xe0\0\0\0\0\0" + line + struct.pack("<BBHI", 1, 0, 8, 3)
request = struct.pack(">BBHB", 3, 0, 5 + len(body), len(body)) + body
gateway = socket.create_connection((host, int(port)))
gateway.sendall(request)

def exactly(count):
    got = b""
    while len(got) < count:
        more = gateway.recv(count - len(got))
        if not more:
            sys.exit("rdp: the connection has ended")
        got += more
    return got

if not flood:
    header = exactly(4)
    answer = exactly(int.from_bytes(header[2:], "big") - 4)
    if answer[1] == 0xD0:
        sys.exit(f"rdp: negotiation failure {answer[-4]}")
    assert b"msts" not in answer, "the desktop was shown the token"

def say():
    for spoken in sys.stdin.buffer:
        gateway.sendall(spoken)
    gateway.shutdown(socket.SHUT_WR)
    global finished
    finished = True

finished = False
threading.Thread(target=say, daemon=True).start()
try:
    while heard := gateway.recv(65536):
        sys.stdout.buffer.write(heard)
        sys.stdout.buffer.flush()
except ConnectionResetError:
    pass
if not finished:
    sys.stderr.write("rdp: the connection has ended\n")
    sys.stderr.flush()
