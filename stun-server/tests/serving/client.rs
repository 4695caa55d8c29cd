//! A server on loopback and a client that says what it wants.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use ops::config::Scheme;
use ops::metrics::Registry;
use stun_server::{Config, Server};
use stun_wire::attribute::XorMappedAddress;
use stun_wire::{Class, Message, MessageWriter, Method, TransactionId};

/// How long something may take that should happen at once.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How long silence is listened to.
pub const SILENCE: Duration = Duration::from_millis(300);

pub const TX: TransactionId = TransactionId(*b"transaction!");

pub struct Fixture {
    pub server: Server,
    pub registry: Registry,
}

impl Fixture {
    /// A server with this configuration; it listens where the text says.
    pub fn start(text: &str) -> Self {
        let registry = Registry::new();
        let config = Config::from_toml(text).unwrap();
        let server = Server::bind(config, &registry).unwrap();
        Self { server, registry }
    }

    pub fn address(&self, scheme: Scheme) -> SocketAddr {
        let addrs = self.server.local_addrs();
        addrs
            .iter()
            .find(|(candidate, _)| *candidate == scheme)
            .unwrap()
            .1
    }

    pub fn udp(&self) -> SocketAddr {
        self.address(Scheme::Udp)
    }

    pub fn tcp(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address(Scheme::Tcp)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// The sum of all samples whose line begins with `name`.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.registry.render();
        let samples = text.lines().filter(|line| line.starts_with(name));
        samples
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum()
    }

    /// Waits until a metric has at least this value.
    pub fn wait_for(&self, name: &str, least: f64) {
        let attempts = PATIENCE.as_millis() / 10;
        for _ in 0..attempts {
            if self.metric(name) >= least {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{name} stayed at {}, expected {least}", self.metric(name));
    }

    /// Does something again and again until a metric is above 0.
    pub fn until(&self, name: &str, action: impl FnMut()) {
        self.until_above(name, 0.0, action);
    }

    /// Does something again and again until a metric is above a value.
    pub fn until_above(&self, name: &str, value: f64, mut action: impl FnMut()) {
        for _ in 0..300 {
            action();
            // What was done shows a moment later.
            for _ in 0..10 {
                if self.metric(name) > value {
                    return;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        panic!("{name} stayed at {value}");
    }
}

/// A connection from another address of loopback than 127.0.0.1.
pub fn connect_from(source: [u8; 4], server: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket.connect(&server.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A socket on loopback of the same family as `server`.
pub fn socket_for(server: SocketAddr) -> UdpSocket {
    let address = if server.is_ipv4() {
        "127.0.0.1:0"
    } else {
        "[::1]:0"
    };
    let socket = UdpSocket::bind(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

pub fn request() -> Vec<u8> {
    request_with(|_| {})
}

pub fn request_with(build: impl FnOnce(&mut MessageWriter<'_>)) -> Vec<u8> {
    message(Class::Request, Method::BINDING, build)
}

pub fn message(
    class: Class,
    method: Method,
    build: impl FnOnce(&mut MessageWriter<'_>),
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = MessageWriter::new(&mut bytes, class, method, TX);
    build(&mut writer);
    writer.finish();
    bytes
}

/// Asks over UDP; the datagram that came back and who sent it.
pub fn exchange(socket: &UdpSocket, server: SocketAddr, bytes: &[u8]) -> (Vec<u8>, SocketAddr) {
    socket.send_to(bytes, server).unwrap();
    let mut buffer = [0; 2048];
    let (length, from) = socket.recv_from(&mut buffer).unwrap();
    (buffer[..length].to_vec(), from)
}

/// Nothing comes back for a while.
pub fn assert_silence(socket: &UdpSocket) {
    socket.set_read_timeout(Some(SILENCE)).unwrap();
    let mut buffer = [0; 2048];
    let heard = socket.recv_from(&mut buffer);
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(heard.is_err(), "heard {heard:?}");
}

/// One whole message from a stream.
pub fn read_message(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = vec![0; 20];
    stream.read_exact(&mut bytes).unwrap();
    let length = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
    bytes.resize(20 + length, 0);
    stream.read_exact(&mut bytes[20..]).unwrap();
    bytes
}

/// Asks over TCP.
pub fn exchange_tcp(stream: &mut TcpStream, bytes: &[u8]) -> Vec<u8> {
    stream.write_all(bytes).unwrap();
    read_message(stream)
}

/// The server closes without sending anything more.
pub fn assert_closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    // A reset is an end too: it comes where unread bytes were thrown away.
    match stream.read_to_end(&mut rest) {
        Ok(_) => assert!(rest.is_empty(), "{rest:02x?}"),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
}

/// The address in a success response.
pub fn mapped(reply: &[u8]) -> SocketAddr {
    let message = Message::parse(reply).unwrap();
    assert_eq!(message.class(), Class::Success);
    assert_eq!(message.transaction_id(), TX);
    message.attribute::<XorMappedAddress>().unwrap().unwrap().0
}

/// What a missing program means: said aloud, or a failure where all tests are asked for.
pub fn skip(what: &str) {
    let required = std::env::var_os("RALLYPOINT_TEST_ALL").is_some();
    assert!(!required, "{what} is missing");
    eprintln!("skipped: {what} is missing");
}
