"""An SSH client that says what it is told to: one key exchange (curve25519-sha256), one cipher
(aes128-gcm@openssh.com), and packets by hand. Needs Debian's python3-cryptography."""

import hashlib
import os
import socket
import struct

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, x25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

DISCONNECT, IGNORE, UNIMPLEMENTED, DEBUG, SERVICE_REQUEST, SERVICE_ACCEPT, EXT_INFO = 1, 2, 3, 4, 5, 6, 7
KEXINIT, NEWKEYS, ECDH_INIT, ECDH_REPLY = 20, 21, 30, 31
USERAUTH_REQUEST, USERAUTH_FAILURE, USERAUTH_SUCCESS, USERAUTH_BANNER, PK_OK = 50, 51, 52, 53, 60
GLOBAL_REQUEST, REQUEST_SUCCESS, REQUEST_FAILURE = 80, 81, 82
CHANNEL_OPEN, OPEN_CONFIRMATION, OPEN_FAILURE, WINDOW_ADJUST = 90, 91, 92, 93
CHANNEL_DATA, CHANNEL_EXTENDED, CHANNEL_EOF, CHANNEL_CLOSE, CHANNEL_REQUEST = 94, 95, 96, 97, 98
CHANNEL_SUCCESS, CHANNEL_FAILURE = 99, 100


def u32(number):
    return struct.pack(">I", number)


def text(value):
    if isinstance(value, str):
        value = value.encode()
    return u32(len(value)) + value


def mpint(value):
    value = value.lstrip(b"\0")
    return text(b"\0" + value if value and value[0] & 0x80 else value)


class Closed(Exception):
    """The server has gone; the reason it gave, if any."""


class Key:
    """A private key with its public blob, and its certificate's, if it has one."""

    def __init__(self, private, certificate=None):
        self.private = private
        self.certificate = certificate
        if isinstance(private, ed25519.Ed25519PrivateKey):
            self.algorithm = "ssh-ed25519"
            raw = private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
            self.blob = text(self.algorithm) + text(raw)
        else:
            self.algorithm = "ecdsa-sha2-nistp256"
            point = private.public_key().public_bytes(
                serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
            )
            self.blob = text(self.algorithm) + text("nistp256") + text(point)

    @classmethod
    def new(cls):
        return cls(ed25519.Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path):
        import base64

        with open(path, "rb") as file:
            private = serialization.load_ssh_private_key(file.read(), None)
        with open(path + "-cert.pub") as file:
            certificate = base64.b64decode(file.read().split()[1])
        return cls(private, certificate)

    def sign(self, data):
        if self.algorithm == "ssh-ed25519":
            return text(self.algorithm) + text(self.private.sign(data))
        r, s = decode_dss_signature(self.private.sign(data, ec.ECDSA(hashes.SHA256())))
        both = mpint(r.to_bytes(32, "big")) + mpint(s.to_bytes(32, "big"))
        return text(self.algorithm) + text(both)

    def certificate_algorithm(self):
        return self.algorithm + "-cert-v01@openssh.com"


class Ssh:
    """One connection."""

    def __init__(self, address, source=None, banner=b"SSH-2.0-raw\r\n", limit=20):
        self.socket = socket.create_connection(address, timeout=limit, source_address=(source, 0) if source else None)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.send_key = self.receive_key = None
        self.session = None
        self.client_version = banner.strip()
        self.socket.sendall(banner)

    # ---- bytes and packets

    def take(self, count):
        while len(self.buffer) < count:
            try:
                more = self.socket.recv(65536)
            except TimeoutError:
                raise Closed("silence") from None
            except ConnectionError as error:
                raise Closed(type(error).__name__) from None
            if not more:
                raise Closed("end")
            self.buffer += more
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def raw(self, data):
        try:
            self.socket.sendall(data)
        except (ConnectionError, TimeoutError) as error:
            raise Closed(type(error).__name__) from None

    def read_version(self):
        line = b""
        while not line.endswith(b"\n"):
            line += self.take(1)
        self.server_version = line.strip()

    def packet(self, payload):
        block = 16 if self.send_key else 8
        covered = 1 + len(payload) + (0 if self.send_key else 4)
        padding = block - covered % block
        if padding < 4:
            padding += block
        body = bytes([padding]) + payload + os.urandom(padding)
        if not self.send_key:
            return u32(len(body)) + body
        key, iv = self.send_key
        length = u32(len(body))
        sealed = key.encrypt(iv, body, length)
        self.send_key = (key, counted(iv))
        return length + sealed

    def send(self, payload):
        self.raw(self.packet(payload))

    def receive_any(self):
        length = self.take(4)
        size = struct.unpack(">I", length)[0]
        if size > 1 << 20:
            raise Closed("nonsense")
        if not self.receive_key:
            body = self.take(size)
        else:
            key, iv = self.receive_key
            body = key.decrypt(iv, self.take(size + 16), length)
            self.receive_key = (key, counted(iv))
        return body[1 : len(body) - body[0]]

    def receive(self):
        """The next message that is not chatter. Key exchanges that the server begins are not expected."""
        while True:
            payload = self.receive_any()
            if payload[0] == DISCONNECT:
                size = struct.unpack(">I", payload[5:9])[0]
                raise Closed("disconnect: " + payload[9 : 9 + size].decode(errors="replace"))
            if payload[0] not in (IGNORE, DEBUG, EXT_INFO, USERAUTH_BANNER):
                return payload

    # ---- key exchange

    def kexinit(self, strict=True):
        kex = "curve25519-sha256,ext-info-c" + (",kex-strict-c-v00@openssh.com" if strict else "")
        cipher = "aes128-gcm@openssh.com"
        lists = [kex, "ssh-ed25519", cipher, cipher, "hmac-sha2-256", "hmac-sha2-256", "none", "none", "", ""]
        return bytes([KEXINIT]) + os.urandom(16) + b"".join(text(names) for names in lists) + b"\0" + u32(0)

    def exchange(self, point=None, strict=True):
        """A whole key exchange, the first or a later one."""
        if self.session is None:
            self.read_version()
        mine = self.kexinit(strict)
        self.send(mine)
        theirs = self.receive()
        assert theirs[0] == KEXINIT, theirs[0]
        self.server_kexinit = theirs
        private = x25519.X25519PrivateKey.generate()
        public = private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        self.send(bytes([ECDH_INIT]) + text(public if point is None else point))
        reply = self.receive()
        if reply[0] != ECDH_REPLY:
            raise Closed("message %d instead of a key exchange reply" % reply[0])
        host_key, rest = pop(reply[1:])
        their_public, rest = pop(rest)
        shared = private.exchange(x25519.X25519PublicKey.from_public_bytes(their_public))
        secret = mpint(shared)
        digest = hashlib.sha256(
            text(self.client_version)
            + text(self.server_version)
            + text(mine)
            + text(theirs)
            + text(host_key)
            + text(public)
            + text(their_public)
            + secret
        ).digest()
        self.session = self.session or digest
        derive = lambda letter, size: hashlib.sha256(secret + digest + letter + self.session).digest()[:size]
        self.send(bytes([NEWKEYS]))
        self.send_key = (AESGCM(derive(b"C", 16)), derive(b"A", 12))
        newkeys = self.receive()
        assert newkeys[0] == NEWKEYS, newkeys[0]
        self.receive_key = (AESGCM(derive(b"D", 16)), derive(b"B", 12))

    # ---- authentication

    def service(self):
        self.send(bytes([SERVICE_REQUEST]) + text("ssh-userauth"))
        accepted = self.receive()
        assert accepted[0] == SERVICE_ACCEPT, accepted[0]

    def request(self, user, algorithm, blob, signed):
        kind = b"\1" if signed else b"\0"
        return (
            bytes([USERAUTH_REQUEST])
            + text(user)
            + text("ssh-connection")
            + text("publickey")
            + kind
            + text(algorithm)
            + text(blob)
        )

    def offer(self, user, algorithm, blob):
        self.send(self.request(user, algorithm, blob, False))
        return self.receive()[0]

    def prove(self, user, algorithm, blob, key):
        request = self.request(user, algorithm, blob, True)
        self.send(request + text(key.sign(text(self.session) + request)))
        return self.receive()[0]

    def log_in(self, user, key):
        """By certificate; fails loudly."""
        self.exchange()
        self.service()
        answer = self.prove(user, key.certificate_algorithm(), key.certificate, key)
        assert answer == USERAUTH_SUCCESS, answer

    # ---- channels

    def open(self, host, port, number=0, window=1 << 20, packet=32768):
        self.send(
            bytes([CHANNEL_OPEN])
            + text("direct-tcpip")
            + u32(number)
            + u32(window)
            + u32(packet)
            + text(host)
            + u32(port)
            + text("127.0.0.1")
            + u32(1)
        )

    def ping(self):
        """The connection lives: a global request that nobody knows is answered."""
        self.send(bytes([GLOBAL_REQUEST]) + text("ping@raw") + b"\1")
        while True:
            answer = self.receive()
            if answer[0] in (REQUEST_SUCCESS, REQUEST_FAILURE, UNIMPLEMENTED):
                return

    def close(self):
        self.socket.close()


def counted(iv):
    """The next nonce of AES-GCM (RFC 5647 section 7.1)."""
    return iv[:4] + struct.pack(">Q", (struct.unpack(">Q", iv[4:])[0] + 1) & (2**64 - 1))


def pop(data):
    size = struct.unpack(">I", data[:4])[0]
    return data[4 : 4 + size], data[4 + size :]
