//! Keyed hashing of addresses and names: SipHash-1-3, so that nobody who chooses addresses or user
//! names can choose where they land in a table.

use std::net::{IpAddr, SocketAddr};

use rand::Rng as _;
use rand::rngs::StdRng;

use crate::verdict::{Path, Transport};

/// The secret of all tables of one machine.
#[derive(Clone, Copy)]
pub(crate) struct HashKey {
    k0: u64,
    k1: u64,
}

impl HashKey {
    pub(crate) fn random(rng: &mut StdRng) -> Self {
        Self {
            k0: rng.next_u64(),
            k1: rng.next_u64(),
        }
    }

    pub(crate) fn of(seed: [u8; 16]) -> Self {
        let bits = u128::from_le_bytes(seed);
        let halves = [bits, bits >> 64].map(|half| half & u128::from(u64::MAX));
        let [k0, k1] = halves.map(|half| u64::try_from(half).unwrap_or(0));
        Self { k0, k1 }
    }

    /// The hash of a client's 5-tuple.
    pub(crate) fn path(self, path: &Path) -> u64 {
        let (remote_high, remote_low) = halves(path.remote.ip());
        let (local_high, local_low) = halves(path.local.ip());
        let transport = match path.transport {
            Transport::Udp => 0,
            Transport::Tcp => 1,
            Transport::Tls => 2,
        };
        let rest = u64::from(path.remote.port())
            | u64::from(path.local.port()) << 16
            | u64::from(path.remote.is_ipv6()) << 32
            | u64::from(path.local.is_ipv6()) << 33
            | transport << 34;
        let mut sip = self.start();
        for word in [remote_high, remote_low, local_high, local_low, rest] {
            sip.word(word);
        }
        sip.finish()
    }

    /// The hash of one request of a client.
    pub(crate) fn request(self, path: &Path, transaction: [u8; 12]) -> u64 {
        let [a, b, c, d, e, f, g, h, rest @ ..] = transaction;
        let [i, j, k, l] = rest;
        let mut sip = self.start();
        sip.word(self.path(path));
        sip.word(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
        sip.word(u32::from_le_bytes([i, j, k, l]).into());
        sip.finish()
    }

    /// The hash of a transport address.
    pub(crate) fn socket(self, addr: SocketAddr) -> u64 {
        let (high, low) = halves(addr.ip());
        let mut sip = self.start();
        for word in [
            high,
            low,
            u64::from(addr.port()) | u64::from(addr.is_ipv6()) << 16,
        ] {
            sip.word(word);
        }
        sip.finish()
    }

    /// The hash of an IP address, different for each `domain`.
    pub(crate) fn ip(self, domain: u8, ip: IpAddr) -> u64 {
        let (high, low) = halves(ip);
        let mut sip = self.start();
        for word in [high, low, u64::from(domain) | u64::from(ip.is_ipv6()) << 8] {
            sip.word(word);
        }
        sip.finish()
    }

    /// The hash of a name.
    pub(crate) fn name(self, name: &str) -> u64 {
        let mut sip = self.start();
        for chunk in name.as_bytes().chunks(8) {
            let mut word = [0; 8];
            for (to, from) in word.iter_mut().zip(chunk) {
                *to = *from;
            }
            sip.word(u64::from_le_bytes(word));
        }
        sip.word(name.len() as u64);
        sip.finish()
    }

    fn start(self) -> Sip {
        Sip {
            v0: self.k0 ^ 0x736f_6d65_7073_6575,
            v1: self.k1 ^ 0x646f_7261_6e64_6f6d,
            v2: self.k0 ^ 0x6c79_6765_6e65_7261,
            v3: self.k1 ^ 0x7465_6462_7974_6573,
        }
    }
}

/// An address as two words; the family goes into another one.
fn halves(ip: IpAddr) -> (u64, u64) {
    match ip {
        IpAddr::V4(ip) => (0, u64::from(ip.to_bits())),
        IpAddr::V6(ip) => {
            let [a, b, c, d, e, f, g, h] = ip.segments().map(u64::from);
            (
                a << 48 | b << 32 | c << 16 | d,
                e << 48 | f << 32 | g << 16 | h,
            )
        }
    }
}

/// SipHash with one round a word and three at the end (Aumasson and Bernstein). All inputs of one
/// kind have the same number of words, or end in their length.
struct Sip {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
}

impl Sip {
    #[inline]
    fn word(&mut self, word: u64) {
        self.v3 ^= word;
        self.round();
        self.v0 ^= word;
    }

    fn finish(mut self) -> u64 {
        self.v2 ^= 0xff;
        self.round();
        self.round();
        self.round();
        self.v0 ^ self.v1 ^ self.v2 ^ self.v3
    }

    #[inline]
    fn round(&mut self) {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v3 = self.v3.rotate_left(16) ^ self.v2;
        self.v0 = self.v0.rotate_left(32);
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v0 = self.v0.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(17) ^ self.v2;
        self.v3 = self.v3.rotate_left(21) ^ self.v0;
        self.v2 = self.v2.rotate_left(32);
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn every_part_of_a_path_counts() {
        let key = HashKey::random(&mut StdRng::from_seed([1; 32]));
        let path = |transport, local: &str, remote: &str| Path {
            transport,
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
        };
        let hashes = [
            path(Transport::Udp, "192.0.2.1:3478", "198.51.100.1:5000"),
            path(Transport::Tcp, "192.0.2.1:3478", "198.51.100.1:5000"),
            path(Transport::Tls, "192.0.2.1:3478", "198.51.100.1:5000"),
            path(Transport::Udp, "192.0.2.1:3479", "198.51.100.1:5000"),
            path(Transport::Udp, "192.0.2.2:3478", "198.51.100.1:5000"),
            path(Transport::Udp, "192.0.2.1:3478", "198.51.100.1:5001"),
            path(Transport::Udp, "192.0.2.1:3478", "198.51.100.2:5000"),
            path(Transport::Udp, "192.0.2.1:3478", "[::c633:6401]:5000"),
        ]
        .map(|path| key.path(&path));
        for (i, a) in hashes.iter().enumerate() {
            assert!(
                hashes.iter().skip(i + 1).all(|b| a != b),
                "hash {i} is not unique"
            );
        }
    }

    #[test]
    fn another_key_gives_other_hashes() {
        let one = HashKey::random(&mut StdRng::from_seed([1; 32]));
        let two = HashKey::random(&mut StdRng::from_seed([2; 32]));
        assert_ne!(one.name("alice"), two.name("alice"));
        assert_ne!(one.name("alice"), one.name("alice\0"));
        assert_eq!(one.name("alice"), one.name("alice"));
    }
}
