// Two peer connections of werift, relay-only through one TURN server, with a data channel between them.
//
//     node werift_pair.mjs URL USERNAME CREDENTIAL MESSAGES
//
// Run it where werift is installed (`npm install werift@0.24.4`). Prints `{"candidates": [types], "echoed": N}`.

import { RTCPeerConnection } from "werift";

const [urls, username, credential, messages] = process.argv.slice(2);

// An upper bound for a broken relay on a loaded machine, not a pace.
const PATIENCE = 45_000;

function connection() {
  return new RTCPeerConnection({
    iceServers: [{ urls, username, credential }],
    iceTransportPolicy: "relay",
  });
}

function types(description) {
  return [...description.sdp.matchAll(/^a=candidate:.* typ (\w+)/gm)].map((match) => match[1]);
}

async function meet() {
  const one = connection();
  const other = connection();
  other.ondatachannel = ({ channel }) => {
    channel.onmessage = ({ data }) => channel.send(data);
  };
  const channel = one.createDataChannel("game");
  const opened = new Promise((resolve) => (channel.onopen = resolve));

  // setLocalDescription gathers, so that the description holds every candidate.
  await one.setLocalDescription(await one.createOffer());
  await other.setRemoteDescription(one.localDescription);
  await other.setLocalDescription(await other.createAnswer());
  await one.setRemoteDescription(other.localDescription);
  await opened;

  let echoed = 0;
  for (let number = 0; number < Number(messages); number += 1) {
    const message = `message ${number} ${"x".repeat(number % 7)}`;
    const answer = new Promise((resolve) => (channel.onmessage = resolve));
    channel.send(message);
    echoed += (await answer).data.toString() === message ? 1 : 0;
  }
  const found = new Set([...types(one.localDescription), ...types(other.localDescription)]);
  await Promise.all([one.close(), other.close()]);
  return { candidates: [...found].sort(), echoed };
}

setTimeout(() => {
  console.error("not in time");
  process.exit(1);
}, PATIENCE);
console.log(JSON.stringify(await meet()));
process.exit(0);
