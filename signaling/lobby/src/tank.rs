//! The passphrase door of the tank game: `{"join":"jump-rocket"}`, then whatever the two players
//! say to each other, verbatim and in order. No sessions: who is cut has left.

use crate::connection::{ConnId, Door, Stage};
use crate::join::Entry;
use crate::lobbies::{Lobbies, Now, Refusal};
use crate::output::{Dropped, Event, Output};
use crate::room::Occupant;
use serde::Deserialize;
use signal_wire::{ErrorCode, LobbyId, MemberId, limits};
use zeroize::Zeroizing;

/// The game all of its lobbies are in.
const GAME: &str = "tank";

impl Lobbies {
    /// A connection of the passphrase door sent text.
    pub fn handle_text(&mut self, now: Now, conn: ConnId, text: String) {
        if !self.take(now, conn, text.len(), None) {
            return;
        }
        let Some(Stage::Tank(seat)) = self.connections.get(&conn).map(|known| known.stage) else {
            return;
        };
        let result = match seat {
            // Before the join nothing is relayed, so `join` may stand anywhere in the object.
            None => match join_of(&Zeroizing::new(text)) {
                Some(passphrase) => self.tank_join(now, conn, passphrase),
                None => Err(Refusal::new(ErrorCode::Unauthorized, "join first")),
            },
            Some(_) if starts_with_join(&text) => {
                Err(Refusal::new(ErrorCode::AlreadyMember, "joined already"))
            }
            Some((lobby, member)) => {
                self.tank_relay(now, lobby, member, text);
                Ok(())
            }
        };
        if let Err(refusal) = result {
            self.refuse(conn, None, refusal);
        }
    }

    fn tank_join(
        &mut self,
        now: Now,
        conn: ConnId,
        passphrase: Zeroizing<String>,
    ) -> Result<(), Refusal> {
        let max = limits::LOBBY_MEMBERS_MIN;
        let entry = Entry {
            conn,
            door: Door::Tank,
            game: GAME,
            passphrase,
            create: true,
            max,
        };
        let lobby = self.enter(now, entry)?;
        let you = self.take_seat(now, lobby, "", Occupant::Tank(conn))?;
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.stage = Stage::Tank(Some((lobby, you)));
        }
        let Some(room) = self.rooms.get(&lobby) else {
            return Ok(());
        };
        let players = room.seats.len();
        let ready = room.is_full();
        let everybody: Vec<_> = room.seats.iter().map(|seat| seat.occupant).collect();
        self.say(
            conn,
            format!(r#"{{"type":"joined","joined":true,"players":{players}}}"#),
        );
        if !ready {
            return Ok(());
        }
        self.rooms_ready += 1;
        self.note(Event::LobbyReady(Door::Tank));
        for occupant in everybody {
            if let Occupant::Tank(player) = occupant {
                self.say(player, r#"{"type":"ready","ready":true}"#.to_owned());
            }
        }
        Ok(())
    }

    fn tank_relay(&mut self, now: Now, lobby: LobbyId, member: MemberId, text: String) {
        let Some(room) = self.rooms.get_mut(&lobby) else {
            return;
        };
        room.last_active = now.mono;
        // Two players at most: the other one, or nobody.
        let other = room
            .seats
            .iter()
            .find(|seat| seat.id != member)
            .map(|seat| seat.occupant);
        match other {
            Some(Occupant::Tank(to)) => self.output(Output::Text { to, text }),
            Some(Occupant::Session(_)) | None => self.note(Event::Dropped(Dropped::NoReceiver)),
        }
    }

    /// Tells the one who stays how many are left.
    pub(crate) fn tank_left(&mut self, to: ConnId, players: usize) {
        self.say(
            to,
            format!(r#"{{"type":"left","left":true,"players":{players}}}"#),
        );
    }

    pub(crate) fn refuse_tank(&mut self, to: ConnId, code: ErrorCode) {
        // A native lobby of the same name is, to this door, a lobby without room.
        let error = if matches!(code, ErrorCode::LobbyFull | ErrorCode::Forbidden) {
            "full"
        } else if code == ErrorCode::Unauthorized {
            "not_joined"
        } else if code == ErrorCode::AlreadyMember {
            "already_joined"
        } else {
            code.as_str()
        };
        self.say(to, format!(r#"{{"type":"error","error":"{error}"}}"#));
    }

    fn say(&mut self, to: ConnId, text: String) {
        self.output(Output::Text { to, text });
    }
}

/// The passphrase of `{"join":"…"}`.
fn join_of(text: &str) -> Option<Zeroizing<String>> {
    #[derive(Deserialize)]
    struct Join {
        join: String,
    }
    let message: Join = serde_json::from_str(text).ok()?;
    Some(Zeroizing::new(message.join))
}

/// Whether the first key of an object is `join`; the rest is the players' own business.
fn starts_with_join(text: &str) -> bool {
    let first_key = || {
        let object = text.trim_start().strip_prefix('{')?;
        let value = object.trim_start().strip_prefix("\"join\"")?;
        value.trim_start().strip_prefix(':')
    };
    first_key().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_key_makes_a_join() {
        assert!(starts_with_join(r#"{"join":"x"}"#) && starts_with_join(" { \"join\" : 1}"));
        for other in [
            r#"{"playerMove":{"join":1}}"#,
            r#"{"joint":1}"#,
            r#"["join"]"#,
            "",
            "{",
        ] {
            assert!(!starts_with_join(other), "{other}");
        }
    }
}
