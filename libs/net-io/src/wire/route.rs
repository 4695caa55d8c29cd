//! Who is next on the way to an address: the system's tables, as `/proc` shows them.

use std::cmp::Reverse;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};

use super::Mac;

/// Where frames go first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// The interface they leave by.
    pub interface: String,
    /// Who takes them there: the destination itself, or a router.
    pub mac: Mac,
}

/// The main table's route (rules that choose another are not looked at), and that neighbour's address.
#[cfg(target_os = "linux")]
pub(super) fn next_hop(to: Ipv4Addr) -> io::Result<Hop> {
    // That table has no routes to this host's own addresses, and a default route would seem to lead to them.
    if UdpSocket::bind((to, 0)).is_ok() {
        return Err(not_found(format!("{to} is this host itself")));
    }
    let routes = std::fs::read_to_string("/proc/net/route")?;
    let Some((interface, gateway)) = route(&routes, to) else {
        return Err(not_found(format!("no route to {to} by Ethernet")));
    };
    let neighbour = gateway.unwrap_or(to);
    let neighbours = std::fs::read_to_string("/proc/net/arp")?;
    let mac = mac_of(&neighbours, neighbour, interface)
        .ok_or_else(|| not_found(format!("{neighbour} is no known neighbour on {interface}")))?;
    Ok(Hop {
        interface: interface.to_owned(),
        mac,
    })
}

#[cfg(target_os = "linux")]
fn not_found(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, what)
}

/// `RTF_UP` and `RTF_GATEWAY` (linux/route.h).
const UP: u32 = 1;
const GATEWAY: u32 = 2;
/// `ATF_COM` (linux/if_arp.h): the address is complete.
const COMPLETE: u32 = 2;

/// A line of `/proc/net/route`. Addresses are in hexadecimal digits, as this machine stores them.
struct Route<'a> {
    interface: &'a str,
    network: u32,
    mask: u32,
    gateway: Option<Ipv4Addr>,
    metric: u32,
}

impl<'a> Route<'a> {
    /// None: it is no route, or one that is down.
    fn parse(line: &'a str) -> Option<Self> {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let hex = |at: usize| u32::from_str_radix(fields.get(at)?, 16).ok();
        let (flags, gateway) = (hex(3)?, Ipv4Addr::from(hex(2)?.to_ne_bytes()));
        let route = Self {
            interface: fields.first()?,
            network: hex(1)?,
            mask: hex(7)?,
            gateway: (flags & GATEWAY != 0).then_some(gateway),
            metric: fields.get(6)?.parse().ok()?,
        };
        (flags & UP != 0).then_some(route)
    }
}

/// The interface of the longest prefix that covers `to`, of the lowest metric among those, and its gateway if it has one.
#[cfg_attr(
    not(target_os = "linux"),
    expect(dead_code, reason = "Linux has the tables")
)]
fn route(table: &str, to: Ipv4Addr) -> Option<(&str, Option<Ipv4Addr>)> {
    let to = u32::from_ne_bytes(to.octets());
    let routes = table.lines().skip(1).filter_map(Route::parse);
    let best = routes
        .filter(|route| to & route.mask == route.network)
        .max_by_key(|route| (route.mask.count_ones(), Reverse(route.metric)))?;
    Some((best.interface, best.gateway))
}

/// Of `/proc/net/arp`: the address of a neighbour that has answered.
#[cfg_attr(
    not(target_os = "linux"),
    expect(dead_code, reason = "Linux has the tables")
)]
fn mac_of(table: &str, neighbour: Ipv4Addr, interface: &str) -> Option<Mac> {
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let ip: Ipv4Addr = fields.next()?.parse().ok()?;
        let flags = fields.nth(1)?.strip_prefix("0x")?;
        let flags = u32::from_str_radix(flags, 16).ok()?;
        let mac = parse_mac(fields.next()?)?;
        let on = fields.nth(1)?;
        (ip == neighbour && on == interface && flags & COMPLETE != 0).then_some(mac)
    })
}

fn parse_mac(text: &str) -> Option<Mac> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    /// Digits as this machine's byte order has them.
    fn digits(text: &str) -> String {
        format!("{:08X}", u32::from_ne_bytes(ip(text).octets()))
    }

    fn table(rows: &[(&str, &str, &str, &str, u32, u32)]) -> String {
        let mut table = String::from(
            "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT \n",
        );
        for (interface, network, gateway, mask, flags, metric) in rows {
            table += &format!(
                "{interface}\t{}\t{}\t{flags:04X}\t0\t0\t{metric}\t{}\t0\t0\t0   \n",
                digits(network),
                digits(gateway),
                digits(mask)
            );
        }
        table
    }

    #[test]
    fn the_longest_prefix_and_then_the_lowest_metric_decide() {
        let table = table(&[
            ("eth0", "0.0.0.0", "192.0.2.1", "0.0.0.0", 3, 100),
            ("eth1", "0.0.0.0", "192.0.2.9", "0.0.0.0", 3, 50),
            ("cable", "198.18.1.0", "0.0.0.0", "255.255.255.252", 1, 0),
            ("down", "198.18.1.0", "0.0.0.0", "255.255.255.255", 0, 0),
            ("far", "203.0.113.0", "198.18.1.1", "255.255.255.0", 3, 0),
        ]);
        let to = |text| route(&table, ip(text));
        assert_eq!(to("198.18.1.1"), Some(("cable", None)));
        assert_eq!(to("203.0.113.5"), Some(("far", Some(ip("198.18.1.1")))));
        assert_eq!(to("8.8.8.8"), Some(("eth1", Some(ip("192.0.2.9")))));
        assert_eq!(route("", ip("8.8.8.8")), None);
        assert_eq!(route("Iface\nnonsense\n", ip("8.8.8.8")), None);
    }

    #[test]
    fn only_neighbours_that_answered_on_that_interface_are_known() {
        let table = "IP address       HW type     Flags       HW address            Mask     Device\n\
            198.18.1.1       0x1         0x2         aa:bb:cc:dd:ee:0f     *        cl\n\
            198.18.1.2       0x1         0x0         00:00:00:00:00:00     *        cl\n";
        let of = |text, on| mac_of(table, ip(text), on);
        let mac = [0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0x0f];
        assert_eq!(of("198.18.1.1", "cl"), Some(mac));
        assert_eq!(of("198.18.1.1", "pl"), None);
        assert_eq!(of("198.18.1.2", "cl"), None);
        assert_eq!(of("198.18.1.3", "cl"), None);
        assert_eq!(parse_mac("aa:bb:cc:dd:ee:0f:01"), None);
        assert_eq!(parse_mac("aa:bb"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_host_is_on_no_cable() {
        assert!(next_hop(Ipv4Addr::LOCALHOST).is_err());
    }
}
