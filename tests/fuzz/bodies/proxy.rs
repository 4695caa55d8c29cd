//! Any bytes as the beginning of a connection: however it is cut into reads, it turns out to be the same,
//! no more than a header is taken from it, and nobody at an impossible address comes of it.

use net_io::opening::{Door, Opened, Opening, OpeningError, Spoken};
use net_io::proxy::{Header, LONGEST_HEADER};

/// The first byte says what is spoken, whether a proxy speaks first, and how the rest is cut into reads.
pub(crate) fn run(bytes: &[u8]) {
    let Some((how, stream)) = bytes.split_first() else {
        return;
    };
    let spoken = match how % 3 {
        0 => Spoken::Plain,
        1 => Spoken::Tls,
        _ => Spoken::Either(|first| first <= 3),
    };
    let is_proxied = how & 0x80 != 0;
    let door = Door { spoken, is_proxied };
    let whole = open(door, stream, usize::MAX);
    let size = usize::from(how & 0x7F) / 3 + 1;
    assert_eq!(whole, open(door, stream, size), "reads of {size} bytes");
    let (Ok(Some(opened)), taken) = whole else {
        return;
    };
    assert_eq!(opened.header.is_some(), is_proxied);
    assert!(taken <= if is_proxied { LONGEST_HEADER } else { 0 });
    if let Some(Header::Proxied { source, .. }) = opened.header {
        let ip = source.ip();
        assert!(source.port() != 0 && !ip.is_unspecified() && !ip.is_multicast());
        assert_eq!(ip, ip.to_canonical());
    }
}

/// What it turns out to be, and how many bytes were taken for that.
fn open(door: Door, stream: &[u8], read: usize) -> (Result<Option<Opened>, OpeningError>, usize) {
    let mut opening = Opening::new(door);
    let mut taken = 0;
    for bytes in stream.chunks(read.min(stream.len().max(1))) {
        let mut input = bytes;
        match opening.read(&mut input) {
            Ok(None) => assert!(input.is_empty(), "what is not understood is taken"),
            // How much of what is refused was taken depends on the cuts.
            Err(error) => return (Err(error), 0),
            opened => return (opened, taken + bytes.len() - input.len()),
        }
        taken += bytes.len();
    }
    (Ok(None), taken)
}
