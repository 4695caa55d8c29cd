//! Homes and servers around a core: the topology of every test with NATs in it.
//!
//! ```text
//!  192.168.1.10 ── router ── 198.51.100.1 ──┐        ┌── 203.0.113.10  a server
//!                                           core
//!  192.168.1.10 ── router ── 198.51.100.2 ──┘        └── 203.0.113.20  another
//! ```
//!
//! Every access line is a point-to-point veth with one address, as an internet provider would hand it out. All homes use
//! 192.168.1.0/24 and the *same* host address in it, so a host candidate of the other side always points somewhere wrong.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result};

use crate::core::Core;
use crate::nat::Access;
use crate::netns::{self, Namespace};

/// A player's machine in every home.
pub const HOME_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 10);

/// The world of one test.
#[derive(Debug)]
pub struct Lab {
    core: Core,
    lines: u8,
    homes: u8,
}

/// A player's machine and, in front of it, a router.
#[derive(Debug)]
pub struct Home {
    host: Namespace,
    router: Namespace,
    external4: Option<Ipv4Addr>,
    address6: Option<Ipv6Addr>,
}

/// A server's machine, directly on the internet with an IPv4 and an IPv6 address.
#[derive(Debug)]
pub struct Server {
    host: Namespace,
    address4: Ipv4Addr,
    address6: Ipv6Addr,
    line: String,
}

impl Lab {
    /// An empty world: the core alone.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn new() -> Result<Self> {
        netns::sweep()?;
        Ok(Self {
            core: Core::create()?,
            lines: 0,
            homes: 0,
        })
    }

    /// The router in the middle.
    #[must_use]
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// Adds a server at 203.0.113.`number` and 2001:db8:ffff::`number` (in decimal digits).
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn server(&mut self, number: u8) -> Result<Server> {
        let address4 = Ipv4Addr::new(203, 0, 113, number);
        let address6 = format!("2001:db8:ffff::{number}").parse()?;
        let host = Namespace::create(&format!("server{number}"))?;
        let line = self.line(&host, &format!("{address4}/32"), &format!("{address6}/128"))?;
        host.ip(&format!("addr add {address6}/128 dev wan nodad"))?;
        ipv4_line(&host, address4)?;
        Ok(Server {
            host,
            address4,
            address6,
            line,
        })
    }

    /// Gives a server a second IPv4 address, 203.0.113.`number`: what a classifier of NATs needs.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn second_address(&self, server: &Server, number: u8) -> Result<IpAddr> {
        let address = Ipv4Addr::new(203, 0, 113, number);
        server.host.ip(&format!("addr add {address}/32 dev wan"))?;
        self.core
            .namespace()
            .ip(&format!("route add {address}/32 dev {}", server.line))?;
        Ok(address.into())
    }

    /// Sends what is for a whole network to a server, which does not send it on.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn route_to(&self, server: &Server, net: &str) -> Result<()> {
        server.host.sysctl("net/ipv4/ip_forward", "0")?;
        let Server { address4, line, .. } = server;
        self.core
            .namespace()
            .ip(&format!("route add {net} via {address4} dev {line}"))
    }

    /// Adds a home with the given access: the next address of 198.51.100.0/24 outside, 192.168.1.10 inside.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn home(&mut self, access: Access) -> Result<Home> {
        self.homes += 1;
        let number = self.homes;
        let external = Ipv4Addr::new(198, 51, 100, number);
        let router = Namespace::create(&format!("router{number}"))?;
        let host = Namespace::create(&format!("home{number}"))?;

        router.sysctl("net/ipv4/ip_forward", "1")?;
        router.sysctl("net/ipv6/conf/all/forwarding", "1")?;
        router.nft(&access.rules(external))?;
        self.line(
            &router,
            &format!("{external}/32"),
            &format!("2001:db8:{number}::/48"),
        )?;
        router.ip(&format!(
            "link add lan type veth peer name eth0 netns {}\nlink set lan up",
            host.name()
        ))?;
        host.ip("link set eth0 up")?;
        if access.has_ipv4() {
            ipv4_line(&router, external)?;
            router.ip("addr add 192.168.1.1/24 dev lan")?;
            host.ip(&format!(
                "addr add {HOME_ADDRESS}/24 dev eth0\nroute add default via 192.168.1.1"
            ))?;
        }
        let address6 = access
            .has_ipv6()
            .then(|| ipv6_home(&router, &host, number))
            .transpose()?;
        Ok(Home {
            host,
            router,
            external4: access.has_ipv4().then_some(external),
            address6,
        })
    }

    /// Lays a line between the core and the interface `wan` of a machine, and routes the machine's addresses to it. Both
    /// ends have the link-local addresses fe80::1 (core) and fe80::2.
    fn line(&mut self, machine: &Namespace, route4: &str, route6: &str) -> Result<String> {
        self.lines += 1;
        let line = format!("line{}", self.lines);
        self.core.namespace().ip(&format!(
            "link add {line} type veth peer name wan netns {}",
            machine.name()
        ))?;
        machine.ip(
            "link set wan up\naddr add fe80::2/64 dev wan nodad\nroute add default via fe80::1 dev wan",
        )?;
        self.core
            .namespace()
            .ip(&format!(
                "link set {line} up
addr add 169.254.0.1/32 dev {line}
addr add fe80::1/64 dev {line} nodad
route add {route4} dev {line}
route add {route6} via fe80::2 dev {line}"
            ))
            .with_context(|| format!("line to {}", machine.name()))?;
        Ok(line)
    }
}

impl Home {
    /// The player's machine.
    #[must_use]
    pub fn host(&self) -> &Namespace {
        &self.host
    }

    /// The router in front of it.
    #[must_use]
    pub fn router(&self) -> &Namespace {
        &self.router
    }

    /// The router's address on the internet.
    ///
    /// # Errors
    /// When the home has no IPv4.
    pub fn external4(&self) -> Result<IpAddr> {
        self.external4
            .map(IpAddr::V4)
            .context("a home without IPv4")
    }

    /// The machine's own global IPv6 address.
    ///
    /// # Errors
    /// When the home has no IPv6.
    pub fn address6(&self) -> Result<IpAddr> {
        self.address6.map(IpAddr::V6).context("a home without IPv6")
    }

    /// Every address this home is seen by from the core.
    #[must_use]
    pub fn outside(&self) -> Vec<IpAddr> {
        let four = self.external4.map(IpAddr::V4);
        let six = self.address6.map(IpAddr::V6);
        four.into_iter().chain(six).collect()
    }
}

impl Server {
    /// The server's machine.
    #[must_use]
    pub fn host(&self) -> &Namespace {
        &self.host
    }

    /// Its IPv4 address.
    #[must_use]
    pub fn address4(&self) -> IpAddr {
        self.address4.into()
    }

    /// Its IPv6 address.
    #[must_use]
    pub fn address6(&self) -> IpAddr {
        self.address6.into()
    }
}

/// The machine's end of a line in IPv4: one address, and everything goes to the core.
fn ipv4_line(machine: &Namespace, address: Ipv4Addr) -> Result<()> {
    machine.ip(&format!(
        "addr add {address}/32 dev wan
route add 169.254.0.1/32 dev wan
route add default via 169.254.0.1 dev wan src {address}"
    ))
}

/// 2001:db8:N:1::/64 behind the router; the machine is ::10 in it.
fn ipv6_home(router: &Namespace, host: &Namespace, number: u8) -> Result<Ipv6Addr> {
    let address: Ipv6Addr = format!("2001:db8:{number}:1::10").parse()?;
    router.ip(&format!("addr add 2001:db8:{number}:1::1/64 dev lan nodad"))?;
    host.ip(&format!(
        "addr add {address}/64 dev eth0 nodad\nroute add default via 2001:db8:{number}:1::1 dev eth0"
    ))?;
    Ok(address)
}
