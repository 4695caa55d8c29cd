// Two peer connections of one browser, relay-only through one TURN server, with a data channel between them.
//
//     browser_pair.html?url=turn:HOST:PORT?transport=udp&username=NAME&credential=PASSWORD&messages=N
//
// (each value percent-encoded). Posts what it found to `/result`: `{"echoed": N, "pairs": [{"local", "remote",
// "relayProtocol"}, ...], "candidates": [types]}`, or `{"error": "..."}`.

const options = new URLSearchParams(location.search);
const configuration = {
  iceTransportPolicy: "relay",
  iceServers: [
    {
      urls: options.get("url"),
      username: options.get("username"),
      credential: options.get("credential"),
    },
  ],
};

// An upper bound for a broken relay on a loaded machine, not a pace.
const PATIENCE = 45_000;

async function meet() {
  const one = new RTCPeerConnection(configuration);
  const other = new RTCPeerConnection(configuration);
  const types = new Set();
  introduce(one, other, types);
  introduce(other, one, types);

  other.ondatachannel = ({ channel }) => {
    channel.onmessage = ({ data }) => channel.send(data);
  };
  const channel = one.createDataChannel("game");
  const opened = new Promise((resolve) => (channel.onopen = resolve));

  await one.setLocalDescription();
  await other.setRemoteDescription(one.localDescription);
  await other.setLocalDescription();
  await one.setRemoteDescription(other.localDescription);
  await opened;

  const echoed = await exchange(channel, Number(options.get("messages")));
  const pairs = [await selectedPair(one), await selectedPair(other)];
  one.close();
  other.close();
  return { echoed, pairs, candidates: [...types].sort() };
}

// Tells `other` the candidates of `one` as they come. Those that come before a description wait for it.
function introduce(one, other, types) {
  const early = [];
  const described = () => other.remoteDescription !== null;
  other.addEventListener("signalingstatechange", () => {
    if (described()) {
      early.splice(0).forEach((candidate) => other.addIceCandidate(candidate));
    }
  });
  one.onicecandidate = ({ candidate }) => {
    if (!candidate || !candidate.candidate) return;
    types.add(/ typ (\w+)/.exec(candidate.candidate)[1]);
    if (described()) other.addIceCandidate(candidate);
    else early.push(candidate);
  };
}

async function exchange(channel, messages) {
  let echoed = 0;
  for (let number = 0; number < messages; number += 1) {
    const message = `message ${number} ${"x".repeat(number % 7)}`;
    const answer = new Promise((resolve) => (channel.onmessage = resolve));
    channel.send(message);
    echoed += (await answer).data === message ? 1 : 0;
  }
  return echoed;
}

// The pair that the transport says it uses (Firefox has no such entry and marks the pair itself).
async function selectedPair(connection) {
  const stats = await connection.getStats();
  const all = [...stats.values()];
  const transport = all.find((it) => it.type === "transport" && it.selectedCandidatePairId);
  const pair = transport
    ? stats.get(transport.selectedCandidatePairId)
    : all.find((it) => it.type === "candidate-pair" && it.selected);
  const local = stats.get(pair.localCandidateId);
  const remote = stats.get(pair.remoteCandidateId);
  return {
    local: local.candidateType,
    remote: remote.candidateType,
    relayProtocol: local.relayProtocol,
  };
}

function deadline() {
  return new Promise((_, reject) => setTimeout(() => reject(new Error("not in time")), PATIENCE));
}

const result = await Promise.race([meet(), deadline()]).catch((error) => ({ error: String(error) }));
await fetch("/result", { method: "POST", body: JSON.stringify(result) });
