"""The gateway as another SSH library sees it (Debian's python3-asyncssh). Paramiko 2.12 speaks none of the ciphers that
strict key exchange protects. Arguments: port, alice's key, mallory's key."""

import asyncio
import sys

import asyncssh

PORT, ALICE, MALLORY = int(sys.argv[1]), sys.argv[2], sys.argv[3]
DEVICE = ("pump-7.default.internal", 22)


async def attempt(what, **credentials):
    try:
        async with asyncssh.connect(
            "127.0.0.1", PORT, username="alice", known_hosts=None, agent_path=None, config=[], **credentials
        ) as connection:
            reader, _ = await connection.open_connection(*DEVICE)
            print("%s: %s" % (what, (await reader.readexactly(8)).decode()))
    except (asyncssh.Error, OSError):
        print("%s: refused" % what)


async def main():
    alice, certificate = asyncssh.read_private_key(ALICE), asyncssh.read_certificate(ALICE + "-cert.pub")
    await attempt("certificate", client_keys=[(alice, certificate)])
    await attempt("unknown key", client_keys=[asyncssh.generate_private_key("ssh-ed25519")])
    other, theirs = asyncssh.read_private_key(MALLORY), asyncssh.read_certificate(MALLORY + "-cert.pub")
    await attempt("another's certificate", client_keys=[(other, theirs)])
    await attempt("password", client_keys=None, password="secret")


asyncio.run(main())
