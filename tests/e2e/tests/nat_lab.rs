//! Each emulated NAT is what its name says: found out with plain sockets and, independently, with coturn's classifier.
//!
//! The words are those of RFC 4787: mapping (§4.1) and filtering (§5), each endpoint-independent, address-dependent or
//! address-and-port-dependent.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::core::Protocol;
use e2e::lab::{HOME_ADDRESS, Home, Lab, Server};
use e2e::nat::Access;
use e2e::netns::{Namespace, run};
use e2e::processes::Process;
use e2e::requirements::{self, Need};
use e2e::wait::PATIENCE;

/// How far something depends on the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dependence {
    Independent,
    Address,
    AddressAndPort,
}

use Dependence::{Address, AddressAndPort, Independent};

#[test]
fn full_cone_maps_and_filters_independently_of_the_endpoint() -> Result<()> {
    expect(Access::FullCone, Independent, Independent)
}

#[test]
fn address_restricted_cone_filters_by_address() -> Result<()> {
    expect(Access::AddressRestricted, Independent, Address)
}

#[test]
fn port_restricted_cone_filters_by_address_and_port() -> Result<()> {
    expect(Access::PortRestricted, Independent, AddressAndPort)
}

#[test]
fn masquerade_is_a_port_restricted_cone() -> Result<()> {
    expect(Access::Masquerade, Independent, AddressAndPort)
}

#[test]
fn symmetric_nat_maps_and_filters_by_address_and_port() -> Result<()> {
    expect(Access::Symmetric, AddressAndPort, AddressAndPort)
}

#[test]
fn dual_stack_home_is_symmetric_over_ipv4_and_firewalled_over_ipv6() -> Result<()> {
    let Some(world) = World::new(Access::DualStack)? else {
        return Ok(());
    };
    ensure!(world.mapping(Family::V4)? == AddressAndPort);
    ensure!(world.filtering(Family::V4)? == AddressAndPort);
    ensure!(world.mapping(Family::V6)? == Independent);
    ensure!(world.filtering(Family::V6)? == AddressAndPort);
    ensure!(
        world.seen_from(Family::V6)? == world.home.address6()?,
        "IPv6 is not translated"
    );
    Ok(())
}

#[test]
fn ipv6_only_home_is_open_and_has_no_ipv4() -> Result<()> {
    let Some(world) = World::new(Access::Ipv6Only)? else {
        return Ok(());
    };
    ensure!(world.mapping(Family::V6)? == Independent);
    ensure!(world.filtering(Family::V6)? == Independent);
    let socket = world.home.host().enter(|| UdpSocket::bind("0.0.0.0:0"))??;
    let unreachable = socket.send_to(b"?", (world.first.address4(), 4001));
    ensure!(unreachable.is_err(), "there is a route for IPv4");
    Ok(())
}

#[test]
fn blocked_udp_vanishes_while_tcp_passes() -> Result<()> {
    let Some(world) = World::new(Access::UdpBlocked)? else {
        return Ok(());
    };
    let address = SocketAddr::new(world.first.address4(), 4001);
    let listener = world.first.host().enter(|| TcpListener::bind(address))??;
    let datagrams = world.first.host().enter(|| UdpSocket::bind(address))??;
    datagrams.set_nonblocking(true)?;

    let sender = world.home.host().enter(|| UdpSocket::bind("0.0.0.0:0"))??;
    for _ in 0..10 {
        sender.send_to(b"lost", address)?;
    }
    // The stream comes after the datagrams on the same line: once it is through, they would have been too.
    let mut out = world
        .home
        .host()
        .enter(|| TcpStream::connect_timeout(&address, PATIENCE))??;
    out.write_all(b"through")?;
    let (mut accepted, from) = listener.accept()?;
    let mut received = [0; 7];
    accepted.read_exact(&mut received)?;

    ensure!(&received == b"through");
    ensure!(from.ip() == world.home.external4()?, "seen as {from}");
    let mut buffer = [0; 16];
    ensure!(
        datagrams.recv_from(&mut buffer).is_err(),
        "a datagram got through"
    );
    let traffic = world.lab.core().traffic()?;
    let outside = world.home.external4()?;
    ensure!(
        traffic
            .sent_over(Protocol::Udp, outside, address.ip())
            .packets
            == 0,
        "\n{traffic}"
    );
    ensure!(
        traffic
            .sent_over(Protocol::Tcp, outside, address.ip())
            .packets
            > 0,
        "\n{traffic}"
    );
    Ok(())
}

#[test]
fn homes_overlap_and_the_core_counts_cuts_and_mends() -> Result<()> {
    let Some(mut world) = World::new(Access::FullCone)? else {
        return Ok(());
    };
    let other = world.lab.home(Access::FullCone)?;
    let (here, there) = (world.home.external4()?, other.external4()?);

    // Both private addresses are the same; both are reached through their routers all the same.
    let inside = SocketAddr::new(IpAddr::V4(HOME_ADDRESS), 5000);
    let mine = world.home.host().enter(|| UdpSocket::bind(inside))??;
    let theirs = other.host().enter(|| UdpSocket::bind(inside))??;
    mine.set_read_timeout(Some(PATIENCE))?;
    theirs.set_read_timeout(Some(PATIENCE))?;
    let server = world.socket(&world.first, 4001)?;
    let mine_outside = seen_by(&server, &mine)?;
    let theirs_outside = seen_by(&server, &theirs)?;

    let before = world.lab.core().traffic()?;
    for _ in 0..5 {
        mine.send_to(&[7; 100], theirs_outside)?;
        receive(&theirs)?;
    }
    let counted = world.lab.core().traffic()?.since(&before).sent(here, there);
    ensure!(
        counted.packets == 5 && counted.bytes == 5 * (100 + 28),
        "counted {counted:?}"
    );

    world.lab.core().cut(here, there)?;
    let before = world.lab.core().traffic()?;
    mine.send_to(b"cut", theirs_outside)?;
    theirs.send_to(b"cut", mine_outside)?;
    world.lab.core().mend()?;
    mine.send_to(b"mended", theirs_outside)?;
    ensure!(receive(&theirs)?.0 == b"mended", "a cut datagram arrived");
    let through = world.lab.core().traffic()?.since(&before);
    ensure!(through.sent(here, there).packets == 1, "\n{through}");
    ensure!(through.sent(there, here).packets == 0, "\n{through}");
    Ok(())
}

#[test]
fn the_recorder_sees_every_byte_that_crosses_the_core() -> Result<()> {
    if !requirements::met(&[Need::Lab, Need::Tool("tcpdump")])? {
        return Ok(());
    }
    let mut lab = Lab::new()?;
    let (server, home) = (lab.server(10)?, lab.home(Access::PortRestricted)?);
    let directory = tempfile::tempdir()?;
    let capture = lab.core().capture(&directory.path().join("core.pcap"))?;

    let local = home.host().enter(|| UdpSocket::bind("0.0.0.0:0"))??;
    local.send_to(b"readable by anyone on the way", (server.address4(), 4001))?;

    let recording = capture.finish(server.host(), (home.external4()?, 9).into())?;
    ensure!(recording.contains(b"readable by anyone"));
    ensure!(!recording.contains(b"never sent at all"));
    Ok(())
}

#[test]
fn coturn_classifies_the_nats_the_same_way() -> Result<()> {
    const KINDS: [(Access, &str, &str); 5] = [
        (
            Access::FullCone,
            "Endpoint Independent Mapping",
            "Endpoint Independent Filtering",
        ),
        (
            Access::AddressRestricted,
            "Endpoint Independent Mapping",
            "Address Dependent Filtering",
        ),
        (
            Access::PortRestricted,
            "Endpoint Independent Mapping",
            "Address and Port Dependent Filtering",
        ),
        (
            Access::Masquerade,
            "Endpoint Independent Mapping",
            "Address and Port Dependent Filtering",
        ),
        (
            Access::Symmetric,
            "Address and Port Dependent Mapping",
            "Address and Port Dependent Filtering",
        ),
    ];
    let needs = [
        Need::Lab,
        Need::Tool("turnserver"),
        Need::Tool("turnutils_natdiscovery"),
    ];
    if !requirements::met(&needs)? {
        return Ok(());
    }
    let mut lab = Lab::new()?;
    let server = lab.server(10)?;
    let second = lab.second_address(&server, 11)?;
    let _coturn = coturn(&server, second)?;
    for (access, mapping, filtering) in KINDS {
        let home = lab.home(access)?;
        classified(&home, &server, &[mapping, filtering]).with_context(|| format!("{access:?}"))?;
    }
    Ok(())
}

fn expect(access: Access, mapping: Dependence, filtering: Dependence) -> Result<()> {
    let Some(world) = World::new(access)? else {
        return Ok(());
    };
    let found = world.mapping(Family::V4)?;
    ensure!(found == mapping, "mapping: {found:?}");
    let found = world.filtering(Family::V4)?;
    ensure!(found == filtering, "filtering: {found:?}");
    ensure!(
        world.seen_from(Family::V4)? == world.home.external4()?,
        "not translated"
    );
    Ok(())
}

#[derive(Debug, Clone, Copy)]
enum Family {
    V4,
    V6,
}

/// One home and two servers to look at it from.
struct World {
    home: Home,
    first: Server,
    second: Server,
    lab: Lab,
}

impl World {
    fn new(access: Access) -> Result<Option<Self>> {
        if !requirements::met(&[Need::Lab])? {
            return Ok(None);
        }
        let mut lab = Lab::new()?;
        Ok(Some(Self {
            home: lab.home(access)?,
            first: lab.server(10)?,
            second: lab.server(20)?,
            lab,
        }))
    }

    /// Sends from one socket to three endpoints and compares how it looks to them.
    fn mapping(&self, family: Family) -> Result<Dependence> {
        let local = self.local(family)?;
        let first = seen_by(&self.socket_in(family, &self.first, 4001)?, &local)?;
        let other_port = seen_by(&self.socket_in(family, &self.first, 4002)?, &local)?;
        let other_address = seen_by(&self.socket_in(family, &self.second, 4001)?, &local)?;
        let again = seen_by(&self.socket_in(family, &self.first, 4001)?, &local)?;
        ensure!(
            first == again,
            "the same endpoint is seen as {first}, then as {again}"
        );
        Ok(if first != other_port {
            AddressAndPort
        } else if first != other_address {
            Address
        } else {
            Independent
        })
    }

    /// Opens a mapping to one endpoint and looks whose answers arrive through it.
    fn filtering(&self, family: Family) -> Result<Dependence> {
        let local = self.local(family)?;
        let known = self.socket_in(family, &self.first, 4011)?;
        let other_port = self.socket_in(family, &self.first, 4012)?;
        let other_address = self.socket_in(family, &self.second, 4011)?;
        let outside = seen_by(&known, &local)?;
        let mut arrived = Vec::new();
        // Two rounds: what is not in when the second round's last datagram arrives was dropped, not late.
        for _ in 0..2 {
            other_address.send_to(b"other address", outside)?;
            other_port.send_to(b"other port", outside)?;
            known.send_to(b"known", outside)?;
            loop {
                let (bytes, _) = receive(&local)?;
                if bytes == b"known" {
                    break;
                }
                arrived.push(bytes);
            }
        }
        let passes = |what: &[u8]| arrived.iter().any(|bytes| bytes == what);
        Ok(match (passes(b"other address"), passes(b"other port")) {
            (true, true) => Independent,
            (false, true) => Address,
            (false, false) => AddressAndPort,
            (true, false) => anyhow::bail!("a filter that knows ports and no addresses"),
        })
    }

    fn seen_from(&self, family: Family) -> Result<IpAddr> {
        let server = self.socket_in(family, &self.first, 4021)?;
        Ok(seen_by(&server, &self.local(family)?)?.ip())
    }

    fn local(&self, family: Family) -> Result<UdpSocket> {
        let any = match family {
            Family::V4 => "0.0.0.0:0",
            Family::V6 => "[::]:0",
        };
        let socket = self.home.host().enter(|| UdpSocket::bind(any))??;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(socket)
    }

    fn socket(&self, server: &Server, port: u16) -> Result<UdpSocket> {
        self.socket_in(Family::V4, server, port)
    }

    fn socket_in(&self, family: Family, server: &Server, port: u16) -> Result<UdpSocket> {
        let address = match family {
            Family::V4 => server.address4(),
            Family::V6 => server.address6(),
        };
        let socket = server.host().enter(|| UdpSocket::bind((address, port)))??;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(socket)
    }
}

/// Sends a datagram to the server's socket and answers the address it was seen from.
fn seen_by(server: &UdpSocket, local: &UdpSocket) -> Result<SocketAddr> {
    local.send_to(b"who am I?", server.local_addr()?)?;
    Ok(receive(server)?.1)
}

fn receive(socket: &UdpSocket) -> Result<(Vec<u8>, SocketAddr)> {
    let mut buffer = vec![0; 2048];
    let (length, from) = socket
        .recv_from(&mut buffer)
        .context("a datagram expected")?;
    buffer.truncate(length);
    Ok((buffer, from))
}

/// coturn as an RFC 5780 server on two addresses and two ports.
fn coturn(server: &Server, second: IpAddr) -> Result<Process> {
    let mut command = server.host().command("turnserver");
    command
        .args([
            "-n",
            "--log-file",
            "stdout",
            "--no-auth",
            "--no-tls",
            "--no-dtls",
            "--no-cli",
        ])
        .args(["--listening-port", "3478", "--alt-listening-port", "3479"])
        .args([
            "--pidfile",
            "/dev/null",
            "-L",
            &server.address4().to_string(),
            "-L",
            &second.to_string(),
        ]);
    let process = Process::start("turnserver", &mut command)?;
    let listening = [server.address4(), second].map(|address| SocketAddr::new(address, 3479));
    for address in listening {
        answers(server.host(), address).with_context(|| process.report())?;
    }
    Ok(process)
}

/// Asks coturn's tool what the home is behind. What it takes for silence may be a loaded machine, so it is asked three times
/// before its answer counts: a NAT that is something else stays something else.
fn classified(home: &Home, server: &Server, expected: &[&str]) -> Result<()> {
    let mut said = String::new();
    for _ in 0..3 {
        let mut command = home.host().command("turnutils_natdiscovery");
        said = run(
            command.args(["-m", "-f", &server.address4().to_string()]),
            "",
        )?;
        if expected.iter().all(|words| said.contains(words)) {
            return Ok(());
        }
    }
    anyhow::bail!("expected {expected:?}\n{said}")
}

/// Waits until a Binding request (RFC 8489 §5) is answered.
fn answers(from: &Namespace, server: SocketAddr) -> Result<()> {
    let mut request = vec![0x00, 0x01, 0x00, 0x00, 0x21, 0x12, 0xa4, 0x42];
    request.extend_from_slice(b"transaction!");
    let socket = from.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))??;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    e2e::wait::until("coturn answers", PATIENCE, || {
        socket.send_to(&request, server)?;
        let mut buffer = [0; 512];
        Ok(socket.recv_from(&mut buffer).ok().map(drop))
    })
}
