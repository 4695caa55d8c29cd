//! The messages of the RFCs, from `tests/data`.

/// Name and bytes of each.
pub(crate) fn all() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("rfc5769-2.1-request", request()),
        ("rfc5769-2.2-ipv4-response", ipv4_response()),
        ("rfc5769-2.3-ipv6-response", ipv6_response()),
        ("rfc5769-2.4-long-term", long_term()),
        ("rfc8489-b.1-sha256", sha256()),
    ]
}

pub(crate) fn request() -> Vec<u8> {
    bytes(include_str!("../data/rfc5769-2.1-request.hex"))
}

pub(crate) fn ipv4_response() -> Vec<u8> {
    bytes(include_str!("../data/rfc5769-2.2-ipv4-response.hex"))
}

pub(crate) fn ipv6_response() -> Vec<u8> {
    bytes(include_str!("../data/rfc5769-2.3-ipv6-response.hex"))
}

pub(crate) fn long_term() -> Vec<u8> {
    bytes(include_str!("../data/rfc5769-2.4-long-term.hex"))
}

pub(crate) fn sha256() -> Vec<u8> {
    bytes(include_str!("../data/rfc8489-b.1-sha256.hex"))
}

/// Reads hexadecimal with comments from "#" to the end of the line.
fn bytes(text: &str) -> Vec<u8> {
    text.lines()
        .flat_map(|line| {
            line.split('#')
                .next()
                .unwrap_or_default()
                .split_whitespace()
        })
        .map(|byte| u8::from_str_radix(byte, 16).expect("a byte in hexadecimal"))
        .collect()
}
