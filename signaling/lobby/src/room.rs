//! A lobby: its members and their numbers. Numbers are never reused and names never shared.

use crate::connection::{ConnId, Door};
use crate::passphrase::PassphraseHash;
use signal_wire::{Lobby, LobbyId, Member, MemberId, SessionId};
use std::time::Instant;
use unicode_normalization::UnicodeNormalization;

/// Who a member is to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Occupant {
    /// A native player, cut or not.
    Session(SessionId),
    /// A player at the passphrase door.
    Tank(ConnId),
}

#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) id: MemberId,
    pub(crate) name: Box<str>,
    pub(crate) occupant: Occupant,
}

#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) id: LobbyId,
    pub(crate) hash: PassphraseHash,
    pub(crate) door: Door,
    pub(crate) version: u64,
    /// In the order they came, so by number.
    pub(crate) seats: Vec<Seat>,
    pub(crate) last_active: Instant,
    max: u16,
    next_member: u16,
}

/// Why a seat could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoSeat {
    Full,
    NameTaken,
}

impl Room {
    pub(crate) const fn new(
        id: LobbyId,
        hash: PassphraseHash,
        door: Door,
        max: u16,
        now: Instant,
    ) -> Self {
        Self {
            id,
            hash,
            door,
            version: 0,
            seats: Vec::new(),
            last_active: now,
            max,
            next_member: 1,
        }
    }

    /// Seats somebody; an empty name becomes `player <number>`.
    pub(crate) fn join(&mut self, name: &str, occupant: Occupant) -> Result<MemberId, NoSeat> {
        // Numbers are not reused: a lobby that has used them all stays full.
        if self.is_full() || self.next_member == u16::MAX {
            return Err(NoSeat::Full);
        }
        let id = MemberId(self.next_member);
        let name = if name.is_empty() {
            format!("player {id}")
        } else {
            name.to_owned()
        };
        let folded = fold(&name);
        if self.seats.iter().any(|seat| fold(&seat.name) == folded) {
            return Err(NoSeat::NameTaken);
        }
        self.next_member += 1;
        self.version += 1;
        self.seats.push(Seat {
            id,
            name: name.into(),
            occupant,
        });
        Ok(id)
    }

    /// Frees a seat; false when there was none.
    pub(crate) fn leave(&mut self, member: MemberId) -> bool {
        let before = self.seats.len();
        self.seats.retain(|seat| seat.id != member);
        let left = self.seats.len() < before;
        self.version += u64::from(left);
        left
    }

    pub(crate) fn is_full(&self) -> bool {
        self.seats.len() >= usize::from(self.max)
    }

    pub(crate) fn seat(&self, member: MemberId) -> Option<&Seat> {
        let at = self
            .seats
            .binary_search_by_key(&member, |seat| seat.id)
            .ok()?;
        self.seats.get(at)
    }

    /// The lobby as its members see it.
    pub(crate) fn view(&self) -> Lobby {
        let member = |seat: &Seat| Member {
            id: seat.id,
            name: seat.name.to_string(),
        };
        Lobby {
            id: self.id,
            version: self.version,
            max: self.max,
            members: self.seats.iter().map(member).collect(),
        }
    }

    /// Everybody but `member`.
    pub(crate) fn others(&self, member: MemberId) -> Vec<Occupant> {
        let others = self.seats.iter().filter(|seat| seat.id != member);
        others.map(|seat| seat.occupant).collect()
    }
}

/// Names that look alike are the same name.
fn fold(name: &str) -> String {
    name.nfkc().flat_map(char::to_lowercase).collect()
}
