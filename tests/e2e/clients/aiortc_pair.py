"""Two peer connections of aiortc, relay-only through one TURN server, with a data channel between them.

    python aiortc_pair.py --port 3478 --transport udp --username NAME --password PASSWORD

Prints `{"local": [types], "states": [state, state], "echoed": N}`. For TLS see `aioice_pair.py`.
"""

import asyncio

from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection
from aiortc.rtcconfiguration import RTCIceTransportPolicy

from relay_client import arguments, payload, report


def connection(options):
    """One side, which gathers relayed candidates only."""
    scheme = "turns" if options.transport == "tls" else "turn"
    transport = "udp" if options.transport == "udp" else "tcp"
    server = RTCIceServer(
        urls=f"{scheme}:{options.host}:{options.port}?transport={transport}",
        username=options.username,
        credential=options.password,
    )
    return RTCPeerConnection(
        RTCConfiguration(iceServers=[server], iceTransportPolicy=RTCIceTransportPolicy.RELAY)
    )


async def introduce(one, other):
    """Offer and answer, with all candidates in them."""
    await one.setLocalDescription(await one.createOffer())
    await other.setRemoteDescription(one.localDescription)
    await other.setLocalDescription(await other.createAnswer())
    await one.setRemoteDescription(other.localDescription)


def candidate_types(description):
    lines = [line for line in description.sdp.splitlines() if line.startswith("a=candidate:")]
    return {line.split(" typ ")[1].split(" ")[0] for line in lines}


async def main(options):
    one, other = connection(options), connection(options)
    opened, answers = asyncio.Event(), asyncio.Queue()

    @other.on("datachannel")
    def on_datachannel(channel):
        channel.on("message", channel.send)

    channel = one.createDataChannel("game")
    channel.on("open", opened.set)
    channel.on("message", answers.put_nowait)
    await introduce(one, other)
    await opened.wait()

    echoed = 0
    for number in range(options.messages):
        channel.send(payload(number))
        echoed += await answers.get() == payload(number)

    states = [one.iceConnectionState, other.iceConnectionState]
    types = sorted(candidate_types(one.localDescription) | candidate_types(other.localDescription))
    await asyncio.gather(one.close(), other.close())
    return {"local": types, "states": states, "echoed": echoed}


if __name__ == "__main__":
    report(main(arguments(__doc__)))
