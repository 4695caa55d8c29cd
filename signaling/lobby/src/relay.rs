//! `signal` and `ice.request`: what members of a lobby need to find a path to each other.

use crate::ServerBody;
use crate::connection::ConnId;
use crate::lobbies::{Lobbies, Now, Refusal};
use crate::output::IceSubject;
use crate::room::Occupant;
use signal_wire::{
    ErrorCode, IceServers, RawData, SessionId, SignalFromWith, SignalToWith, limits,
};

impl Lobbies {
    /// Passes a signal on to a member of the same lobby, `from` being the server's word.
    pub(crate) fn signal(
        &mut self,
        now: Now,
        session: SessionId,
        signal: SignalToWith<RawData>,
    ) -> Result<(), Refusal> {
        let SignalToWith {
            to,
            kind,
            conn,
            data,
        } = signal;
        if conn.len() > limits::CONNECTION_BYTES || data.as_str().len() > limits::SIGNAL_DATA_BYTES
        {
            return Err(Refusal::new(
                ErrorCode::TooLarge,
                "conn or data is too long",
            ));
        }
        let seat = self
            .sessions
            .get(&session)
            .and_then(|session| session.lobby);
        let (lobby, from) = seat.ok_or(Refusal::new(ErrorCode::NotFound, "not in a lobby"))?;
        let no_member = Refusal::new(ErrorCode::NotFound, "no such member");
        let room = self.rooms.get_mut(&lobby).ok_or(no_member)?;
        let receiver = room
            .seat(to)
            .filter(|seat| seat.id != from)
            .map(|seat| seat.occupant);
        let Some(Occupant::Session(receiver)) = receiver else {
            return Err(no_member);
        };
        room.last_active = now.mono;
        let signal = SignalFromWith {
            from,
            kind,
            conn,
            data,
        };
        self.event(now, receiver, ServerBody::Signal(signal), None);
        Ok(())
    }

    /// Fresh credentials for a member; the shell makes them.
    pub(crate) fn ice_request(
        &mut self,
        conn: ConnId,
        session: SessionId,
        id: Option<u64>,
    ) -> Result<(), Refusal> {
        let seat = self
            .sessions
            .get(&session)
            .and_then(|session| session.lobby);
        let (_, member) = seat.ok_or(Refusal::new(ErrorCode::NotFound, "not in a lobby"))?;
        let body = ServerBody::IceServers(IceServers {
            ice_servers: Vec::new(),
            ttl_s: 0,
        });
        self.reply_with_ice(conn, id, body, Some(IceSubject { session, member }));
        Ok(())
    }
}
