//! Signed session descriptions: who offers a session, to whom, with which keys.
//!
//! The signaling server carries them and cannot change one bit: the ICE password and the identity key stand under the
//! sender's signature, together with the room, both members, a nonce and the time. What it could do is name another key
//! altogether, which is why the connected event says [`Trust::Signaling`](crate::Trust).

use serde::Deserialize as _;
use serde_json::Value;
use signal_wire::{LobbyId, MemberId, Nonce, PublicKey, SessionDescription, SignedDescription};

use crate::identity::{Identity, verify};

/// How far a description's time may lie from ours, in seconds. Ours is the signaling server's clock.
pub const FRESHNESS: u64 = 600;

/// Why a description was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DescriptionError {
    /// It is not a description this version reads.
    Malformed,
    /// The signature is not by the key within.
    Signature,
    /// It names another room, sender or receiver.
    Addressee,
    /// It is from another time.
    Stale,
    /// The players share no session protocol.
    Session,
}

impl std::fmt::Display for DescriptionError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Malformed => "it is malformed",
            Self::Signature => "its signature is wrong",
            Self::Addressee => "it is for another room or player",
            Self::Stale => "it is too old or from the future",
            Self::Session => "it offers no session protocol that we speak",
        })
    }
}

/// Whom a description is from and for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Addressees {
    pub(crate) room: LobbyId,
    pub(crate) from: MemberId,
    pub(crate) to: MemberId,
}

/// Makes our description.
pub(crate) fn sign(
    identity: &Identity,
    addressees: Addressees,
    (ufrag, pwd): (&str, &str),
    nonce: [u8; 16],
    unix: u64,
) -> Value {
    let description = SessionDescription {
        ufrag: ufrag.to_owned(),
        pwd: pwd.to_owned(),
        session: vec![SessionDescription::QUIC_1.to_owned()],
        key: identity.public_key(),
        room: addressees.room,
        from: addressees.from,
        to: addressees.to,
        nonce: Nonce(nonce),
        time: unix,
    };
    let bytes = description.to_bytes();
    let signed = SignedDescription::new(&bytes, &identity.sign(&bytes));
    serde_json::to_value(signed).expect("a description has string keys and finite numbers")
}

/// What a good description tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verified {
    pub(crate) ufrag: String,
    pub(crate) pwd: String,
    pub(crate) key: PublicKey,
}

/// Checks the other player's description.
pub(crate) fn check(
    data: &Value,
    expected: Addressees,
    unix: u64,
) -> Result<Verified, DescriptionError> {
    let signed = SignedDescription::deserialize(data).map_err(|_| DescriptionError::Malformed)?;
    let (bytes, signature) = signed.decode().map_err(|_| DescriptionError::Malformed)?;
    let description =
        SessionDescription::from_bytes(&bytes).map_err(|_| DescriptionError::Malformed)?;
    if !verify(description.key, &bytes, &signature) {
        return Err(DescriptionError::Signature);
    }
    let found = Addressees {
        room: description.room,
        from: description.from,
        to: description.to,
    };
    if found != expected {
        return Err(DescriptionError::Addressee);
    }
    if description.time.abs_diff(unix) > FRESHNESS {
        return Err(DescriptionError::Stale);
    }
    if !description
        .session
        .iter()
        .any(|session| session == SessionDescription::QUIC_1)
    {
        return Err(DescriptionError::Session);
    }
    Ok(Verified {
        ufrag: description.ufrag,
        pwd: description.pwd,
        key: description.key,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TO: Addressees = Addressees {
        room: LobbyId(5),
        from: MemberId(1),
        to: MemberId(2),
    };

    fn description() -> Value {
        let credentials = ("abcd", "0123456789abcdefghijkl");
        sign(
            &Identity::from_seed([3; 32]),
            TO,
            credentials,
            [9; 16],
            1_000_000,
        )
    }

    #[test]
    fn a_fresh_description_for_us_is_taken() {
        let verified = check(&description(), TO, 1_000_000 + FRESHNESS);
        assert_eq!(verified.map(|good| good.ufrag), Ok("abcd".to_owned()));
    }

    #[test]
    fn a_description_for_another_is_refused() {
        let other = Addressees {
            to: MemberId(3),
            ..TO
        };
        assert_eq!(
            check(&description(), other, 1_000_000),
            Err(DescriptionError::Addressee)
        );
        let other = Addressees {
            room: LobbyId(6),
            ..TO
        };
        assert_eq!(
            check(&description(), other, 1_000_000),
            Err(DescriptionError::Addressee)
        );
    }

    #[test]
    fn an_old_description_is_refused() {
        let late = 1_000_001 + FRESHNESS;
        assert_eq!(
            check(&description(), TO, late),
            Err(DescriptionError::Stale)
        );
    }

    #[test]
    fn every_changed_bit_of_the_description_is_noticed() {
        let good = description();
        let signed = SignedDescription::deserialize(&good).unwrap();
        let (bytes, signature) = signed.decode().unwrap();
        for index in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[index] ^= 1;
            let data = serde_json::to_value(SignedDescription::new(&changed, &signature)).unwrap();
            assert!(check(&data, TO, 1_000_000).is_err(), "bit of byte {index}");
        }
    }
}
