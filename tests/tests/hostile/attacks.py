"""Attacks on the gateway's SSH side, each on a connection of its own. Prints one line each: name, tab, what happened.
Arguments: port, alice's key, mallory's key, how much of the long ones (1 for the full figures), the port of an endpoint
that never reads."""

import os
import struct
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from rawssh import *

PORT, ALICE, MALLORY, SHARE = int(sys.argv[1]), sys.argv[2], sys.argv[3], float(sys.argv[4])
SINK = ("pump-7.default.internal", int(sys.argv[5]))
ADDRESS = ("127.0.0.1", PORT)
DEVICE = ("pump-7.default.internal", 22)
ATTACKS = []


def attack(function):
    ATTACKS.append(function)
    return function


def greeted(**options):
    ssh = Ssh(ADDRESS, **options)
    ssh.exchange()
    ssh.service()
    return ssh


def alice():
    ssh = Ssh(ADDRESS)
    ssh.log_in("alice", Key.load(ALICE))
    return ssh


def gets_nothing(ssh):
    """Whoever has not logged in asks for a channel: never opened."""
    ssh.open(*DEVICE)
    while (answer := ssh.receive())[0] == GLOBAL_REQUEST:
        pass
    return "LET IN" if answer[0] == OPEN_CONFIRMATION else "message %d" % answer[0]


# ---- before authentication


@attack
def control_login():
    ssh = alice()
    ssh.open(*DEVICE)
    while (answer := ssh.receive())[0] not in (OPEN_CONFIRMATION, OPEN_FAILURE):
        pass
    return "opened" if answer[0] == OPEN_CONFIRMATION else "FAILED"


@attack
def strict_key_exchange_is_offered():
    ssh = Ssh(ADDRESS)
    ssh.exchange()
    names, rest = pop(ssh.server_kexinit[17:])
    _, rest = pop(rest)
    ciphers, _ = pop(rest)
    unsafe = [c for c in ciphers.split(b",") if b"cbc" in c or b"ctr" in c or b"3des" in c]
    return "strict, safe" if b"kex-strict-s-v00@openssh.com" in names and not unsafe else "%r %r" % (names, ciphers)


@attack
def strict_key_exchange_allows_nothing_between():
    ssh = Ssh(ADDRESS)
    ssh.read_version()
    ssh.raw(ssh.packet(bytes([IGNORE]) + text("x")))
    ssh.send(ssh.kexinit())
    assert ssh.receive()[0] == KEXINIT
    ssh.send(bytes([IGNORE]) + text("x"))
    ssh.send(bytes([ECDH_INIT]) + text(os.urandom(32)))
    return "message %d" % ssh.receive()[0]


@attack
def zero_point():
    ssh = Ssh(ADDRESS)
    ssh.exchange(point=bytes(32))
    return "ACCEPTED"


@attack
def short_point():
    ssh = Ssh(ADDRESS)
    ssh.exchange(point=b"\1" * 31)
    return "ACCEPTED"


def server_only(number, before_keys):
    payload = bytes([number]) + {51: text("publickey") + b"\0", 53: text("x") + text(""), 60: text("a") + text("b")}.get(
        number, b""
    )
    if before_keys:
        ssh = Ssh(ADDRESS)
        ssh.read_version()
        ssh.send(payload)
        ssh.exchange()
        ssh.service()
    else:
        ssh = greeted()
        ssh.send(payload)
    return gets_nothing(ssh)


for number in (6, 51, 52, 53, 60, 81, 91, 92, 99):
    for early in (False, True):
        name = "server_only_%d%s" % (number, "_before_keys" if early else "")
        call = lambda number=number, early=early: server_only(number, early)
        call.__name__ = name
        ATTACKS.append(call)


@attack
def channel_before_login():
    return gets_nothing(greeted())


@attack
def channel_messages_before_login():
    ssh = greeted()
    for channel in (0, 7, 2**32 - 1):
        ssh.send(bytes([CHANNEL_DATA]) + u32(channel) + text("x"))
    return gets_nothing(ssh)


@attack
def offered_key_is_not_proven():
    ssh, key = greeted(), Key.load(ALICE)
    first = ssh.offer("alice", key.certificate_algorithm(), key.certificate)
    assert first == PK_OK, first
    return gets_nothing(ssh)


@attack
def offered_key_signed_by_another():
    ssh, key, other = greeted(), Key.load(ALICE), Key.load(MALLORY)
    ssh.offer("alice", key.certificate_algorithm(), key.certificate)
    answer = ssh.prove("alice", key.certificate_algorithm(), key.certificate, other)
    return "LET IN" if answer == USERAUTH_SUCCESS else gets_nothing(ssh)


@attack
def user_changed_after_offer():
    """What alice's offer brought must not help mallory: mallory gets in as mallory and is denied the device."""
    ssh, key, other = greeted(), Key.load(ALICE), Key.load(MALLORY)
    assert ssh.offer("alice", key.certificate_algorithm(), key.certificate) == PK_OK
    answer = ssh.prove("alice", other.certificate_algorithm(), other.certificate, other)
    assert answer == USERAUTH_FAILURE, answer
    answer = ssh.prove("mallory", other.certificate_algorithm(), other.certificate, other)
    assert answer == USERAUTH_SUCCESS, answer
    ssh.open(*DEVICE)
    while (answer := ssh.receive())[0] not in (OPEN_CONFIRMATION, OPEN_FAILURE):
        pass
    return "LET IN" if answer[0] == OPEN_CONFIRMATION else "denied as mallory"


@attack
def user_changed_after_login():
    ssh, other = alice(), Key.load(MALLORY)
    request = ssh.request("mallory", other.certificate_algorithm(), other.certificate, True)
    ssh.send(request + text(other.sign(text(ssh.session) + request)))
    ssh.ping()
    return "ignored"


@attack
def nested_certificate():
    """A certificate whose authority is a certificate: alice's own, signed by the real authority (CVE-2025-49825)."""
    owner, subject = Key.load(ALICE), Key.new()
    blob = (
        text("ssh-ed25519-cert-v01@openssh.com")
        + text(os.urandom(32))
        + subject.blob[4 + len("ssh-ed25519") :]
        + struct.pack(">Q", 1)
        + u32(1)
        + text("spiffe://gw.process.test/user/alice")
        + text(text("alice"))
        + struct.pack(">QQ", int(time.time()) - 60, int(time.time()) + 3600)
        + text("")
        + text("")
        + text("")
        + text(owner.certificate)
    )
    blob += text(owner.sign(blob))
    ssh = greeted()
    answer = ssh.prove("alice", subject.certificate_algorithm(), blob, subject)
    return "LET IN" if answer == USERAUTH_SUCCESS else gets_nothing(ssh)


@attack
def certificate_by_a_users_key():
    """The same with alice's plain key as its authority."""
    owner, subject = Key.load(ALICE), Key.new()
    blob = (
        text("ssh-ed25519-cert-v01@openssh.com")
        + text(os.urandom(32))
        + subject.blob[4 + len("ssh-ed25519") :]
        + struct.pack(">Q", 1)
        + u32(1)
        + text("spiffe://gw.process.test/user/alice")
        + text(text("alice"))
        + struct.pack(">QQ", int(time.time()) - 60, int(time.time()) + 3600)
        + text("")
        + text("")
        + text("")
        + text(owner.blob)
    )
    blob += text(owner.sign(blob))
    ssh = greeted()
    answer = ssh.prove("alice", subject.certificate_algorithm(), blob, subject)
    return "LET IN" if answer == USERAUTH_SUCCESS else gets_nothing(ssh)


@attack
def six_wrong_keys_and_no_more():
    ssh, tries = greeted(), 0
    while True:
        key = Key.new()
        answer = ssh.prove("alice", key.algorithm, key.blob, key)
        assert answer == USERAUTH_FAILURE, answer
        tries += 1
        if tries > 20:
            return "NO END"


@attack
def long_banner():
    ssh = Ssh(ADDRESS, banner=b"SSH-2.0-" + b"A" * 300 + b"\r\n")
    ssh.exchange()
    return "ACCEPTED"


@attack
def endless_banner():
    ssh = Ssh(ADDRESS, banner=b"SSH-2.0-")
    for _ in range(1000):
        ssh.raw(b"A" * 65536)
    return "READ 64 MB"


@attack
def many_lines_before_the_banner():
    ssh = Ssh(ADDRESS, banner=b"SSH")
    for _ in range(10000):
        ssh.raw(b"hello\r\n" * 1000)
    return "READ 70 MB"


for number, length in enumerate((2**32 - 1, 2**31, 256 * 1024 + 1, 0, 1)):

    def call(length=length):
        ssh = Ssh(ADDRESS)
        ssh.read_version()
        ssh.raw(u32(length) + b"\x04\x14" + b"\0" * 64)
        for _ in range(1000):
            ssh.raw(b"\0" * 65536)
        return "READ 64 MB"

    call.__name__ = "packet_length_%d" % length
    ATTACKS.append(call)


@attack
def ignore_messages_before_keys():
    ssh = Ssh(ADDRESS)
    ssh.read_version()
    for _ in range(int(1000 * max(SHARE, 0.1))):
        ssh.raw(ssh.packet(bytes([IGNORE]) + text("x" * 1000)) * 100)
    return "read"


@attack
def kexinit_again_and_again():
    ssh = Ssh(ADDRESS)
    ssh.read_version()
    for _ in range(1000):
        ssh.send(ssh.kexinit())
    # Its end may come after the last of ours; in the clear, one answer to the first is all that may come before it.
    for _ in range(2):
        ssh.receive()
    return "GOES ON"


@attack
def ext_info_before_login():
    ssh = greeted()
    for _ in range(int(100_000 * SHARE)):
        ssh.send(bytes([EXT_INFO]) + u32(1) + text("x@raw") + text("y" * 100))
    return gets_nothing(ssh)


@attack
def rekeys_before_login():
    ssh = greeted()
    for _ in range(int(10_000 * SHARE)):
        ssh.exchange()
    return gets_nothing(ssh)


# ---- after authentication

for channel in (0, 7, 2**32 - 1):
    for what, message in (
        ("data", bytes([CHANNEL_DATA]) + u32(channel) + text("x")),
        ("extended_data", bytes([CHANNEL_EXTENDED]) + u32(channel) + u32(1) + text("x")),
        ("eof", bytes([CHANNEL_EOF]) + u32(channel)),
        ("close", bytes([CHANNEL_CLOSE]) + u32(channel)),
        ("request", bytes([CHANNEL_REQUEST]) + u32(channel) + text("shell") + b"\1"),
        ("window", bytes([WINDOW_ADJUST]) + u32(channel) + u32(2**32 - 1)),
        ("confirmation", bytes([OPEN_CONFIRMATION]) + u32(channel) + u32(0) + u32(9) + u32(9)),
        ("failure", bytes([OPEN_FAILURE]) + u32(channel) + u32(1) + text("") + text("")),
        ("success", bytes([CHANNEL_SUCCESS]) + u32(channel)),
    ):

        def call(message=message):
            ssh = alice()
            ssh.send(message)
            ssh.ping()
            return "ignored"

        call.__name__ = "%s_for_channel_%d" % (what, channel)
        ATTACKS.append(call)


def opened(ssh, **options):
    ssh.open(*DEVICE, **options)
    while True:
        answer = ssh.receive()
        if answer[0] == OPEN_CONFIRMATION:
            return struct.unpack(">I", answer[5:9])[0]
        if answer[0] == OPEN_FAILURE:
            return None


@attack
def max_packet_zero():
    ssh = alice()
    theirs = opened(ssh, packet=0)
    other = opened(ssh, number=1)
    ssh.ping()
    return "refused, others live" if theirs is None and other is not None else "opened %r %r" % (theirs, other)


@attack
def window_of_zero_stalls_only_itself():
    ssh = alice()
    opened(ssh, window=0)
    other = opened(ssh, number=1)
    ssh.ping()
    return "others live" if other is not None else "STALLED"


@attack
def window_overflow():
    ssh = alice()
    theirs = opened(ssh)
    for _ in range(5):
        ssh.send(bytes([WINDOW_ADJUST]) + u32(theirs) + u32(2**32 - 1))
    ssh.ping()
    return "bounded"


@attack
def data_beyond_the_window():
    ssh = alice()
    ssh.open(*SINK)
    while (answer := ssh.receive())[0] != OPEN_CONFIRMATION:
        assert answer[0] != OPEN_FAILURE
    theirs = struct.unpack(">I", answer[5:9])[0]
    for _ in range(4000):
        ssh.send(bytes([CHANNEL_DATA]) + u32(theirs) + text(b"x" * 32000))
    ssh.ping()
    return "READ"


@attack
def a_thousand_channels():
    ssh, ok, refused = alice(), 0, 0
    for number in range(1000):
        ssh.open(*DEVICE, number=number)
    while ok + refused < 1000:
        answer = ssh.receive()[0]
        ok += answer == OPEN_CONFIRMATION
        refused += answer == OPEN_FAILURE
    return "bounded" if ok <= 256 else "%d OPENED" % ok


@attack
def ext_info_after_login():
    ssh = alice()
    for _ in range(int(100_000 * SHARE)):
        ssh.send(bytes([EXT_INFO]) + u32(1) + text("x@raw") + text("y" * 100))
    ssh.ping()
    return "ignored"


@attack
def rekeys_after_login():
    ssh = alice()
    for _ in range(int(10_000 * SHARE)):
        ssh.exchange()
    ssh.ping()
    return "done"


def control_login_afterwards():
    return control_login()


def report(run):
    began = time.monotonic()
    try:
        outcome = run()
    except Closed as closed:
        outcome = "closed: %s" % closed
    except Exception as error:
        outcome = "BROKEN: %r" % error
    # In one piece, because others write too.
    os.write(1, ("%s\t%s\t%.2f s\n" % (run.__name__, outcome, time.monotonic() - began)).encode())


# Several at a time, because some are answered by silence until the login's time is over.
with ThreadPoolExecutor(24) as pool:
    list(pool.map(report, ATTACKS))
report(control_login_afterwards)
