"""Two ICE agents of aioice, relay-only through one TURN server, that exchange datagrams.

    python aioice_pair.py --port 3478 --transport udp --username NAME --password PASSWORD

Prints `{"local": [types], "selected": [[from, to], [from, to]], "echoed": N}`. For TLS the server's certificate is judged as
Python judges any other: SSL_CERT_FILE names the authority.
"""

import asyncio

from aioice import Connection, TransportPolicy

from relay_client import arguments, payload, report


def agent(options, controlling):
    """One agent, which gathers relayed candidates only."""
    return Connection(
        ice_controlling=controlling,
        use_ipv6=False,
        turn_server=(options.host, options.port),
        turn_username=options.username,
        turn_password=options.password,
        turn_ssl=options.transport == "tls",
        turn_transport="udp" if options.transport == "udp" else "tcp",
        transport_policy=TransportPolicy.RELAY,
    )


async def introduce(one, other):
    """Tells `other` who `one` is, as signaling would."""
    for candidate in one.local_candidates:
        await other.add_remote_candidate(candidate)
    await other.add_remote_candidate(None)
    other.remote_username = one.local_username
    other.remote_password = one.local_password


async def echo(connection, messages):
    for _ in range(messages):
        await connection.send(await connection.recv())


async def main(options):
    one, other = agent(options, True), agent(options, False)
    await asyncio.gather(one.gather_candidates(), other.gather_candidates())
    types = sorted({it.type for agent in (one, other) for it in agent.local_candidates})
    await introduce(one, other)
    await introduce(other, one)
    await asyncio.gather(one.connect(), other.connect())

    echoing = asyncio.create_task(echo(other, options.messages))
    echoed = 0
    for number in range(options.messages):
        await one.send(payload(number))
        echoed += await one.recv() == payload(number)
    await echoing

    pairs = [one._nominated[1], other._nominated[1]]
    selected = [[pair.local_candidate.type, pair.remote_candidate.type] for pair in pairs]
    await asyncio.gather(one.close(), other.close())
    return {"local": types, "selected": selected, "echoed": echoed}


if __name__ == "__main__":
    report(main(arguments(__doc__)))
