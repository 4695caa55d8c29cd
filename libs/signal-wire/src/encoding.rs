//! Text forms of bytes: base64url without padding, and identifiers as 26 Crockford base32 digits.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

const CROCKFORD: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Digits that 128 bits take at 5 bits each.
const DIGITS: u32 = 26;

/// base64url without padding (RFC 4648 §5).
pub(crate) fn to_base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The bytes of base64url text; padding, line breaks and stray bits are refused.
pub(crate) fn from_base64url(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// 128 bits as 26 digits, most significant first (the text form of a ULID).
pub(crate) fn to_crockford(value: u128) -> String {
    (0..DIGITS)
        .rev()
        .map(|place| {
            let digit = (value >> (place * 5)) & 31;
            let digit = usize::try_from(digit).expect("five bits fit a usize");
            char::from(
                CROCKFORD
                    .get(digit)
                    .copied()
                    .expect("five bits index 32 digits"),
            )
        })
        .collect()
}

/// The 128 bits of 26 digits; lower case is read too, anything else refused.
pub(crate) fn from_crockford(text: &str) -> Option<u128> {
    if text.len() != usize::try_from(DIGITS).ok()? {
        return None;
    }
    text.bytes().try_fold(0_u128, |value, byte| {
        let digit = CROCKFORD
            .iter()
            .position(|known| *known == byte.to_ascii_uppercase())?;
        // 26 digits hold 130 bits: the first one may be at most 7.
        let shifted = value.checked_mul(32)?;
        Some(shifted | u128::try_from(digit).ok()?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_first_digit_above_seven_does_not_fit_128_bits() {
        assert_eq!(
            from_crockford("7ZZZZZZZZZZZZZZZZZZZZZZZZZ"),
            Some(u128::MAX)
        );
        assert_eq!(from_crockford("8ZZZZZZZZZZZZZZZZZZZZZZZZZ"), None);
        assert_eq!(from_crockford("0000000000000000000000000U"), None);
        assert_eq!(from_crockford("0"), None);
    }

    proptest! {
        #[test]
        fn crockford_round_trips(value: u128) {
            prop_assert_eq!(from_crockford(&to_crockford(value)), Some(value));
        }

        #[test]
        fn any_text_is_refused_or_canonical(text in ".{0,30}") {
            if let Some(value) = from_crockford(&text) {
                prop_assert_eq!(to_crockford(value), text.to_ascii_uppercase());
            }
        }
    }
}
