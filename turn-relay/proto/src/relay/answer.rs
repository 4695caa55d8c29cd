//! From a STUN message to its answer: class and method, then credentials, then the request itself.

use std::net::SocketAddr;

use stun_wire::attribute::{ConnectionId, XorPeerAddress};
use stun_wire::{AttributeType, Class, Message, MessageWriter, Method, error_code};

use super::{Relay, forward};
use crate::auth::{Circumstances, Refusal};
use crate::clock::Tick;
use crate::counters::RequestMethod;
use crate::data;
use crate::limits::Unproven;
use crate::request::{
    Request, allocate, binding, channel_bind, connect, connection_bind, create_permission,
    known_attributes, refresh, split_proof,
};
use crate::respond::{Answer, Challenge, Envelope, Reject};
use crate::verdict::{DropReason, Now, Path, PeerConnectionId, Verdict};

impl Relay {
    pub(super) fn handle_stun(
        &mut self,
        now: Now,
        tick: Tick,
        path: Path,
        input: &[u8],
        reply: &mut Vec<u8>,
    ) -> Verdict {
        let Ok(message) = Message::parse(input) else {
            return Verdict::Dropped(DropReason::Malformed);
        };
        match (message.class(), message.method()) {
            (Class::Request, _) => self.handle_request(now, tick, path, &message, reply),
            (Class::Indication, Method::SEND) => {
                forward(data::from_indication(self, tick, &path, &message))
            }
            (Class::Indication, Method::BINDING) => Verdict::Absorbed, // a keepalive
            // Answers are never answered: no loop between two servers can start.
            (Class::Indication | Class::Success | Class::Error, _) => {
                Verdict::Dropped(DropReason::NotARequest)
            }
        }
    }

    fn handle_request(
        &mut self,
        now: Now,
        tick: Tick,
        path: Path,
        message: &Message<'_>,
        reply: &mut Vec<u8>,
    ) -> Verdict {
        // RFC 8489 §6.3: a method that is not known is silently discarded.
        let speaks = |method: &RequestMethod| {
            self.config.protocol.tcp_relaying || !method.is_of_tcp_relaying()
        };
        let Some(method) = RequestMethod::of(message.method()).filter(speaks) else {
            return Verdict::Dropped(DropReason::UnknownMethod);
        };
        if self.tcp.carries_data(&path) {
            return Verdict::Dropped(DropReason::NotTurn);
        }
        self.counters.count_request(method, path.transport);
        self.end_due(tick);
        if method == RequestMethod::Binding {
            return binding::handle(self, tick, path, message, reply);
        }
        let mut envelope = Envelope {
            method,
            transaction: message.transaction_id(),
            signer: None,
            fingerprint: message.has_fingerprint(),
        };
        let allocation = self
            .tables
            .find_client(&path)
            .and_then(|id| self.tables.get(id));
        let owns_allocation = allocation.is_some();
        let circumstances = Circumstances {
            now,
            tick,
            path: &path,
            owner: allocation.map(|allocation| self.holdings.name(allocation.user)),
            expiry_counts: expiry_counts(method, message),
        };
        match self
            .auth
            .authenticate(&circumstances, message, &mut self.limiter)
        {
            Ok(proof) => {
                let user = split_proof(proof, &mut envelope);
                let request = Request {
                    tick,
                    path,
                    message: *message,
                    user: &user,
                    envelope: &envelope,
                };
                let result = self.act(&request);
                self.respond(path, &envelope, result, reply)
            }
            Err(Refusal::Drop(reason)) => Verdict::Dropped(reason),
            Err(Refusal::Say { code, why, signer }) => {
                self.counters.count_auth_failure(why);
                envelope.signer = signer;
                let stranger = Stranger {
                    tick,
                    path,
                    owns_allocation,
                };
                self.refuse(stranger, message, &mut envelope, code, reply)
            }
        }
    }

    /// The authenticated part. RFC 8489 §6.3: unknown attributes are looked for after
    /// authentication, so the 420 is signed.
    fn act(&mut self, request: &Request<'_>) -> Result<Answer, Reject> {
        let unknown = request
            .message
            .unknown_required(known_attributes(&self.config.protocol));
        if !unknown.is_empty() {
            return Err(Reject::unknown(unknown));
        }
        match request.envelope.method {
            RequestMethod::Binding => Ok(Answer::Mapped(request.path.remote)),
            RequestMethod::Allocate => allocate::handle(self, request),
            RequestMethod::Refresh => refresh::handle(self, request),
            RequestMethod::CreatePermission => create_permission::handle(self, request),
            RequestMethod::ChannelBind => channel_bind::handle(self, request),
            RequestMethod::Connect => connect::handle(self, request),
            RequestMethod::ConnectionBind => connection_bind::handle(self, request),
        }
    }

    /// Answers an unproven request: within its rate, and within three times its length.
    fn refuse(
        &mut self,
        stranger: Stranger,
        message: &Message<'_>,
        envelope: &mut Envelope,
        code: u16,
        reply: &mut Vec<u8>,
    ) -> Verdict {
        let Stranger { tick, path, .. } = stranger;
        // A handshake or a signature proves that the source is there. An allocation does not: anybody
        // can write its owner's address.
        let proven = path.transport.is_stream() || envelope.signer.is_some();
        if !proven
            && !self
                .limiter
                .admit(tick, Unproven::Challenge, path.remote.ip())
        {
            return Verdict::Dropped(DropReason::AnswerLimited);
        }
        if code == error_code::BAD_REQUEST {
            return self.respond(path, envelope, Err(Reject::bare(code)), reply);
        }
        let room = if proven {
            usize::MAX
        } else {
            message.as_bytes().len() * 3
        };
        let list = Some(self.auth.algorithms());
        let list = list.filter(|_| Challenge::len(self.auth.realm(), list) <= room);
        let len = Challenge::len(self.auth.realm(), list);
        if len > room {
            // Too short to be challenged: what else is wrong with it is true as well.
            let bare = match envelope.method {
                RequestMethod::Allocate
                | RequestMethod::Binding
                | RequestMethod::ConnectionBind => error_code::BAD_REQUEST,
                _ if stranger.owns_allocation => error_code::UNAUTHENTICATED,
                RequestMethod::Refresh
                | RequestMethod::CreatePermission
                | RequestMethod::ChannelBind
                | RequestMethod::Connect => error_code::ALLOCATION_MISMATCH,
            };
            envelope.fingerprint = false;
            return self.respond(path, envelope, Err(Reject::bare(bare)), reply);
        }
        envelope.fingerprint &= len.saturating_add(Envelope::FINGERPRINT_LEN) <= room;
        let nonce = self.auth.nonce(tick, &path, list.is_some());
        let realm = self.auth.realm();
        let challenge = Challenge {
            code,
            realm,
            nonce: &nonce,
            algorithms: list,
        };
        envelope.challenge(reply, &challenge);
        self.counters.count_error(envelope.method, code);
        Verdict::Reply { path }
    }

    /// Writes and counts a response.
    pub(crate) fn respond(
        &mut self,
        path: Path,
        envelope: &Envelope,
        result: Result<Answer, Reject>,
        reply: &mut Vec<u8>,
    ) -> Verdict {
        match result {
            Ok(Answer::Later) => return Verdict::Absorbed,
            Ok(answer) => {
                envelope.success(reply, &answer);
                self.counters.count_success(envelope.method);
            }
            Err(reject) => {
                envelope.reject(reply, &reject);
                self.counters.count_error(envelope.method, reject.code);
            }
        }
        Verdict::Reply { path }
    }

    /// Writes and counts a response that leaves by `poll_transmit`. There are as many as pending
    /// allocations and Connect requests at most.
    pub(crate) fn respond_later(
        &mut self,
        path: Path,
        envelope: &Envelope,
        result: Result<Answer, Reject>,
    ) {
        let mut bytes = Vec::new();
        if let Verdict::Reply { path } = self.respond(path, envelope, result, &mut bytes) {
            self.outbox.push_back((path, bytes));
        }
    }

    /// Tells a client on its control connection that a peer has connected (RFC 6062 §5.3). There
    /// are as many as waiting connections at most.
    pub(super) fn indicate_attempt(
        &mut self,
        client: Path,
        peer: SocketAddr,
        connection: PeerConnectionId,
    ) {
        let transaction = data::random_transaction(self);
        let mut bytes = Vec::new();
        let method = Method::CONNECTION_ATTEMPT;
        let mut writer = MessageWriter::new(&mut bytes, Class::Indication, method, transaction);
        writer
            .attribute(&XorPeerAddress(peer))
            .attribute(&ConnectionId(connection.0));
        writer.finish();
        self.outbox.push_back((client, bytes));
    }
}

/// Who has to be answered without proof.
#[derive(Clone, Copy)]
struct Stranger {
    tick: Tick,
    path: Path,
    /// His 5-tuple, or one that he borrowed, has an allocation: 437 would be a lie.
    owns_allocation: bool,
}

/// An expired credential makes nothing and prolongs nothing; what lives may still be used, and ended
/// by Refresh with lifetime 0.
fn expiry_counts(method: RequestMethod, message: &Message<'_>) -> bool {
    match method {
        RequestMethod::Allocate => true,
        RequestMethod::Refresh => message.raw(AttributeType::LIFETIME) != Some(&[0; 4]),
        RequestMethod::Binding
        | RequestMethod::CreatePermission
        | RequestMethod::ChannelBind
        | RequestMethod::Connect
        | RequestMethod::ConnectionBind => false,
    }
}
