//! What stands between a home and the internet, as `nft` rules.
//!
//! The behaviours are those of RFC 4787: how a mapping depends on the destination (§4.1) and who may use it from outside
//! (§5). An endpoint-independent mapping is built in the kernel alone: a packet of a known endpoint reuses its port
//! through the map `out`; the first one gets a random port; a chain *after* source NAT reads the result back into the
//! maps. `tests/nat_lab.rs` proves each kind with sockets and with coturn's classifier.

use std::net::Ipv4Addr;

/// The access a home has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Endpoint-independent mapping and filtering: the friendliest NAT.
    FullCone,
    /// Endpoint-independent mapping, address-dependent filtering.
    AddressRestricted,
    /// Endpoint-independent mapping, address-and-port-dependent filtering: what RFC 4787 asks for at least, with random
    /// ports.
    PortRestricted,
    /// Linux's plain `masquerade`: behaves as port-restricted while it can keep the port.
    Masquerade,
    /// Address-and-port-dependent mapping with random ports, and filtering likewise.
    Symmetric,
    /// TCP only; datagrams vanish without an answer, as in many offices.
    UdpBlocked,
    /// No IPv4 at all; IPv6 open in both directions.
    Ipv6Only,
    /// A symmetric NAT for IPv4 beside a stateful firewall for IPv6: a usual home or mobile line.
    DualStack,
}

impl Access {
    /// Whether the home has IPv4 (behind a NAT, in 192.168.1.0/24 like everybody).
    #[must_use]
    pub fn has_ipv4(self) -> bool {
        self != Self::Ipv6Only
    }

    /// Whether the home has IPv6 (global addresses, no NAT).
    #[must_use]
    pub fn has_ipv6(self) -> bool {
        matches!(self, Self::Ipv6Only | Self::DualStack)
    }

    /// The rules of a router with the interfaces `lan` and `wan` whose external address is `external`.
    #[must_use]
    pub fn rules(self, external: Ipv4Addr) -> String {
        format!("{}\n{}", self.guard(), self.nat(external))
    }

    /// What the router lets through. Its own input is dropped: an early probe of the peer must not create a conntrack
    /// entry in the router itself, which would occupy the port that the punching packet wants.
    fn guard(self) -> String {
        let outbound = if self == Self::UdpBlocked {
            "meta l4proto tcp"
        } else {
            ""
        };
        let inbound = if self == Self::Ipv6Only {
            r#"iifname "wan" oifname "lan" meta nfproto ipv6 accept"#
        } else {
            ""
        };
        format!(
            r#"table inet guard {{
  chain input {{
    type filter hook input priority filter; policy drop;
    iifname "lo" accept
    meta l4proto ipv6-icmp accept
    ct state established,related accept
  }}
  chain forward {{
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    ct status dnat accept
    meta l4proto ipv6-icmp accept
    {inbound}
    iifname "lan" oifname "wan" {outbound} accept
  }}
}}"#
        )
    }

    fn nat(self, external: Ipv4Addr) -> String {
        match self {
            Self::FullCone => endpoint_independent(
                external,
                &format!(
                    r#"iifname "wan" meta l4proto udp ip daddr {external} dnat ip to udp dport map @in"#
                ),
            ),
            Self::AddressRestricted => endpoint_independent(
                external,
                &format!(
                    r#"iifname "wan" meta l4proto udp ip daddr {external} udp dport . ip saddr @allowed dnat ip to udp dport map @in"#
                ),
            ),
            // Without a rule for arriving packets, conntrack alone filters, by address and port.
            Self::PortRestricted => endpoint_independent(external, ""),
            Self::Symmetric | Self::DualStack => format!(
                r#"table ip nat {{
  chain post {{
    type nat hook postrouting priority srcnat;
    iifname "lan" meta l4proto udp snat ip to {external}:1024-65535 fully-random
    oifname "wan" masquerade
  }}
}}"#
            ),
            Self::Masquerade | Self::UdpBlocked => r#"table ip nat {
  chain post {
    type nat hook postrouting priority srcnat;
    oifname "wan" masquerade
  }
}"#
            .to_owned(),
            Self::Ipv6Only => String::new(),
        }
    }
}

/// An endpoint-independent mapping with random ports; `arriving` is the rule for packets from outside.
fn endpoint_independent(external: Ipv4Addr, arriving: &str) -> String {
    format!(
        r#"table ip nat {{
  map out {{ type ipv4_addr . inet_service : inet_service; flags dynamic,timeout; size 65535; timeout 300s; }}
  map in {{ type inet_service : ipv4_addr . inet_service; flags dynamic,timeout; size 65535; timeout 300s; }}
  set allowed {{ type inet_service . ipv4_addr; flags dynamic,timeout; size 65535; timeout 300s; }}
  chain pre {{
    type nat hook prerouting priority dstnat;
    {arriving}
  }}
  chain post {{
    type nat hook postrouting priority srcnat;
    iifname "lan" meta l4proto udp snat ip to {external} : ip saddr . udp sport map @out
    iifname "lan" meta l4proto udp snat ip to {external}:1024-65535 fully-random
    oifname "wan" masquerade
  }}
  chain learn {{
    type filter hook postrouting priority srcnat + 10;
    iifname "lan" meta l4proto udp ct direction original update @out {{ ct original ip saddr . ct original proto-src : udp sport }} update @in {{ udp sport : ct original ip saddr . ct original proto-src }} update @allowed {{ udp sport . ct original ip daddr }}
    iifname "lan" meta l4proto udp ct direction reply update @in {{ udp sport : ct reply ip saddr . ct reply proto-src }}
  }}
}}"#
    )
}
