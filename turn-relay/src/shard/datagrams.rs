//! What comes in by UDP: from clients at the listeners, from peers at the relay sockets.

use net_io::MAX_BATCH;
use turn_relay_proto::{Path, RelayAddr, Transport, Verdict};

use super::Shard;
use crate::counters::Side;
use crate::peer_errors;
use crate::sockets::SocketKey;

/// Full receives from one socket in a round. What they bring is sent together, in trains where several datagrams have one
/// destination: from hundreds of players that takes hundreds of datagrams. Only a socket with a queue gets so far.
const RECEIVES: usize = 16;

/// So many requests in a batch end the turn of their socket: an answer leaves at the end of the round, and whoever waits for
/// one may as well work meanwhile. Few hold up no data.
const REQUESTS_END_TURN: usize = MAX_BATCH / 2;

/// What the first receive from a socket takes at most: few have more, and those get another.
const FIRST_FROM_CLIENTS: usize = 8;
const FIRST_FROM_PEERS: usize = 4;

/// One receive in so many is sampled for the batch histogram.
const BATCH_SAMPLE: u32 = 16;

/// What a receive has brought.
enum Received {
    /// All there was.
    Last,
    /// As much as there was room for.
    Full,
    /// As much as there was room for, and the turn is over.
    Enough,
}

impl Shard {
    /// What clients have sent, up to a few batches. True: there may be more.
    pub(super) fn serve_clients(&mut self, key: SocketKey) -> bool {
        self.receive_some(FIRST_FROM_CLIENTS, |shard| shard.receive_from_clients(key))
    }

    /// What peers have sent to a relay socket, up to a few batches, and what the network says of them. True: there may be
    /// more.
    pub(super) fn serve_peers(&mut self, key: SocketKey) -> bool {
        let Self {
            relay,
            outward,
            reply,
            now,
            ..
        } = self;
        let Some(addr) = outward.sockets.relay_addr(key) else {
            return false;
        };
        let has_more_errors = peer_errors::serve(relay, outward, *now, (key, addr), reply);
        let has_more = self.receive_some(FIRST_FROM_PEERS, |shard| {
            shard.receive_from_peers(key, addr)
        });
        has_more || has_more_errors
    }

    /// Receives until a batch is not full, or it is another socket's turn. The first batch is small.
    fn receive_some(
        &mut self,
        first: usize,
        mut receive: impl FnMut(&mut Self) -> Received,
    ) -> bool {
        self.datagrams.set_capacity(first);
        for _ in 0..=RECEIVES {
            let received = receive(self);
            self.datagrams.set_capacity(MAX_BATCH);
            match received {
                Received::Last => return false,
                Received::Full => {}
                Received::Enough => return true,
            }
        }
        true
    }

    /// One batch.
    fn receive_from_clients(&mut self, key: SocketKey) -> Received {
        let Self {
            relay,
            outward,
            datagrams,
            reply,
            now,
            ..
        } = self;
        let has_more = outward.sockets.receive(key, datagrams, &outward.counters);
        let traffic = &outward.counters.traffic;
        traffic.truncated(Side::Client, datagrams.truncated());
        let (mut received, mut requests) = (0, 0);
        for datagram in datagrams.iter() {
            received += 1;
            outward.counters.traffic.received(Side::Client);
            let transport = Transport::Udp;
            let path = Path {
                transport,
                local: datagram.local,
                remote: datagram.from,
            };
            let verdict = relay.handle_client(*now, path, datagram.bytes, reply);
            requests += usize::from(!matches!(verdict, Verdict::Forward(_)));
            outward.act_for_client(relay, *now, &verdict, datagram.bytes, reply);
        }
        self.counts_changed |= requests > 0;
        self.sample_batch(received);
        match has_more {
            false => Received::Last,
            true if requests < REQUESTS_END_TURN => Received::Full,
            true => Received::Enough,
        }
    }

    /// One batch.
    fn receive_from_peers(&mut self, key: SocketKey, addr: RelayAddr) -> Received {
        let Self {
            relay,
            outward,
            datagrams,
            reply,
            now,
            ..
        } = self;
        let has_more = outward.sockets.receive(key, datagrams, &outward.counters);
        let traffic = &outward.counters.traffic;
        traffic.truncated(Side::Peer, datagrams.truncated());
        let mut received = 0;
        for datagram in datagrams.iter() {
            received += 1;
            outward.counters.traffic.received(Side::Peer);
            let verdict = relay.handle_peer(*now, addr, datagram.from, datagram.bytes);
            outward.act(Side::Peer, &verdict, datagram.bytes, reply);
        }
        self.sample_batch(received);
        if has_more {
            Received::Full
        } else {
            Received::Last
        }
    }

    fn sample_batch(&mut self, received: usize) {
        self.receives = self.receives.wrapping_add(1);
        if self.receives.is_multiple_of(BATCH_SAMPLE) && received > 0 {
            self.outward.counters.traffic.sample_batch(received);
        }
    }
}
