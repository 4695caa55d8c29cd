//! The sockets that clients come to, opened once for each shard.

use std::io;
use std::net::SocketAddr;

use mio::net::TcpListener;
use net_io::opening::{Door, Spoken};
use net_io::{BindOptions, Form, UdpSocket, tcp};
use ops::config::{ListenUrl, Scheme};
use stun_wire::MAGIC_COOKIE;

use super::BindError;
use crate::config::Config;
use crate::sockets::{LISTENER_QUEUE, with_trains};

/// The listening sockets of one shard.
#[derive(Default)]
pub(super) struct Listening {
    pub(super) udp: Vec<UdpSocket>,
    pub(super) tcp: Vec<(TcpListener, Door)>,
}

/// Opens each listener once for every shard. Returns their addresses and each shard's sockets.
pub(super) fn open(
    config: &Config,
    shards: usize,
) -> Result<(Vec<ListenUrl>, Vec<Listening>), BindError> {
    let mut bound = Vec::new();
    let mut listening: Vec<Listening> = Vec::new();
    listening.resize_with(shards, Listening::default);
    for url in &config.listen {
        let refuse = |source| BindError::Listen { url: *url, source };
        let is_proxied = config.proxy.covers(url);
        let address = match spoken_on(url.scheme) {
            Some(spoken) => open_tcp(url.address, Door { spoken, is_proxied }, &mut listening),
            None if url.scheme == Scheme::Udp => open_udp(url.address, &mut listening),
            None => Err(io::ErrorKind::Unsupported.into()),
        };
        let address = address.map_err(refuse)?;
        bound.push(ListenUrl {
            scheme: url.scheme,
            address,
        });
    }
    Ok((bound, listening))
}

/// What is spoken on connections of a scheme; `None`: it has none here.
fn spoken_on(scheme: Scheme) -> Option<Spoken> {
    match scheme {
        Scheme::Tcp => Some(Spoken::Plain),
        Scheme::Tls => Some(Spoken::Tls),
        // RFC 7983 section 7: STUN begins with 0 to 3. Nobody has a channel yet, so nothing else may.
        Scheme::TcpTls => Some(Spoken::Either(|first| first <= 3)),
        Scheme::Udp | Scheme::Http | Scheme::Https => None,
    }
}

fn open_udp(address: SocketAddr, listening: &mut [Listening]) -> io::Result<SocketAddr> {
    let mut options = BindOptions {
        recv_buffer: Some(LISTENER_QUEUE),
        ..with_trains()
    };
    // Shared ports let a second relay join in unnoticed: the first bind must find the port free.
    let first = UdpSocket::bind(address, &options)?;
    let address = first.local_addr();
    if let [only] = listening {
        admit_only_turn(&first);
        only.udp.push(first);
        return Ok(address);
    }
    drop(first);
    options.reuse_port = true;
    for shard in &mut *listening {
        let socket = UdpSocket::bind(address, &options)?;
        admit_only_turn(&socket);
        shard.udp.push(socket);
    }
    if let Some(last) = listening.last().and_then(|shard| shard.udp.last()) {
        steered(address, last.steer_by_source(count(listening)));
    }
    Ok(address)
}

/// Keeps what is neither STUN (RFC 8489 §5: cookie, a length in whole words) nor ChannelData out of the queue that
/// everybody's datagrams share. Channel numbers are let in as RFC 5766 had them: which of them are good is a setting
/// that may change while the relay runs, and the machine's to judge.
fn admit_only_turn(socket: &UdpSocket) {
    let stun = Form {
        first_byte: 0x00..=0x3F,
        min_len: 20,
        word: Some((4, MAGIC_COOKIE)),
        clear: Some((3, 0b11)),
    };
    let channel_data = Form {
        first_byte: 0x40..=0x7F,
        min_len: 4,
        word: None,
        clear: None,
    };
    if let Err(error) = socket.admit_only(&[stun, channel_data]) {
        let address = socket.local_addr();
        tracing::warn!(%address, %error, "garbage is not kept out by the system: floods of it cost more");
    }
}

fn open_tcp(
    address: SocketAddr,
    door: Door,
    listening: &mut [Listening],
) -> io::Result<SocketAddr> {
    let first = tcp::listen(address, false)?;
    let address = first.local_addr()?;
    if let [only] = listening {
        only.tcp.push((first, door));
        return Ok(address);
    }
    drop(first);
    for shard in &mut *listening {
        shard.tcp.push((tcp::listen(address, true)?, door));
    }
    if let Some((last, _)) = listening.last().and_then(|shard| shard.tcp.last()) {
        steered(address, tcp::steer_by_source(last, count(listening)));
    }
    Ok(address)
}

fn count(listening: &[Listening]) -> u32 {
    u32::try_from(listening.len()).expect("at most 32 shards")
}

/// All 5-tuples of a client meet one shard: a reservation token is good on any of them (RFC 8656 §7.2), a data connection
/// finds what its control connection has made (RFC 6062 §5.4), and what its address may have is counted in one place.
/// Without that the relay still serves, but for these.
///
/// Behind a proxy the address is the proxy's: all its clients meet one shard.
fn steered(address: SocketAddr, result: io::Result<()>) {
    if let Err(error) = result {
        tracing::warn!(%address, %error, "clients meet a shard by 5-tuple: reservation tokens and data connections may be refused");
    }
}
