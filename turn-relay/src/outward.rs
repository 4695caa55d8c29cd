//! The ways out of a shard: a verdict becomes bytes on a socket or a connection, and a count.

use turn_relay_proto::{Direction, DropReason, Forward, Now, Path, Relay, RelayAddr, Verdict};

use crate::counters::{ShardCounters, Side};
use crate::sockets::{Departure, Sockets};
use crate::stream::Kind;
use crate::streams::Streams;

/// The ways out of a shard, and the counts of what goes them.
pub(crate) struct Outward {
    pub(crate) sockets: Sockets,
    pub(crate) streams: Streams,
    pub(crate) counters: ShardCounters,
}

impl Outward {
    /// Does what the verdict on something a client sent says. Towards a relay socket of this shard
    /// it goes no further than to the machine, which is asked at once what becomes of it there.
    pub(crate) fn act_for_client(
        &mut self,
        relay: &mut Relay,
        now: Now,
        verdict: &Verdict,
        input: &[u8],
        reply: &[u8],
    ) {
        if let Verdict::Forward(forward) = verdict
            && forward.hairpin
        {
            let payload = input.get(forward.payload.clone()).unwrap_or_default();
            let there = RelayAddr(forward.path.remote);
            let arrival = relay.handle_peer(now, there, forward.path.local, payload);
            // One that a sibling shard owns is reached through the system.
            if arrival != Verdict::Dropped(DropReason::UnknownRelay) {
                self.counters.traffic.forwarded(Side::Client, forward);
                self.counters.traffic.received(Side::Peer);
                self.act(Side::Peer, &arrival, payload, reply);
                return;
            }
        }
        self.act(Side::Client, verdict, input, reply);
    }

    /// Does what the verdict says with `input`, and counts it.
    pub(crate) fn act(&mut self, side: Side, verdict: &Verdict, input: &[u8], reply: &[u8]) {
        match verdict {
            Verdict::Forward(forward) => {
                self.counters.traffic.forwarded(side, forward);
                self.forward(forward, input);
            }
            Verdict::Reply { path } => {
                self.counters.traffic.replied(side);
                self.send_to_client(*path, &[reply], Kind::Reply);
            }
            Verdict::Absorbed => self.counters.traffic.absorbed(side),
            Verdict::Dropped(reason) => self.counters.traffic.dropped(side, *reason),
        }
    }

    fn forward(&mut self, forward: &Forward, input: &[u8]) {
        // The machine names a range of the input it was given.
        let payload = input.get(forward.payload.clone()).unwrap_or_default();
        let padding = [0; 3];
        let padding = padding
            .get(..usize::from(forward.padding))
            .unwrap_or_default();
        let parts = [forward.header.as_bytes(), payload, padding];
        match forward.direction {
            Direction::ToPeer => {
                let Path {
                    local: from,
                    remote: to,
                    ..
                } = forward.path;
                let dont_fragment = forward.dont_fragment;
                let departure = Departure {
                    from,
                    to,
                    parts: &parts,
                    dont_fragment,
                };
                self.sockets.push_to_peer(&departure, &self.counters);
            }
            Direction::ToClient => self.send_to_client(forward.path, &parts, Kind::Data),
        }
    }

    /// Sends a message on the way the client uses.
    pub(crate) fn send_to_client(&mut self, path: Path, parts: &[&[u8]], kind: Kind) {
        if path.transport.is_stream() {
            self.streams.push(path, parts, kind, &self.counters);
        } else {
            let Path {
                local: from,
                remote: to,
                ..
            } = path;
            let departure = Departure {
                from,
                to,
                parts,
                dont_fragment: false,
            };
            self.sockets.push_to_client(&departure, &self.counters);
        }
    }
}
