//! `lobby.join` and `lobby.leave`: by passphrase into a lobby, and out of it.

use crate::ServerBody;
use crate::connection::{ConnId, Door};
use crate::deadlines::Due;
use crate::lobbies::{Lobbies, Now, Refusal};
use crate::output::{Event, IceSubject, Limiter};
use crate::passphrase::PassphraseHash;
use crate::room::{NoSeat, Occupant, Room};
use rand::RngExt;
use signal_wire::{
    ErrorCode, LeaveReason, LobbyId, LobbyJoin, LobbyJoined, LobbyReady, Member, MemberId,
    MemberJoined, SessionId, limits,
};
use std::time::Duration;
use zeroize::Zeroizing;

/// A wish to enter the lobby of a passphrase, by whichever door.
pub(crate) struct Entry<'a> {
    pub(crate) conn: ConnId,
    pub(crate) door: Door,
    pub(crate) game: &'a str,
    pub(crate) passphrase: Zeroizing<String>,
    pub(crate) create: bool,
    pub(crate) max: u16,
}

impl Lobbies {
    pub(crate) fn join(
        &mut self,
        now: Now,
        conn: ConnId,
        session_id: SessionId,
        id: Option<u64>,
        join: LobbyJoin,
    ) -> Result<(), Refusal> {
        let LobbyJoin {
            passphrase,
            create,
            max,
        } = join;
        let passphrase = Zeroizing::new(passphrase);
        let Some(session) = self.sessions.get(&session_id) else {
            return Ok(());
        };
        let (game, name) = (session.game.clone(), session.name.clone());
        if let Some((lobby, you)) = session.lobby {
            // Asked again because the answer was lost in a cut: the answer is the same.
            let hash = self.config.passphrase.hash(&self.key, &game, &passphrase);
            let room = self
                .rooms
                .get(&lobby)
                .filter(|room| hash == Some(room.hash));
            let already = Refusal::new(ErrorCode::AlreadyMember, "leave the other lobby first");
            let room = room.ok_or(already)?;
            let joined = LobbyJoined {
                lobby: room.view(),
                you,
                ice_servers: Vec::new(),
            };
            let ice = Some(IceSubject {
                session: session_id,
                member: you,
            });
            self.reply_with_ice(conn, id, ServerBody::LobbyJoined(joined), ice);
            return Ok(());
        }
        let entry = Entry {
            conn,
            door: Door::Native,
            game: &game,
            passphrase,
            create,
            max,
        };
        let lobby = self.enter(now, entry)?;
        let occupant = Occupant::Session(session_id);
        let you = self.take_seat(now, lobby, &name, occupant)?;
        if let Some(session) = self.sessions.get_mut(&session_id) {
            session.lobby = Some((lobby, you));
        }
        let Some(room) = self.rooms.get(&lobby) else {
            return Ok(());
        };
        let joined = LobbyJoined {
            lobby: room.view(),
            you,
            ice_servers: Vec::new(),
        };
        let ice = Some(IceSubject {
            session: session_id,
            member: you,
        });
        self.reply_with_ice(conn, id, ServerBody::LobbyJoined(joined), ice);
        self.announce(now, lobby, you);
        Ok(())
    }

    /// Finds the lobby of a passphrase, or opens it.
    pub(crate) fn enter(&mut self, now: Now, entry: Entry<'_>) -> Result<LobbyId, Refusal> {
        self.check_join_rates(now, entry.conn, entry.create)?;
        let hash = self
            .config
            .passphrase
            .hash(&self.key, entry.game, &entry.passphrase);
        let hash = hash.ok_or(Refusal::new(
            ErrorCode::BadPassphrase,
            "the passphrase has not the form this server asks for",
        ))?;
        if let Some(id) = self.passphrases.get(&hash) {
            let door = self.rooms.get(id).map(|room| room.door);
            let other = Refusal::new(ErrorCode::Forbidden, "this lobby is open at another door");
            return if door == Some(entry.door) {
                Ok(*id)
            } else {
                Err(other)
            };
        }
        if !entry.create {
            self.count_guess(now, entry.conn);
            return Err(Refusal::new(
                ErrorCode::NotFound,
                "no lobby has this passphrase",
            ));
        }
        self.open(now, &entry, hash)
    }

    fn open(
        &mut self,
        now: Now,
        entry: &Entry<'_>,
        hash: PassphraseHash,
    ) -> Result<LobbyId, Refusal> {
        if !(limits::LOBBY_MEMBERS_MIN..=self.config.lobby_members).contains(&entry.max) {
            return Err(Refusal::new(ErrorCode::BadRequest, "max is out of bounds"));
        }
        if self.draining {
            return Err(Refusal::new(
                ErrorCode::Unavailable,
                "the server is going down",
            ));
        }
        if self.rooms.len() >= self.config.lobbies {
            return Err(Refusal::new(
                ErrorCode::Busy,
                "the server holds no more lobbies",
            ));
        }
        let rate = self.config.open_rate;
        if let Some(record) = self.source_of(entry.conn) {
            // Judged by check_join_rates before, so that refusals tell nothing about the lobby.
            let _ = record.opens.take(now.mono, rate, 1);
        }
        let id = LobbyId(self.random.random());
        self.rooms
            .insert(id, Room::new(id, hash, entry.door, entry.max, now.mono));
        self.passphrases.insert(hash, id);
        self.deadlines
            .set(Due::Idle(id), now.mono + self.config.lobby_idle);
        self.note(Event::LobbyOpened(entry.door));
        Ok(id)
    }

    /// Judges the rates before the passphrase is looked at: a refusal must not tell whether a
    /// lobby exists, or guessing would be free.
    fn check_join_rates(&mut self, now: Now, conn: ConnId, create: bool) -> Result<(), Refusal> {
        let config = &self.config;
        let (joins, guesses, opens) = (config.join_rate, config.guess_rate, config.open_rate);
        let all = self
            .total_guesses
            .check(now.mono, config.total_guess_rate, 1);
        let Some(connection) = self.connections.get_mut(&conn) else {
            return Ok(());
        };
        let exempt = connection.source.is_none();
        let taken = if exempt {
            Ok(())
        } else {
            connection.joins.take(now.mono, joins, 1)
        };
        taken.map_err(|wait| self.too_many(Limiter::Joins, wait))?;
        let Some(record) = self.source_of(conn) else {
            return Ok(());
        };
        if create {
            let open = record.opens.check(now.mono, opens, 1);
            return open.map_err(|wait| self.too_many(Limiter::Opens, wait));
        }
        let own = record.guesses.check(now.mono, guesses, 1);
        let all = if record.guesses.is_rested(now.mono) {
            Ok(())
        } else {
            all
        };
        own.and(all)
            .map_err(|wait| self.too_many(Limiter::Guesses, wait))
    }

    fn count_guess(&mut self, now: Now, conn: ConnId) {
        let rate = self.config.guess_rate;
        let Some(record) = self.source_of(conn) else {
            return;
        };
        let _ = record.guesses.take(now.mono, rate, 1);
        let _ = self
            .total_guesses
            .take(now.mono, self.config.total_guess_rate, 1);
    }

    fn source_of(&mut self, conn: ConnId) -> Option<&mut crate::address::Record> {
        let source = self.connections.get(&conn)?.source?;
        self.sources.record(source)
    }

    fn too_many(&mut self, limiter: Limiter, wait: Duration) -> Refusal {
        self.note(Event::RateLimited(limiter));
        let code = ErrorCode::RateLimited;
        Refusal {
            code,
            message: "too many joins or wrong passphrases",
            retry: Some(wait),
        }
    }

    /// Seats somebody; a lobby just opened always has room.
    pub(crate) fn take_seat(
        &mut self,
        now: Now,
        lobby: LobbyId,
        name: &str,
        occupant: Occupant,
    ) -> Result<MemberId, Refusal> {
        let Some(room) = self.rooms.get_mut(&lobby) else {
            return Err(Refusal::new(ErrorCode::NotFound, "the lobby is gone"));
        };
        let you = room.join(name, occupant).map_err(|no_seat| match no_seat {
            NoSeat::Full => Refusal::new(ErrorCode::LobbyFull, "the lobby is full"),
            NoSeat::NameTaken => {
                Refusal::new(ErrorCode::Conflict, "somebody in the lobby has this name")
            }
        })?;
        room.last_active = now.mono;
        Ok(you)
    }

    /// Tells the others who came, and everybody when the lobby is ready.
    fn announce(&mut self, now: Now, lobby: LobbyId, you: MemberId) {
        let Some(room) = self.rooms.get_mut(&lobby) else {
            return;
        };
        let Some(seat) = room.seat(you) else { return };
        let member = Member {
            id: you,
            name: seat.name.to_string(),
        };
        let joined = MemberJoined {
            lobby_id: lobby,
            version: room.version,
            member,
        };
        let others = room.others(you);
        let ready = room.is_full();
        room.version += u64::from(ready);
        let version = room.version;
        let everybody: Vec<_> = room.seats.iter().map(|seat| seat.occupant).collect();
        for occupant in others {
            if let Occupant::Session(session) = occupant {
                self.event(now, session, ServerBody::MemberJoined(joined.clone()), None);
            }
        }
        if !ready {
            return;
        }
        self.rooms_ready += 1;
        self.note(Event::LobbyReady(Door::Native));
        for occupant in everybody {
            if let Occupant::Session(session) = occupant {
                let ready = LobbyReady {
                    lobby_id: lobby,
                    version,
                };
                self.event(now, session, ServerBody::LobbyReady(ready), None);
            }
        }
    }

    pub(crate) fn leave(
        &mut self,
        now: Now,
        conn: ConnId,
        session: SessionId,
        id: Option<u64>,
    ) -> Result<(), Refusal> {
        let seat = self
            .sessions
            .get_mut(&session)
            .and_then(|session| session.lobby.take());
        let Some((lobby, member)) = seat else {
            return Err(Refusal::new(ErrorCode::NotFound, "not in a lobby"));
        };
        self.vacate(now, lobby, member, LeaveReason::Left);
        self.reply(conn, id, ServerBody::LobbyLeft);
        Ok(())
    }
}
