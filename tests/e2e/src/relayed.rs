//! A TURN client of a few lines and a peer, on whatever machine a test puts them: one datagram at a time, each looked at.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use stun_wire::attribute::{
    ChannelNumberAttribute, Data, DontFragment, ErrorCode, Icmp, Lifetime, Nonce, Realm,
    RequestedTransport, Username, XorPeerAddress, XorRelayedAddress,
};
use stun_wire::channel_data::{ChannelData, ChannelNumber};
use stun_wire::{
    Class, IntegrityKey, IntegrityKind, Message, MessageWriter, Method, TransactionId,
};

use crate::netns::Machine;
use crate::wait::PATIENCE;

/// The channel every flow uses.
const CHANNEL: u16 = 0x4000;
/// A request that was not answered is sent again after this (RFC 8489 §6.2.1: 500 ms).
const RETRANSMIT: Duration = Duration::from_millis(500);

/// A client over UDP.
#[derive(Debug)]
pub struct Client {
    socket: UdpSocket,
    user: String,
    password: String,
    login: Option<(String, String, IntegrityKey)>,
    transactions: u64,
    challenges: u32,
}

/// What the relay said to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The code of an error answer.
    pub error: Option<u16>,
    /// The relayed address, of an allocation.
    pub relayed: Option<SocketAddr>,
    challenge: Option<(String, String)>,
}

/// What a Data indication tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// A peer sent this.
    Data(Vec<u8>),
    /// The network sent this error back (RFC 8656 §11.5).
    Error(Icmp),
}

impl Client {
    /// A client on a machine, at `source`, of the relay at `relay`.
    ///
    /// # Errors
    /// When its socket cannot be made.
    pub fn new(
        machine: &Machine,
        source: IpAddr,
        relay: SocketAddr,
        user: &str,
        password: &str,
    ) -> Result<Self> {
        let socket = machine.enter(|| -> io::Result<UdpSocket> {
            let socket = UdpSocket::bind(SocketAddr::new(source, 0))?;
            socket.connect(relay)?;
            Ok(socket)
        })??;
        Ok(Self {
            socket,
            user: user.to_owned(),
            password: password.to_owned(),
            login: None,
            transactions: 0,
            challenges: 0,
        })
    }

    /// How many requests were answered by asking for credentials or another nonce (401, 438).
    #[must_use]
    pub fn challenges(&self) -> u32 {
        self.challenges
    }

    /// Asks for an allocation.
    ///
    /// # Errors
    /// When nothing is answered.
    pub fn try_allocate(&mut self) -> Result<Answer> {
        self.request(Method::ALLOCATE, &|writer| {
            writer.attribute(&RequestedTransport(17));
        })
    }

    /// An allocation and its relayed address.
    ///
    /// # Errors
    /// When it is refused.
    pub fn allocate(&mut self) -> Result<SocketAddr> {
        let answer = self.try_allocate()?;
        ensure!(answer.error.is_none(), "refused: {answer:?}");
        answer.relayed.context("an allocation without an address")
    }

    /// Prolongs the allocation, or ends it with 0.
    ///
    /// # Errors
    /// When nothing is answered.
    pub fn refresh(&mut self, lifetime: u32) -> Result<Answer> {
        self.request(Method::REFRESH, &|writer| {
            writer.attribute(&Lifetime(lifetime));
        })
    }

    /// Binds the channel of this client to a peer.
    ///
    /// # Errors
    /// When it is refused.
    pub fn bind_channel(&mut self, peer: SocketAddr) -> Result<()> {
        let answer = self.request(Method::CHANNEL_BIND, &|writer| {
            writer.attribute(&ChannelNumberAttribute(CHANNEL));
            writer.attribute(&XorPeerAddress(peer));
        })?;
        ensure!(answer.error.is_none(), "refused: {answer:?}");
        Ok(())
    }

    /// Permits a peer's address.
    ///
    /// # Errors
    /// When it is refused.
    pub fn permit(&mut self, peer: IpAddr) -> Result<()> {
        let answer = self.request(Method::CREATE_PERMISSION, &|writer| {
            writer.attribute(&XorPeerAddress(SocketAddr::new(peer, 0)));
        })?;
        ensure!(answer.error.is_none(), "refused: {answer:?}");
        Ok(())
    }

    /// Sends to a peer in an indication with DONT-FRAGMENT.
    ///
    /// # Errors
    /// When the system does not take it.
    pub fn send_whole(&mut self, peer: SocketAddr, payload: &[u8]) -> Result<()> {
        let transaction = self.next_transaction();
        let mut indication = Vec::new();
        let mut writer = MessageWriter::new(
            &mut indication,
            Class::Indication,
            Method::SEND,
            transaction,
        );
        writer
            .attribute(&XorPeerAddress(peer))
            .attribute(&DontFragment)
            .attribute(&Data(payload));
        writer.finish();
        self.socket.send(&indication)?;
        Ok(())
    }

    /// The next Data indication: its peer, and what it tells.
    ///
    /// # Errors
    /// When none arrives within [`PATIENCE`], or a broken one.
    pub fn receive_indication(&self) -> Result<(SocketAddr, Told)> {
        let wrong = |error| anyhow::anyhow!("an indication with a broken attribute: {error:?}");
        loop {
            let bytes = receive(&self.socket, PATIENCE)?.context("no indication arrived")?;
            let Some(message) = Message::parse(&bytes)
                .ok()
                .filter(|message| message.class() == Class::Indication)
            else {
                continue;
            };
            let peer = message.attribute::<XorPeerAddress>().map_err(wrong)?;
            let peer = peer.context("an indication of no peer")?.0;
            let icmp = message.attribute::<Icmp>().map_err(wrong)?;
            let data = message.attribute::<Data<'_>>().map_err(wrong)?;
            let told = match (icmp, data) {
                (Some(icmp), None) => Told::Error(icmp),
                (None, Some(data)) => Told::Data(data.0.to_vec()),
                _ => bail!("neither data nor an error, or both"),
            };
            return Ok((peer, told));
        }
    }

    /// Sends on the channel.
    ///
    /// # Errors
    /// When the system does not take it.
    pub fn send(&self, payload: &[u8]) -> Result<()> {
        let number = ChannelNumber::new(CHANNEL).context("a channel number")?;
        let header = ChannelData::header(number, payload.len()).context("a payload that fits")?;
        self.socket.send(&[&header, payload].concat())?;
        Ok(())
    }

    /// The next payload on the channel, if it arrives within `patience`.
    ///
    /// # Errors
    /// When the socket is at fault.
    pub fn receive(&self, patience: Duration) -> Result<Option<Vec<u8>>> {
        loop {
            let Some(bytes) = receive(&self.socket, patience)? else {
                return Ok(None);
            };
            // A late answer to a request that was sent twice is no payload.
            if let Ok(data) = ChannelData::parse(&bytes) {
                return Ok(bytes.get(data.payload).map(<[u8]>::to_vec));
            }
        }
    }

    fn request(
        &mut self,
        method: Method,
        attributes: &dyn Fn(&mut MessageWriter<'_>),
    ) -> Result<Answer> {
        let answer = self.ask(method, attributes)?;
        let Some((realm, nonce)) = answer.challenge.clone() else {
            return Ok(answer);
        };
        self.challenges += 1;
        let is_wrong_login = self.login.is_some() && answer.error == Some(401);
        let key = IntegrityKey::long_term_md5(&self.user, &realm, &self.password);
        self.login = Some((realm, nonce, key));
        if is_wrong_login {
            return Ok(answer);
        }
        self.ask(method, attributes)
    }

    fn next_transaction(&mut self) -> TransactionId {
        self.transactions += 1;
        let mut transaction = [0xe2; 12];
        transaction[..8].copy_from_slice(&self.transactions.to_be_bytes());
        TransactionId(transaction)
    }

    fn ask(
        &mut self,
        method: Method,
        attributes: &dyn Fn(&mut MessageWriter<'_>),
    ) -> Result<Answer> {
        let transaction = self.next_transaction();
        let mut request = Vec::new();
        let mut writer = MessageWriter::new(&mut request, Class::Request, method, transaction);
        attributes(&mut writer);
        if let Some((realm, nonce, key)) = &self.login {
            writer.attribute(&Username(&self.user));
            writer.attribute(&Realm(realm)).attribute(&Nonce(nonce));
            writer.integrity(key, IntegrityKind::Sha1);
        }
        writer.fingerprint();
        writer.finish();
        for _ in 0..PATIENCE.as_millis() / RETRANSMIT.as_millis() {
            self.socket.send(&request)?;
            while let Some(bytes) = receive(&self.socket, RETRANSMIT)? {
                let message = Message::parse(&bytes).ok();
                if let Some(message) = message.filter(|m| m.transaction_id() == transaction) {
                    return read_answer(&message);
                }
            }
        }
        bail!(
            "{method:?} was not answered by {:?}",
            self.socket.peer_addr()
        )
    }
}

fn read_answer(message: &Message<'_>) -> Result<Answer> {
    let wrong = |error| anyhow::anyhow!("an answer with a broken attribute: {error:?}");
    let error = message.attribute::<ErrorCode<'_>>().map_err(wrong)?;
    let realm = message.attribute::<Realm<'_>>().map_err(wrong)?;
    let nonce = message.attribute::<Nonce<'_>>().map_err(wrong)?;
    let relayed = message.attribute::<XorRelayedAddress>().map_err(wrong)?;
    let error = error.map(|error| error.code);
    let challenge = realm
        .zip(nonce)
        .filter(|_| matches!(error, Some(401 | 438)));
    Ok(Answer {
        error,
        relayed: relayed.map(|relayed| relayed.0),
        challenge: challenge.map(|(realm, nonce)| (realm.0.to_owned(), nonce.0.to_owned())),
    })
}

/// A peer: a plain UDP socket.
#[derive(Debug)]
pub struct Peer(UdpSocket);

impl Peer {
    /// A peer on a machine, at `ip`.
    ///
    /// # Errors
    /// When its socket cannot be made.
    pub fn new(machine: &Machine, ip: IpAddr) -> Result<Self> {
        let socket = machine.enter(|| UdpSocket::bind(SocketAddr::new(ip, 0)))??;
        Ok(Self(socket))
    }

    /// Where it is.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> Result<SocketAddr> {
        Ok(self.0.local_addr()?)
    }

    /// Sends a datagram.
    ///
    /// # Errors
    /// When the system does not take it.
    pub fn send(&self, to: SocketAddr, payload: &[u8]) -> Result<()> {
        self.0.send_to(payload, to)?;
        Ok(())
    }

    /// The next datagram and its source, if one arrives within `patience`.
    ///
    /// # Errors
    /// When the socket is at fault.
    pub fn receive(&self, patience: Duration) -> Result<Option<(SocketAddr, Vec<u8>)>> {
        let mut buffer = vec![0; 65_536];
        self.0.set_read_timeout(Some(patience))?;
        match self.0.recv_from(&mut buffer) {
            Ok((len, from)) => {
                buffer.truncate(len);
                Ok(Some((from, buffer)))
            }
            Err(error) if is_timeout(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// A client and a peer with a channel between them.
#[derive(Debug)]
pub struct Flow {
    /// The client.
    pub client: Client,
    /// Its peer.
    pub peer: Peer,
    /// The address that the peer sees.
    pub relayed: SocketAddr,
    rounds: u64,
}

impl Flow {
    /// Allocates and binds a channel.
    ///
    /// # Errors
    /// When the relay refuses.
    pub fn between(mut client: Client, peer: Peer) -> Result<Self> {
        let relayed = client.allocate()?;
        client.bind_channel(peer.address()?)?;
        Ok(Self {
            client,
            peer,
            relayed,
            rounds: 0,
        })
    }

    /// One datagram to the peer and one back. Whether it came back within `patience`; late ones of before do not count.
    ///
    /// # Errors
    /// When a socket is at fault.
    pub fn try_carry(&mut self, patience: Duration) -> Result<bool> {
        self.rounds += 1;
        let payload = self.rounds.to_be_bytes();
        self.client.send(&payload)?;
        while let Some((_, there)) = self.peer.receive(patience)? {
            if there != payload {
                continue;
            }
            self.peer.send(self.relayed, &payload)?;
            while let Some(back) = self.client.receive(patience)? {
                if back == payload {
                    return Ok(true);
                }
            }
            return Ok(false);
        }
        Ok(false)
    }

    /// One datagram to the peer and one back; each has to arrive.
    ///
    /// # Errors
    /// When one does not, or is another.
    pub fn carry(&mut self) -> Result<()> {
        self.rounds += 1;
        let lost = |side: &str| format!("lost on the way to the {side} in round {}", self.rounds);
        let payload = self.rounds.to_be_bytes();
        self.client.send(&payload)?;
        let (from, there) = self.peer.receive(PATIENCE)?.with_context(|| lost("peer"))?;
        ensure!(there == payload, "another payload: {there:?}");
        ensure!(from == self.relayed, "from {from}, not {}", self.relayed);
        self.peer.send(self.relayed, &payload)?;
        let back = self
            .client
            .receive(PATIENCE)?
            .with_context(|| lost("client"))?;
        ensure!(back == payload, "another payload: {back:?}");
        Ok(())
    }
}

fn receive(socket: &UdpSocket, patience: Duration) -> Result<Option<Vec<u8>>> {
    let mut buffer = vec![0; 65_536];
    socket.set_read_timeout(Some(patience))?;
    match socket.recv(&mut buffer) {
        Ok(len) => {
            buffer.truncate(len);
            Ok(Some(buffer))
        }
        // ICMP errors of a relay that is gone are silence too.
        Err(error) if is_timeout(&error) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}
