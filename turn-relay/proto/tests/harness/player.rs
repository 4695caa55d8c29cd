//! A client of the relay: its 5-tuple, its credentials, and what it has learned.

use std::net::SocketAddr;

use credentials::mint;
use stun_wire::attribute::{
    Data, Nonce, PasswordAlgorithm, PasswordAlgorithms, Realm, Userhash, Username,
};
use stun_wire::{IntegrityKey, IntegrityKind, Method, TransactionId};
use turn_relay_proto::{Path, Transport};

use super::{Ask, Got, Reply, START_UNIX, World, allocate, path, secret};

#[derive(Clone)]
pub struct Player {
    pub path: Path,
    pub user: String,
    pub password: String,
    pub realm: String,
    pub nonce: Option<String>,
    /// Sends SHA-256 signatures and keys, as RFC 8489 asks; else MD5 and SHA-1.
    pub modern: bool,
    /// Sends USERHASH in place of USERNAME.
    pub hidden: bool,
    pub next_transaction: u64,
}

impl Player {
    /// A static user, by an old client.
    pub fn named(client: &str, user: &str, password: &str) -> Self {
        Self {
            path: path(Transport::Udp, client),
            user: user.into(),
            password: password.into(),
            realm: "rallypoint".into(),
            nonce: None,
            modern: false,
            hidden: false,
            next_transaction: 1,
        }
    }

    pub fn alice(client: &str) -> Self {
        Self::named(client, "alice", "wonderland")
    }

    pub fn bob(client: &str) -> Self {
        Self::named(client, "bob", "builder")
    }

    /// A player with a time-limited credential that is good for so many seconds from the start.
    pub fn minted(client: &str, subject: &str, life: u64) -> Self {
        let credential = mint(&secret(), subject, START_UNIX + life);
        Self::named(client, &credential.username, &credential.password)
    }

    pub fn over(mut self, transport: Transport) -> Self {
        self.path.transport = transport;
        self
    }

    pub fn modern(mut self) -> Self {
        self.modern = true;
        self
    }

    pub fn key(&self) -> IntegrityKey {
        if self.modern {
            IntegrityKey::long_term_sha256(&self.user, &self.realm, &self.password)
        } else {
            IntegrityKey::long_term_md5(&self.user, &self.realm, &self.password)
        }
    }

    pub fn kind(&self) -> IntegrityKind {
        if self.modern {
            IntegrityKind::Sha256
        } else {
            IntegrityKind::Sha1
        }
    }

    pub fn transaction(&mut self) -> TransactionId {
        let mut bytes = [0xAB; 12];
        bytes[..8].copy_from_slice(&self.next_transaction.to_be_bytes());
        self.next_transaction += 1;
        TransactionId(bytes)
    }

    /// The bytes of a request with everything this player knows, signed.
    pub fn sign(&mut self, ask: &Ask) -> Vec<u8> {
        let transaction = self.transaction();
        self.sign_as(ask, transaction)
    }

    pub fn sign_as(&self, ask: &Ask, transaction: TransactionId) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = ask.start(&mut out, transaction);
        if self.hidden {
            writer.attribute(&Userhash::of(&self.user, &self.realm));
        } else {
            writer.attribute(&Username(&self.user));
        }
        writer.attribute(&Realm(&self.realm));
        if let Some(nonce) = &self.nonce {
            writer.attribute(&Nonce(nonce));
        }
        if self.modern {
            writer
                .attribute(&PasswordAlgorithms::SHA256_AND_MD5)
                .attribute(&PasswordAlgorithm::SHA256);
        }
        writer.integrity(&self.key(), self.kind());
        if ask.fingerprint {
            writer.fingerprint();
        }
        writer.finish();
        out
    }

    /// Gets a nonce, as every client does first.
    pub fn greet(&mut self, world: &mut World) -> Reply {
        let transaction = self.transaction();
        let hello = allocate().fingerprint().unsigned(transaction);
        let reply = world.client_sends(self.path, &hello).reply();
        assert_eq!(reply.code, Some(401));
        self.nonce.clone_from(&reply.nonce);
        reply
    }

    /// Asks, signed, and takes a new nonce if the relay wants one. Every reply that is signed is
    /// checked.
    pub fn ask(&mut self, world: &mut World, ask: Ask) -> Reply {
        if self.nonce.is_none() {
            self.greet(world);
        }
        let reply = self.ask_once(world, &ask);
        if reply.code == Some(438) {
            self.nonce.clone_from(&reply.nonce);
            return self.ask_once(world, &ask);
        }
        reply
    }

    pub fn ask_once(&mut self, world: &mut World, ask: &Ask) -> Reply {
        let transaction = self.transaction();
        let request = self.sign_as(ask, transaction);
        let reply = world.client_sends(self.path, &request).reply();
        assert_eq!((reply.transaction, reply.method), (transaction, ask.method));
        if let Some(kind) = reply.signature {
            assert_eq!(kind, self.kind(), "signed as the request was");
            assert!(
                reply.is_signed_by(&self.key()),
                "signed with the request's key: {reply:?}"
            );
        }
        reply
    }

    /// An allocation; its relayed address.
    pub fn allocate(&mut self, world: &mut World) -> SocketAddr {
        self.ask(world, allocate()).relayed()
    }

    /// A Send indication.
    pub fn send(&mut self, world: &mut World, peer: &str, data: &[u8]) -> Got {
        let transaction = self.transaction();
        let ask = Ask::indication(Method::SEND)
            .peer(super::addr(peer))
            .with(&Data(data));
        world.client_sends(self.path, &ask.unsigned(transaction))
    }

    /// Channel data.
    pub fn send_channel(&self, world: &mut World, number: u16, data: &[u8]) -> Got {
        let mut bytes = number.to_be_bytes().to_vec();
        bytes.extend_from_slice(&u16::try_from(data.len()).expect("short").to_be_bytes());
        bytes.extend_from_slice(data);
        world.client_sends(self.path, &bytes)
    }
}
