//! How things end: by time, by request, by disconnect, by the operator. Nothing of them is left when
//! a call returns, and the shell hears of every socket and channel.

use std::time::Duration;

use stun_wire::error_code;

use super::{Due, Relay};
use crate::clock::Tick;
use crate::request::allocate;
use crate::respond::Reject;
use crate::tables::{AllocationId, Channel};
use crate::verdict::{ConnectionEnd, EndReason, Event, Family, Path, Reason, RelayAddr};

/// How long a spare socket waits for an allocation, and twice that at most.
const SPARE_PATIENCE: Duration = Duration::from_secs(1);

impl Relay {
    /// Ends everything whose time has come.
    pub(super) fn end_due(&mut self, tick: Tick) {
        while let Some(due) = self.timers.due(tick) {
            match due {
                Due::Reservation(token) => self.end_reservation(token),
                Due::Allocation(id) => self.end_due_of(id, tick),
                Due::PeerConnection(connection) => self.end_overdue(connection),
                Due::Spares => self.close_surplus(tick),
            }
        }
    }

    fn end_due_of(&mut self, id: AllocationId, tick: Tick) {
        let Some(allocation) = self.tables.get(id) else {
            return;
        };
        if allocation.pending.is_some() {
            allocate::abandon(
                self,
                id,
                Some(Reject::bare(error_code::INSUFFICIENT_CAPACITY)),
            );
            return;
        }
        if allocation.expires() <= tick {
            self.end(id, tick, EndReason::Expired);
            return;
        }
        for family in [Family::V4, Family::V6] {
            let side = self
                .tables
                .get(id)
                .and_then(|a| *a.sides.get(family as usize)?);
            if side.is_some_and(|side| side.expires <= tick) {
                self.end_side(id, family);
            }
        }
        let freed = self.tables.expire(id, tick);
        self.report_freed(id, freed);
        self.rearm(id);
    }

    pub(super) fn end_reservation(&mut self, token: [u8; 8]) {
        let Some(held) = self.reservations.remove(&token) else {
            return;
        };
        self.timers.remove(held.timer);
        self.holdings.release(held.user);
        self.free_socket(held.addr);
    }

    /// Ends an allocation with all it has: nothing of it is left when this returns.
    pub(crate) fn end(&mut self, id: AllocationId, tick: Tick, reason: EndReason) {
        if self
            .tables
            .get(id)
            .is_some_and(|allocation| allocation.pending.is_some())
        {
            allocate::abandon(self, id, None);
            return;
        }
        let freed = self.tables.retain(id, |_| false);
        self.report_freed(id, freed);
        self.end_connections(id, ConnectionEnd::AllocationEnded, |_| true);
        self.tcp.remove(id);
        let Some(allocation) = self.tables.remove(id) else {
            return;
        };
        self.timers.remove(allocation.timer);
        self.holdings.release(allocation.user);
        self.holdings.release_address(allocation.client.remote.ip());
        let relayed = allocation.relayed();
        for addr in relayed.into_iter().flatten() {
            self.free_socket(addr);
        }
        self.events.push_back(Event::AllocationEnded {
            client: allocation.client,
            relayed,
            reason,
            duration: tick.since(allocation.created),
            traffic: allocation.traffic,
        });
    }

    /// Ends one family of a dual allocation; the other lives on.
    pub(crate) fn end_side(&mut self, id: AllocationId, family: Family) {
        let Some(client) = self.tables.get(id).map(|allocation| allocation.client) else {
            return;
        };
        self.end_connections(id, ConnectionEnd::AllocationEnded, |peer| {
            Family::of(peer.ip()) == family
        });
        let Some((side, freed)) = self.tables.remove_side(id, family) else {
            return;
        };
        for channel in freed {
            self.events
                .push_back(channel_freed(client, side.relayed, &channel));
        }
        self.events
            .push_back(Event::AddressEnded { addr: side.relayed });
        self.free_socket(side.relayed);
        self.rearm(id);
    }

    /// A socket or listener that was opened is not needed any more. A socket may be spared.
    pub(crate) fn free_socket(&mut self, addr: RelayAddr) {
        if self.tcp.unlisten(addr) {
            self.ports.give_back(addr);
            self.events.push_back(Event::ListenFreed { addr });
        } else if self.draining || self.ports.spares.len() >= self.config.spare_sockets {
            self.close_socket(addr);
        } else {
            self.ports.spare(addr);
            let review = self.clock.latest().after(SPARE_PATIENCE);
            let timers = &mut self.timers;
            self.spares_timer
                .get_or_insert_with(|| timers.insert(review, Reason::SpareSockets, Due::Spares));
        }
    }

    fn close_socket(&mut self, addr: RelayAddr) {
        self.ports.give_back(addr);
        self.events.push_back(Event::SocketFreed { addr });
    }

    /// A socket or listener that was asked for could not be opened.
    pub(crate) fn forget_socket(&mut self, addr: RelayAddr) {
        self.ports.give_back(addr);
        self.tcp.unlisten(addr);
    }

    /// Somebody sends to it: it is no socket for anybody else.
    pub(super) fn close_spare(&mut self, addr: RelayAddr) {
        if self.ports.spares.remove(addr) {
            self.close_socket(addr);
        }
    }

    /// Its ports are needed, or no allocation will come.
    pub(crate) fn close_spares(&mut self) {
        for addr in self.ports.spares.take_all() {
            self.close_socket(addr);
        }
    }

    fn close_surplus(&mut self, tick: Tick) {
        for addr in self.ports.spares.surplus() {
            self.close_socket(addr);
        }
        if self.ports.spares.len() > 0 {
            let review = tick.after(SPARE_PATIENCE);
            if let Some(timer) = self.spares_timer {
                self.timers.set(timer, review, Reason::SpareSockets);
            }
        } else if let Some(timer) = self.spares_timer.take() {
            self.timers.remove(timer);
        }
    }

    pub(super) fn report_freed(&mut self, id: AllocationId, freed: Vec<Channel>) {
        let Some(allocation) = self.tables.get(id) else {
            return;
        };
        let (client, relayed) = (allocation.client, allocation.relayed());
        for channel in freed {
            let side = relayed.get(Family::of(channel.peer.ip()) as usize);
            if let Some(Some(relayed)) = side {
                self.events
                    .push_back(channel_freed(client, *relayed, &channel));
            }
        }
    }

    /// Moves an allocation's deadline to what ends next in it.
    pub(crate) fn rearm(&mut self, id: AllocationId) {
        let deadline = self.tables.deadline(id);
        if let Some((allocation, (at, reason))) = self.tables.get(id).zip(deadline) {
            self.timers.set(allocation.timer, at, reason);
        }
    }
}

fn channel_freed(client: Path, relayed: RelayAddr, channel: &Channel) -> Event {
    Event::ChannelFreed {
        client,
        relayed,
        peer: channel.peer,
        channel: channel.number,
    }
}
