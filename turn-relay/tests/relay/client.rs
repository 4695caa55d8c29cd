//! A TURN client of a few lines: blocking, over UDP, TCP or TLS.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};

use stun_wire::attribute::{
    AdditionalAddressFamily, AddressFamily, AlternateServer, ChannelNumberAttribute, ConnectionId,
    Data, DontFragment, ErrorCode, EvenPort, Icmp, Lifetime, Nonce, Realm, RequestedAddressFamily,
    RequestedTransport, ReservationToken, Username, XorMappedAddress, XorPeerAddress,
    XorRelayedAddress,
};
use stun_wire::channel_data::{ChannelData, ChannelNumber};
use stun_wire::stream::frame_length;
use stun_wire::{
    Class, IntegrityKey, IntegrityKind, Message, MessageWriter, Method, TransactionId,
};

use crate::harness::{PASSWORD, PATIENCE, USER};

pub(crate) trait Pipe: Read + Write + Send {}
impl<T: Read + Write + Send> Pipe for T {}

enum Link {
    Datagrams(UdpSocket),
    Stream { pipe: Box<dyn Pipe>, inbox: Vec<u8> },
}

pub(crate) struct Client {
    link: Link,
    user: String,
    password: String,
    login: Option<(String, String, IntegrityKey)>,
    transactions: u64,
    /// Data that came while an answer was waited for.
    waiting: VecDeque<Vec<u8>>,
    /// Sent in one piece with the next request.
    behind: Vec<u8>,
}

/// What a peer sent, as the client got it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FromPeer {
    Channel(u16, Vec<u8>),
    Indication(SocketAddr, Vec<u8>),
    Error(SocketAddr, Icmp),
}

/// An answer: its class, error code and bytes.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) error: Option<u16>,
    bytes: Vec<u8>,
}

impl Answer {
    fn message(&self) -> Message<'_> {
        Message::parse(&self.bytes).unwrap()
    }

    pub(crate) fn reservation(&self) -> ReservationToken {
        let token = self.message().attribute().unwrap();
        token.expect("a reservation")
    }

    pub(crate) fn relayed(&self) -> SocketAddr {
        assert_eq!(self.error, None, "no allocation");
        let relayed = self.message().attribute::<XorRelayedAddress>();
        relayed.unwrap().expect("an allocation").0
    }

    /// What ConnectionBind has to name.
    pub(crate) fn connection(&self) -> u32 {
        let id = self.message().attribute::<ConnectionId>().unwrap();
        id.expect("a CONNECTION-ID").0
    }

    pub(crate) fn alternate(&self) -> Option<SocketAddr> {
        let server = self.message().attribute::<AlternateServer>().unwrap();
        server.map(|server| server.0)
    }

    pub(crate) fn mapped(&self) -> SocketAddr {
        self.message()
            .attribute::<XorMappedAddress>()
            .unwrap()
            .expect("a mapped address")
            .0
    }
}

impl Client {
    pub(crate) fn udp(relay: SocketAddr) -> Self {
        Self::udp_from(relay.ip(), relay)
    }

    /// From an address of its own: a source meets one shard.
    pub(crate) fn udp_from(source: IpAddr, relay: SocketAddr) -> Self {
        let socket = UdpSocket::bind(SocketAddr::new(source, 0)).unwrap();
        socket.connect(relay).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self::on(Link::Datagrams(socket))
    }

    pub(crate) fn tcp(relay: SocketAddr) -> Self {
        Self::stream(connect(relay))
    }

    pub(crate) fn stream(pipe: impl Pipe + 'static) -> Self {
        Self::on(Link::Stream {
            pipe: Box::new(pipe),
            inbox: Vec::new(),
        })
    }

    fn on(link: Link) -> Self {
        Self {
            link,
            user: USER.into(),
            password: PASSWORD.into(),
            login: None,
            transactions: 0,
            waiting: VecDeque::new(),
            behind: Vec::new(),
        }
    }

    pub(crate) fn login(mut self, user: &str, password: &str) -> Self {
        (self.user, self.password) = (user.into(), password.into());
        self
    }

    pub(crate) fn local(&self) -> SocketAddr {
        let Link::Datagrams(socket) = &self.link else {
            panic!("only of UDP clients")
        };
        socket.local_addr().unwrap()
    }

    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        match &mut self.link {
            Link::Datagrams(socket) => assert_eq!(socket.send(bytes).unwrap(), bytes.len()),
            Link::Stream { pipe, .. } => {
                pipe.write_all(bytes).unwrap();
                pipe.flush().unwrap();
            }
        }
    }

    /// The next datagram or frame.
    fn receive_raw(&mut self) -> io::Result<Vec<u8>> {
        match &mut self.link {
            Link::Datagrams(socket) => {
                let mut buffer = vec![0; 65_536];
                let len = socket.recv(&mut buffer)?;
                buffer.truncate(len);
                Ok(buffer)
            }
            Link::Stream { pipe, inbox } => loop {
                if let Some(length) = frame_length(inbox).unwrap()
                    && inbox.len() >= length
                {
                    let rest = inbox.split_off(length);
                    return Ok(std::mem::replace(inbox, rest));
                }
                let mut buffer = [0; 4096];
                let len = pipe.read(&mut buffer)?;
                if len == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                inbox.extend_from_slice(&buffer[..len]);
            },
        }
    }

    /// Waits until the relay closes the connection.
    pub(crate) fn expect_closed(&mut self) {
        loop {
            match self.receive_raw() {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    panic!("the relay keeps the connection open")
                }
                Err(_) => return,
            }
        }
    }

    pub(crate) fn binding(&mut self) -> Answer {
        self.ask(Method::BINDING, &|_| {}, false)
    }

    /// A request, with a challenge answered on the way.
    pub(crate) fn request(
        &mut self,
        method: Method,
        attributes: &dyn Fn(&mut MessageWriter<'_>),
    ) -> Answer {
        let answer = self.ask(method, attributes, true);
        if !matches!(answer.error, Some(401 | 438)) {
            return answer;
        }
        let message = answer.message();
        let Some(nonce) = message.attribute::<Nonce<'_>>().unwrap() else {
            return answer;
        };
        let realm = message
            .attribute::<Realm<'_>>()
            .unwrap()
            .expect("a challenge has a realm")
            .0;
        let key = IntegrityKey::long_term_md5(&self.user, realm, &self.password);
        let was_logged_in = self.login.is_some() && answer.error == Some(401);
        self.login = Some((realm.to_owned(), nonce.0.to_owned(), key));
        if was_logged_in {
            answer
        } else {
            self.ask(method, attributes, true)
        }
    }

    fn ask(
        &mut self,
        method: Method,
        attributes: &dyn Fn(&mut MessageWriter<'_>),
        signed: bool,
    ) -> Answer {
        let tx = self.next_transaction();
        let mut out = Vec::new();
        let mut writer = MessageWriter::new(&mut out, Class::Request, method, tx);
        attributes(&mut writer);
        if let Some((realm, nonce, key)) = self.login.as_ref().filter(|_| signed) {
            writer.attribute(&Username(&self.user));
            writer.attribute(&Realm(realm)).attribute(&Nonce(nonce));
            writer.integrity(key, IntegrityKind::Sha1);
        }
        writer.fingerprint();
        writer.finish();
        out.append(&mut self.behind);
        self.send_raw(&out);
        loop {
            let bytes = self.receive_raw().expect("an answer");
            let Ok(message) = Message::parse(&bytes) else {
                self.waiting.push_back(bytes);
                continue;
            };
            if message.transaction_id() != tx {
                self.waiting.push_back(bytes);
                continue;
            }
            let error = message
                .attribute::<ErrorCode<'_>>()
                .unwrap()
                .map(|error| error.code);
            return Answer { error, bytes };
        }
    }

    fn next_transaction(&mut self) -> TransactionId {
        self.transactions += 1;
        let mut tx = [0xC1; 12];
        tx[..8].copy_from_slice(&self.transactions.to_be_bytes());
        TransactionId(tx)
    }

    pub(crate) fn try_allocate(&mut self) -> Answer {
        self.request(Method::ALLOCATE, &|writer| {
            writer.attribute(&RequestedTransport(17));
        })
    }

    pub(crate) fn allocate(&mut self) -> SocketAddr {
        let answer = self.try_allocate();
        assert_eq!(answer.error, None);
        answer.relayed()
    }

    pub(crate) fn allocate_v6(&mut self) -> Answer {
        self.request(Method::ALLOCATE, &|writer| {
            writer.attribute(&RequestedTransport(17));
            writer.attribute(&RequestedAddressFamily(AddressFamily::Ipv6));
        })
    }

    /// An address of this family.
    pub(crate) fn allocate_at(&mut self, ip: IpAddr) -> SocketAddr {
        if ip.is_ipv4() {
            self.allocate()
        } else {
            self.allocate_v6().relayed()
        }
    }

    /// An IPv4 address, and an IPv6 one beside it (RFC 8656 §7.1).
    pub(crate) fn allocate_both(&mut self) -> SocketAddr {
        let answer = self.request(Method::ALLOCATE, &|writer| {
            writer.attribute(&RequestedTransport(17));
            writer.attribute(&AdditionalAddressFamily(AddressFamily::Ipv6));
        });
        assert_eq!(answer.error, None);
        answer.relayed()
    }

    /// Ends the IPv4 address of two (RFC 8656 §8.1).
    pub(crate) fn end_v4(&mut self) -> Answer {
        self.request(Method::REFRESH, &|writer| {
            writer.attribute(&Lifetime(0));
            writer.attribute(&RequestedAddressFamily(AddressFamily::Ipv4));
        })
    }

    pub(crate) fn allocate_even(&mut self) -> Answer {
        self.request(Method::ALLOCATE, &|writer| {
            writer.attribute(&RequestedTransport(17));
            writer.attribute(&EvenPort { reserve: true });
        })
    }

    pub(crate) fn try_allocate_tcp(&mut self) -> Answer {
        self.request(Method::ALLOCATE, &|writer| {
            writer.attribute(&RequestedTransport::TCP);
        })
    }

    pub(crate) fn allocate_tcp(&mut self) -> SocketAddr {
        let answer = self.try_allocate_tcp();
        assert_eq!(answer.error, None);
        answer.relayed()
    }

    pub(crate) fn connect_peer(&mut self, peer: SocketAddr) -> Answer {
        self.request(Method::CONNECT, &|writer| {
            writer.attribute(&XorPeerAddress(peer));
        })
    }

    pub(crate) fn try_bind_connection(&mut self, connection: u32) -> Answer {
        self.request(Method::CONNECTION_BIND, &|writer| {
            writer.attribute(&ConnectionId(connection));
        })
    }

    /// Gets a nonce, as a refused request does.
    pub(crate) fn greet(&mut self) {
        assert_eq!(self.refresh(0).error, Some(437));
    }

    /// Sends these bytes right behind the next request.
    pub(crate) fn send_behind_next(&mut self, bytes: &[u8]) {
        self.behind = bytes.to_vec();
    }

    /// A Connect whose answer is not waited for.
    pub(crate) fn ask_to_connect(&mut self, peer: SocketAddr) {
        let (realm, nonce, key) = self.login.clone().expect("logged in");
        let mut out = Vec::new();
        let tx = self.next_transaction();
        let mut writer = MessageWriter::new(&mut out, Class::Request, Method::CONNECT, tx);
        writer.attribute(&XorPeerAddress(peer));
        writer.attribute(&Username(&self.user));
        writer.attribute(&Realm(&realm)).attribute(&Nonce(&nonce));
        writer.integrity(&key, IntegrityKind::Sha1);
        writer.finish();
        self.send_raw(&out);
    }

    pub(crate) fn allocate_tcp_v6(&mut self) -> SocketAddr {
        let answer = self.request(Method::ALLOCATE, &|writer| {
            writer.attribute(&RequestedTransport::TCP);
            writer.attribute(&RequestedAddressFamily(AddressFamily::Ipv6));
        });
        assert_eq!(answer.error, None);
        answer.relayed()
    }

    /// From here on the connection is the peer's; what has come behind the answer comes with it.
    pub(crate) fn bind_connection(mut self, connection: u32) -> (Box<dyn Pipe>, Vec<u8>) {
        assert_eq!(self.try_bind_connection(connection).error, None);
        let Link::Stream { pipe, inbox } = self.link else {
            panic!("only of streams")
        };
        (pipe, inbox)
    }

    /// The next ConnectionAttempt: who has connected, and the connection's id.
    pub(crate) fn connection_attempt(&mut self) -> (SocketAddr, u32) {
        let bytes = match self.waiting.pop_front() {
            Some(bytes) => bytes,
            None => self.receive_raw().expect("a ConnectionAttempt"),
        };
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(
            (message.class(), message.method()),
            (Class::Indication, Method::CONNECTION_ATTEMPT)
        );
        let peer = message.attribute::<XorPeerAddress>().unwrap().unwrap().0;
        let id = message.attribute::<ConnectionId>().unwrap().unwrap().0;
        (peer, id)
    }

    pub(crate) fn refresh(&mut self, lifetime: u32) -> Answer {
        self.request(Method::REFRESH, &|writer| {
            writer.attribute(&Lifetime(lifetime));
        })
    }

    pub(crate) fn try_permit(&mut self, peer: SocketAddr) -> Answer {
        self.request(Method::CREATE_PERMISSION, &|writer| {
            writer.attribute(&XorPeerAddress(peer));
        })
    }

    pub(crate) fn permit(&mut self, peer: SocketAddr) {
        assert_eq!(self.try_permit(peer).error, None);
    }

    pub(crate) fn bind_channel(&mut self, peer: SocketAddr, number: u16) {
        let answer = self.request(Method::CHANNEL_BIND, &|writer| {
            writer.attribute(&ChannelNumberAttribute(number));
            writer.attribute(&XorPeerAddress(peer));
        });
        assert_eq!(answer.error, None);
    }

    pub(crate) fn send_channel(&mut self, number: u16, payload: &[u8]) {
        let number = ChannelNumber::new_rfc5766(number).unwrap();
        let mut frame = ChannelData::header(number, payload.len()).unwrap().to_vec();
        frame.extend_from_slice(payload);
        if matches!(self.link, Link::Stream { .. }) {
            frame.extend_from_slice(ChannelData::stream_padding(payload.len()));
        }
        self.send_raw(&frame);
    }

    pub(crate) fn send_indication(&mut self, peer: SocketAddr, payload: &[u8]) {
        self.indicate(peer, payload, false);
    }

    /// With DONT-FRAGMENT (RFC 8656 §11.2).
    pub(crate) fn send_whole(&mut self, peer: SocketAddr, payload: &[u8]) {
        self.indicate(peer, payload, true);
    }

    fn indicate(&mut self, peer: SocketAddr, payload: &[u8], dont_fragment: bool) {
        let tx = self.next_transaction();
        let mut out = Vec::new();
        let mut writer = MessageWriter::new(&mut out, Class::Indication, Method::SEND, tx);
        writer.attribute(&XorPeerAddress(peer));
        if dont_fragment {
            writer.attribute(&DontFragment);
        }
        writer.attribute(&Data(payload));
        writer.finish();
        self.send_raw(&out);
    }

    /// The next payload from a peer.
    pub(crate) fn receive(&mut self) -> FromPeer {
        let bytes = match self.waiting.pop_front() {
            Some(bytes) => bytes,
            None => self.receive_raw().expect("data from a peer"),
        };
        if let Ok(message) = Message::parse(&bytes) {
            assert_eq!(
                (message.class(), message.method()),
                (Class::Indication, Method::DATA)
            );
            let peer = message.attribute::<XorPeerAddress>().unwrap().unwrap().0;
            if let Some(icmp) = message.attribute::<Icmp>().unwrap() {
                assert_eq!(message.attribute::<Data<'_>>(), Ok(None));
                return FromPeer::Error(peer, icmp);
            }
            let data = message.attribute::<Data<'_>>().unwrap().unwrap().0;
            return FromPeer::Indication(peer, data.to_vec());
        }
        let data = ChannelData::parse(&bytes).unwrap();
        if matches!(self.link, Link::Stream { .. }) {
            // RFC 8656 §12.5: on a stream every frame is a multiple of four bytes long.
            assert_eq!(bytes.len() % 4, 0);
        }
        FromPeer::Channel(data.channel.as_u16(), bytes[data.payload].to_vec())
    }
}

/// What the system tells of a port that nobody has.
pub(crate) fn port_unreachable(ip: IpAddr) -> Icmp {
    let (icmp_type, code) = if ip.is_ipv4() { (3, 3) } else { (1, 4) };
    Icmp {
        icmp_type,
        code,
        data: 0,
    }
}

pub(crate) fn connect(relay: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(relay).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket.set_nodelay(true).unwrap();
    socket
}

/// Where peers of IPv4 are: none gets the port of a listener, which it would be refused for.
const PEERS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 5));

/// A peer: a UDP socket of its own on loopback.
pub(crate) struct Peer(UdpSocket);

impl Peer {
    /// One of the family of `ip`.
    pub(crate) fn new(ip: IpAddr) -> Self {
        let ip = if ip.is_ipv4() { PEERS } else { ip };
        let socket = UdpSocket::bind(SocketAddr::new(ip, 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    pub(crate) fn send(&self, to: SocketAddr, payload: &[u8]) {
        assert_eq!(self.0.send_to(payload, to).unwrap(), payload.len());
    }

    pub(crate) fn receive(&self) -> (SocketAddr, Vec<u8>) {
        let mut buffer = vec![0; 65_536];
        let (len, from) = self.0.recv_from(&mut buffer).expect("a datagram");
        buffer.truncate(len);
        (from, buffer)
    }
}
