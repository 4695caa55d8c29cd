//! Any bytes as the value of every attribute: what parses can be written, and reads back the same.

use stun_wire::attribute::*;
use stun_wire::{Attribute, TransactionId};

/// The first 12 bytes are the transaction id, the rest is the value.
pub(crate) fn run(bytes: &[u8]) {
    let Some((tx, value)) = bytes.split_first_chunk::<12>() else {
        return;
    };
    let tx = TransactionId(*tx);
    addresses(value, &tx);
    texts(value, &tx);
    bytes_and_lists(value, &tx);
    numbers_and_flags(value, &tx);
}

/// For each attribute: if the value is one, writing it and reading that gives the same again.
macro_rules! round_trips {
    ($value:expr, $tx:expr; $($name:ident)+) => {$(
        if let Ok(parsed) = $name::parse($value, $tx) {
            let mut out = vec![0xEE; parsed.len()];
            parsed.write(&mut out, $tx);
            let mut other = vec![0x11; parsed.len()];
            parsed.write(&mut other, $tx);
            assert_eq!(out, other, "{:?} leaves bytes unwritten", $name::TYPE);
            assert_eq!($name::parse(&out, $tx), Ok(parsed), "{:?}", $name::TYPE);
        }
    )+};
}

fn addresses(value: &[u8], tx: &TransactionId) {
    round_trips!(value, tx; MappedAddress XorMappedAddress XorPeerAddress XorRelayedAddress);
    round_trips!(value, tx; AlternateServer ResponseOrigin OtherAddress);
}

fn texts(value: &[u8], tx: &TransactionId) {
    round_trips!(value, tx; Username Realm Nonce Software AlternateDomain);
    round_trips!(value, tx; ErrorCode AddressErrorCode);
}

fn bytes_and_lists(value: &[u8], tx: &TransactionId) {
    round_trips!(value, tx; Data Padding MobilityTicket);
    round_trips!(value, tx; MessageIntegrity MessageIntegritySha256 Userhash ReservationToken);
    round_trips!(value, tx; UnknownAttributes PasswordAlgorithm PasswordAlgorithms);
    if let Ok(list) = PasswordAlgorithms::parse(value, tx) {
        assert!(list.iter().count() * 4 <= value.len());
        assert!(list.iter().all(|algorithm| list.contains(algorithm)));
    }
}

fn numbers_and_flags(value: &[u8], tx: &TransactionId) {
    round_trips!(value, tx; Fingerprint Lifetime Priority ConnectionId IceControlled);
    round_trips!(value, tx; IceControlling ChannelNumberAttribute RequestedTransport EvenPort);
    round_trips!(value, tx; RequestedAddressFamily AdditionalAddressFamily ChangeRequest);
    round_trips!(value, tx; ResponsePort Icmp UseCandidate DontFragment);
}
