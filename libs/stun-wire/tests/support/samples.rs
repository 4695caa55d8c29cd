//! Real messages of every kind the toolkit's parts send: seeds for mutation, and the fuzz corpus.

use std::net::SocketAddr;

use stun_wire::attribute::*;
use stun_wire::channel_data::{ChannelData, ChannelNumber};
use stun_wire::{
    Class, IntegrityKey, IntegrityKind, MessageWriter, Method, TransactionId, error_code,
};

use super::vectors;

pub(crate) const TX: TransactionId = TransactionId([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
pub(crate) const REALM: &str = "rallypoint";
pub(crate) const NONCE: &str = "obMatJos2wAAAdGhlIG5vbmNlIG9mIGEgcmVsYXk";
const USER: &str = "1700000000:k1:alice";

/// The key that signs the samples' requests with SHA-1.
pub(crate) fn md5_key() -> IntegrityKey {
    IntegrityKey::long_term_md5(USER, REALM, "password")
}

/// The key that signs the samples' requests with SHA-256.
pub(crate) fn sha256_key() -> IntegrityKey {
    IntegrityKey::long_term_sha256(USER, REALM, "password")
}

/// The key that signs connectivity checks.
pub(crate) fn ice_key() -> IntegrityKey {
    IntegrityKey::short_term("0123456789012345678901")
}

/// Name and bytes of each STUN message.
pub(crate) fn messages() -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> = vectors::all()
        .into_iter()
        .map(|(name, bytes)| (name.to_owned(), bytes))
        .collect();
    binding(&mut all);
    discovery(&mut all);
    checks(&mut all);
    challenges(&mut all);
    allocations(&mut all);
    permissions_and_channels(&mut all);
    indications(&mut all);
    errors(&mut all);
    tcp_and_mobility(&mut all);
    all
}

/// Name and bytes of some ChannelData.
pub(crate) fn channel_data() -> Vec<(String, Vec<u8>)> {
    [0_usize, 1, 3, 4, 5, 100, 160, 1200]
        .into_iter()
        .flat_map(|length| [0x4000, 0x4001, 0x4FFF].map(|number| (number, length)))
        .map(|(number, length)| {
            let channel = ChannelNumber::new(number).expect("in range");
            let mut bytes = ChannelData::header(channel, length)
                .expect("short")
                .to_vec();
            bytes.extend((0..=u8::MAX).cycle().take(length));
            (format!("channel-{number:x}-{length}"), bytes)
        })
        .collect()
}

/// Name and bytes of some streams: several frames in a row.
pub(crate) fn streams() -> Vec<(String, Vec<u8>)> {
    let messages = messages();
    let channels = channel_data();
    messages
        .iter()
        .zip(channels.iter().cycle())
        .map(|((message_name, message), (channel_name, data))| {
            let mut bytes = message.clone();
            bytes.extend_from_slice(data);
            bytes.extend_from_slice(ChannelData::stream_padding(data.len() - 4));
            bytes.extend_from_slice(message);
            (format!("{message_name}-{channel_name}"), bytes)
        })
        .collect()
}

type Named = Vec<(String, Vec<u8>)>;

fn add(
    all: &mut Named,
    name: &str,
    class: Class,
    method: Method,
    fill: impl FnOnce(&mut MessageWriter<'_>),
) {
    let mut bytes = Vec::new();
    let mut writer = MessageWriter::new(&mut bytes, class, method, TX);
    fill(&mut writer);
    assert!(writer.finish() >= 20, "{name} is too long");
    all.push((name.to_owned(), bytes));
}

fn v4() -> SocketAddr {
    "203.0.113.7:50000".parse().expect("an address")
}

fn v6() -> SocketAddr {
    "[2001:db8::7]:50001".parse().expect("an address")
}

fn binding(all: &mut Named) {
    add(all, "binding", Class::Request, Method::BINDING, |_| {});
    add(
        all,
        "binding-fingerprint",
        Class::Request,
        Method::BINDING,
        |writer| {
            writer.attribute(&Software("rallypoint")).fingerprint();
        },
    );
    add(
        all,
        "binding-indication",
        Class::Indication,
        Method::BINDING,
        |writer| {
            writer.fingerprint();
        },
    );
    for (name, address) in [("binding-success-v4", v4()), ("binding-success-v6", v6())] {
        add(all, name, Class::Success, Method::BINDING, |writer| {
            writer.attribute(&XorMappedAddress(address)).fingerprint();
        });
    }
}

fn discovery(all: &mut Named) {
    for (name, change_ip, change_port) in
        [("change-both", true, true), ("change-port", false, true)]
    {
        add(all, name, Class::Request, Method::BINDING, |writer| {
            writer.attribute(&ChangeRequest {
                change_ip,
                change_port,
            });
            writer
                .attribute(&ResponsePort(40_000))
                .attribute(&Padding(&[0; 64]));
        });
    }
    add(
        all,
        "discovery-success",
        Class::Success,
        Method::BINDING,
        |writer| {
            writer
                .attribute(&XorMappedAddress(v4()))
                .attribute(&MappedAddress(v4()));
            writer
                .attribute(&ResponseOrigin(v4()))
                .attribute(&OtherAddress(v6()));
        },
    );
}

fn checks(all: &mut Named) {
    add(
        all,
        "check-controlling",
        Class::Request,
        Method::BINDING,
        |writer| {
            writer
                .attribute(&Username("evtj:h6vY"))
                .attribute(&IceControlling(0x0102_0304_0506_0708));
            writer
                .attribute(&Priority(0x6E00_01FF))
                .attribute(&UseCandidate);
            writer
                .integrity(&ice_key(), IntegrityKind::Sha1)
                .fingerprint();
        },
    );
    add(
        all,
        "check-controlled",
        Class::Request,
        Method::BINDING,
        |writer| {
            writer
                .attribute(&Username("h6vY:evtj"))
                .attribute(&IceControlled(7));
            writer
                .attribute(&Priority(1))
                .integrity(&ice_key(), IntegrityKind::Sha1)
                .fingerprint();
        },
    );
    add(
        all,
        "check-role-conflict",
        Class::Error,
        Method::BINDING,
        |writer| {
            writer.attribute(&ErrorCode {
                code: error_code::ROLE_CONFLICT,
                reason: "Role Conflict",
            });
            writer
                .integrity(&ice_key(), IntegrityKind::Sha1)
                .fingerprint();
        },
    );
}

fn challenges(all: &mut Named) {
    for (name, code) in [("challenge-401", 401), ("challenge-438", 438)] {
        add(all, name, Class::Error, Method::ALLOCATE, |writer| {
            writer
                .attribute(&ErrorCode::bare(code))
                .attribute(&Nonce(NONCE));
            writer
                .attribute(&Realm(REALM))
                .attribute(&PasswordAlgorithms::SHA256_AND_MD5);
        });
    }
}

/// Adds a long-term signed request twice: once with SHA-1 and USERNAME, once with SHA-256 and
/// USERHASH.
fn signed(all: &mut Named, name: &str, method: Method, fill: impl Fn(&mut MessageWriter<'_>)) {
    add(
        all,
        &format!("{name}-sha1"),
        Class::Request,
        method,
        |writer| {
            fill(writer);
            writer
                .attribute(&Username(USER))
                .attribute(&Realm(REALM))
                .attribute(&Nonce(NONCE));
            writer.integrity(&md5_key(), IntegrityKind::Sha1);
        },
    );
    add(
        all,
        &format!("{name}-sha256"),
        Class::Request,
        method,
        |writer| {
            fill(writer);
            writer
                .attribute(&Userhash::of(USER, REALM))
                .attribute(&Realm(REALM));
            writer
                .attribute(&Nonce(NONCE))
                .attribute(&PasswordAlgorithms::SHA256_AND_MD5);
            writer.attribute(&PasswordAlgorithm::SHA256);
            writer
                .integrity(&sha256_key(), IntegrityKind::Sha256)
                .fingerprint();
        },
    );
}

fn allocations(all: &mut Named) {
    add(
        all,
        "allocate-unsigned",
        Class::Request,
        Method::ALLOCATE,
        |writer| {
            writer.attribute(&RequestedTransport::UDP).fingerprint();
        },
    );
    signed(all, "allocate", Method::ALLOCATE, |writer| {
        writer
            .attribute(&RequestedTransport::UDP)
            .attribute(&Lifetime(600));
        writer.attribute(&DontFragment);
    });
    signed(all, "allocate-even-port", Method::ALLOCATE, |writer| {
        writer
            .attribute(&RequestedTransport::UDP)
            .attribute(&EvenPort { reserve: true });
        writer.attribute(&RequestedAddressFamily(AddressFamily::Ipv6));
    });
    signed(all, "allocate-token", Method::ALLOCATE, |writer| {
        writer
            .attribute(&RequestedTransport::UDP)
            .attribute(&ReservationToken(*b"reserved"));
    });
    signed(all, "allocate-both-families", Method::ALLOCATE, |writer| {
        writer.attribute(&RequestedTransport::UDP);
        writer.attribute(&AdditionalAddressFamily(AddressFamily::Ipv6));
    });
    signed(all, "refresh", Method::REFRESH, |writer| {
        writer.attribute(&Lifetime(0));
    });
    add(
        all,
        "allocate-success",
        Class::Success,
        Method::ALLOCATE,
        |writer| {
            writer
                .attribute(&XorRelayedAddress(v4()))
                .attribute(&XorRelayedAddress(v6()));
            writer
                .attribute(&XorMappedAddress(v4()))
                .attribute(&Lifetime(600));
            writer.attribute(&ReservationToken(*b"reserved"));
            writer.integrity(&md5_key(), IntegrityKind::Sha1);
            writer
                .integrity(&md5_key(), IntegrityKind::Sha256)
                .fingerprint();
        },
    );
    add(
        all,
        "allocate-half-success",
        Class::Success,
        Method::ALLOCATE,
        |writer| {
            writer
                .attribute(&XorRelayedAddress(v4()))
                .attribute(&XorMappedAddress(v4()));
            let family = AddressFamily::Ipv6;
            writer.attribute(&AddressErrorCode {
                family,
                code: 440,
                reason: "no IPv6 here",
            });
            writer.integrity(&sha256_key(), IntegrityKind::Sha256);
        },
    );
}

fn permissions_and_channels(all: &mut Named) {
    signed(
        all,
        "create-permission",
        Method::CREATE_PERMISSION,
        |writer| {
            writer
                .attribute(&XorPeerAddress(v4()))
                .attribute(&XorPeerAddress(v6()));
        },
    );
    signed(all, "channel-bind", Method::CHANNEL_BIND, |writer| {
        writer
            .attribute(&ChannelNumberAttribute(0x4001))
            .attribute(&XorPeerAddress(v4()));
    });
}

fn indications(all: &mut Named) {
    for (name, method) in [("send", Method::SEND), ("data", Method::DATA)] {
        for (peer_name, peer) in [("v4", v4()), ("v6", v6())] {
            for length in [0, 1, 100] {
                let name = format!("{name}-{peer_name}-{length}");
                add(all, &name, Class::Indication, method, |writer| {
                    writer
                        .attribute(&XorPeerAddress(peer))
                        .attribute(&Data(&[0xAB; 100][..length]));
                });
            }
        }
    }
    add(
        all,
        "data-icmp",
        Class::Indication,
        Method::DATA,
        |writer| {
            writer.attribute(&XorPeerAddress(v4()));
            writer.attribute(&Icmp {
                icmp_type: 3,
                code: 4,
                data: 1280,
            });
        },
    );
}

fn errors(all: &mut Named) {
    add(all, "error-420", Class::Error, Method::ALLOCATE, |writer| {
        let unknown = [0x7F00, 0x7F01, 0x7F02].map(stun_wire::AttributeType);
        writer.attribute(&ErrorCode::bare(error_code::UNKNOWN_ATTRIBUTE));
        writer.attribute(&unknown.into_iter().collect::<UnknownAttributes>());
    });
    add(all, "error-300", Class::Error, Method::BINDING, |writer| {
        let code = error_code::TRY_ALTERNATE;
        writer.attribute(&ErrorCode {
            code,
            reason: error_code::reason(code),
        });
        writer
            .attribute(&AlternateServer(v6()))
            .attribute(&AlternateDomain("turn.example"));
    });
    for code in [400, 403, 437, 441, 442, 443, 486, 508] {
        add(
            all,
            &format!("error-{code}"),
            Class::Error,
            Method::ALLOCATE,
            |writer| {
                writer
                    .attribute(&ErrorCode::bare(code))
                    .integrity(&md5_key(), IntegrityKind::Sha1);
            },
        );
    }
}

fn tcp_and_mobility(all: &mut Named) {
    signed(all, "allocate-tcp", Method::ALLOCATE, |writer| {
        writer.attribute(&RequestedTransport::TCP);
    });
    signed(all, "connect", Method::CONNECT, |writer| {
        writer.attribute(&XorPeerAddress(v4()));
    });
    signed(all, "connection-bind", Method::CONNECTION_BIND, |writer| {
        writer.attribute(&ConnectionId(0xDEAD_BEEF));
    });
    add(
        all,
        "connection-attempt",
        Class::Indication,
        Method::CONNECTION_ATTEMPT,
        |writer| {
            writer
                .attribute(&ConnectionId(1))
                .attribute(&XorPeerAddress(v4()));
        },
    );
    signed(all, "refresh-moved", Method::REFRESH, |writer| {
        writer.attribute(&MobilityTicket(b"an opaque ticket"));
    });
}
