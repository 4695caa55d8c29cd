//! Nonces that need no memory: the relay recognises its own by their HMAC.
//!
//! ```text
//! "obMatJos2" | base64(24 feature bits) | base64url(second, 4 | key id, 2 | HMAC-SHA-256, first 10)
//!      9                  4                                      22                 = 35 characters
//! ```
//!
//! The HMAC covers the client's 5-tuple and the feature bits: a nonce is good for one client on one
//! listener, and a bit cannot be cleared on the way (RFC 8489 §9.2, the bid-down attack).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::clock::Tick;
use crate::verdict::Path;

/// RFC 8489 §9.2: every nonce of a server that knows the feature bits begins with this.
const COOKIE: &str = "obMatJos2";
/// Seconds for which one key makes nonces.
const KEY_PERIOD: u64 = 3600;
/// Bytes of the HMAC that fit a nonce.
const MAC_LEN: usize = 10;

/// The security feature bits of RFC 8489 §18.1; bit 0 is the leftmost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Features {
    /// Bit 0: PASSWORD-ALGORITHMS came with this nonce.
    pub(crate) password_algorithms: bool,
    /// Bit 1: USERHASH is understood.
    pub(crate) user_anonymity: bool,
}

impl Features {
    fn bytes(self) -> [u8; 3] {
        [
            u8::from(self.password_algorithms) << 7 | u8::from(self.user_anonymity) << 6,
            0,
            0,
        ]
    }

    fn parse(bytes: [u8; 3]) -> Option<Self> {
        let features = Self {
            password_algorithms: bytes[0] & 0x80 != 0,
            user_anonymity: bytes[0] & 0x40 != 0,
        };
        (features.bytes() == bytes).then_some(features)
    }
}

/// What a nonce is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NonceState {
    /// Ours, for this client, young enough.
    Fresh(Features),
    /// Ours, for this client, too old.
    Stale(Features),
    /// Not ours, or another client's, or altered.
    Foreign,
}

/// Makes and recognises nonces.
pub(crate) struct Nonces {
    master: [u8; 32],
    /// Keys of the last two periods, newest first: deriving one costs as much as a nonce.
    keys: [Option<(u16, Hmac<Sha256>)>; 2],
}

impl Nonces {
    /// Characters of a nonce.
    pub(crate) const LEN: usize = 35;

    pub(crate) fn new(master: [u8; 32]) -> Self {
        Self {
            master,
            keys: [None, None],
        }
    }

    /// A nonce for this client, made now.
    pub(crate) fn make(&mut self, now: Tick, path: &Path, features: Features) -> String {
        let second = u32::try_from(now.seconds()).unwrap_or(u32::MAX); // 136 years
        let id = key_id(second);
        let mut body = [0; 16];
        let (head, mac) = body.split_at_mut(6);
        head.copy_from_slice(&join(second, id));
        mac.copy_from_slice(&self.mac(second, id, path, features));
        let mut nonce = String::with_capacity(Self::LEN);
        nonce.push_str(COOKIE);
        STANDARD.encode_string(features.bytes(), &mut nonce);
        URL_SAFE_NO_PAD.encode_string(body, &mut nonce);
        nonce
    }

    /// What the nonce in a request of this client is worth.
    pub(crate) fn judge(
        &mut self,
        now: Tick,
        path: &Path,
        nonce: &str,
        life: Duration,
    ) -> NonceState {
        let Some((features, second, id, received)) = take_apart(nonce) else {
            return NonceState::Foreign;
        };
        let made = Tick::default().after(Duration::from_secs(second.into()));
        if id != key_id(second) || made > now {
            return NonceState::Foreign;
        }
        let expected = self.mac(second, id, path, features);
        if !bool::from(expected.ct_eq(&received)) {
            return NonceState::Foreign;
        }
        let age = now.seconds().saturating_sub(u64::from(second));
        if age > life.as_secs() {
            NonceState::Stale(features)
        } else {
            NonceState::Fresh(features)
        }
    }

    fn mac(&mut self, second: u32, id: u16, path: &Path, features: Features) -> [u8; MAC_LEN] {
        let mut mac = self.key(id);
        mac.update(&features.bytes());
        mac.update(&join(second, id));
        mac.update(&[path.transport as u8]);
        for addr in [path.remote, path.local] {
            mac.update(&address_bytes(addr));
        }
        let [
            out @ ..,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
        ] = <[u8; 32]>::from(mac.finalize().into_bytes());
        out
    }

    fn key(&mut self, id: u16) -> Hmac<Sha256> {
        if let Some((_, key)) = self.keys.iter().flatten().find(|(known, _)| *known == id) {
            return key.clone();
        }
        let mut mac = keyed(&self.master);
        mac.update(b"turn nonce");
        mac.update(&id.to_be_bytes());
        let key = keyed(&<[u8; 32]>::from(mac.finalize().into_bytes()));
        self.keys.swap(0, 1);
        self.keys[0] = Some((id, key.clone()));
        key
    }
}

fn keyed(key: &[u8; 32]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

fn key_id(second: u32) -> u16 {
    u16::try_from(u64::from(second) / KEY_PERIOD % 65_536).unwrap_or(0)
}

fn join(second: u32, id: u16) -> [u8; 6] {
    let ([a, b, c, d], [e, f]) = (second.to_be_bytes(), id.to_be_bytes());
    [a, b, c, d, e, f]
}

fn address_bytes(addr: SocketAddr) -> [u8; 19] {
    let (family, ip) = match addr.ip() {
        IpAddr::V4(ip) => (4, ip.to_ipv6_mapped().octets()),
        IpAddr::V6(ip) => (6, ip.octets()),
    };
    let mut bytes = [0; 19];
    bytes[0] = family;
    bytes[1..17].copy_from_slice(&ip);
    bytes[17..].copy_from_slice(&addr.port().to_be_bytes());
    bytes
}

fn take_apart(nonce: &str) -> Option<(Features, u32, u16, [u8; MAC_LEN])> {
    let (features, body) = nonce.strip_prefix(COOKIE)?.split_at_checked(4)?;
    let mut bits = [0; 3];
    let mut bytes = [0; 16];
    if body.len() != 22
        || STANDARD.decode_slice(features, &mut bits) != Ok(3)
        || URL_SAFE_NO_PAD.decode_slice(body, &mut bytes) != Ok(16)
    {
        return None;
    }
    let [a, b, c, d, e, f, mac @ ..] = bytes;
    Some((
        Features::parse(bits)?,
        u32::from_be_bytes([a, b, c, d]),
        u16::from_be_bytes([e, f]),
        mac,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::Transport;

    const LIFE: Duration = Duration::from_secs(600);

    fn path(remote: &str) -> Path {
        Path {
            transport: Transport::Udp,
            local: "192.0.2.1:3478".parse().unwrap(),
            remote: remote.parse().unwrap(),
        }
    }

    fn at(seconds: u64) -> Tick {
        Tick::default().after(Duration::from_secs(seconds))
    }

    const BOTH: Features = Features {
        password_algorithms: true,
        user_anonymity: true,
    };

    #[test]
    fn nonce_has_the_cookie_the_bits_and_its_length() {
        let mut nonces = Nonces::new([1; 32]);
        let path = path("198.51.100.1:5000");
        // RFC 8489 §18.1: bit 0 is the leftmost of the 24.
        let bits = |password_algorithms, user_anonymity| Features {
            password_algorithms,
            user_anonymity,
        };
        for (features, text) in [
            (bits(false, false), "AAAA"),
            (bits(true, false), "gAAA"),
            (bits(false, true), "QAAA"),
            (bits(true, true), "wAAA"),
        ] {
            let nonce = nonces.make(at(7), &path, features);
            assert_eq!(nonce.len(), Nonces::LEN);
            assert_eq!(&nonce[..13], format!("obMatJos2{text}"));
            assert_eq!(
                nonces.judge(at(7), &path, &nonce, LIFE),
                NonceState::Fresh(features)
            );
        }
    }

    #[test]
    fn nonce_grows_stale_and_keeps_being_ours() {
        let mut nonces = Nonces::new([1; 32]);
        let path = path("[2001:db8::1]:5000");
        let nonce = nonces.make(at(3_500), &path, BOTH);
        assert_eq!(
            nonces.judge(at(4_100), &path, &nonce, LIFE),
            NonceState::Fresh(BOTH)
        );
        assert_eq!(
            nonces.judge(at(4_101), &path, &nonce, LIFE),
            NonceState::Stale(BOTH)
        );
        assert_eq!(
            nonces.judge(at(90_000), &path, &nonce, LIFE),
            NonceState::Stale(BOTH)
        );
        assert_eq!(
            nonces.judge(at(3_499), &path, &nonce, LIFE),
            NonceState::Foreign,
            "from the future"
        );
    }

    #[test]
    fn nonce_is_good_for_one_client_of_one_machine() {
        let mut nonces = Nonces::new([1; 32]);
        let ours = path("198.51.100.1:5000");
        let nonce = nonces.make(at(7), &ours, BOTH);
        let other_listener = Path {
            local: "192.0.2.1:3479".parse().unwrap(),
            ..ours
        };
        let other_transport = Path {
            transport: Transport::Tcp,
            ..ours
        };
        for other in [
            path("198.51.100.1:5001"),
            path("198.51.100.2:5000"),
            other_listener,
            other_transport,
        ] {
            assert_eq!(
                nonces.judge(at(7), &other, &nonce, LIFE),
                NonceState::Foreign
            );
        }
        assert_eq!(
            Nonces::new([2; 32]).judge(at(7), &ours, &nonce, LIFE),
            NonceState::Foreign
        );
    }

    #[test]
    fn every_altered_character_makes_it_foreign() {
        let mut nonces = Nonces::new([1; 32]);
        let path = path("198.51.100.1:5000");
        let nonce = nonces.make(at(7), &path, BOTH);
        for at_char in 0..nonce.len() {
            for replacement in ['A', 'w', '_', 'é', '='] {
                let mut altered: Vec<char> = nonce.chars().collect();
                if altered[at_char] == replacement {
                    continue;
                }
                altered[at_char] = replacement;
                let altered: String = altered.into_iter().collect();
                assert_eq!(
                    nonces.judge(at(7), &path, &altered, LIFE),
                    NonceState::Foreign,
                    "{altered}"
                );
            }
        }
        for cut in 0..nonce.len() {
            assert_eq!(
                nonces.judge(at(7), &path, &nonce[..cut], LIFE),
                NonceState::Foreign
            );
        }
    }
}
