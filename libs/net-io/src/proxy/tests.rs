use proptest::prelude::*;

use super::*;

fn read(bytes: &[u8]) -> Result<Option<Header>, ProxyError> {
    HeaderReader::default().read(&mut &bytes[..])
}

fn header(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [&SIGNATURE[..], &[command, family], &length, body].concat()
}

/// 192.0.2.1:5000 to 198.51.100.1:443.
const V4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 1, 0x13, 0x88, 1, 0xBB];

fn proxied(source: &str, destination: &str) -> Header {
    Header::Proxied {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
    }
}

#[test]
fn both_families_are_read() {
    let expected = proxied("192.0.2.1:5000", "198.51.100.1:443");
    assert_eq!(read(&header(0x21, 0x11, &V4)), Ok(Some(expected)));
    let (source, destination) = ("[2001:db8::1]:5000", "[2001:db8::2]:443");
    let bytes = header_for(source.parse().unwrap(), destination.parse().unwrap());
    assert_eq!(read(&bytes), Ok(Some(proxied(source, destination))));
}

#[test]
fn tlvs_are_passed_over_and_what_follows_stays() {
    let body = [&V4[..], &[0x04, 0, 3, 9, 9, 9], &[0x20, 0, 1, 0]].concat();
    let stream = [&header(0x21, 0x11, &body)[..], b"rest"].concat();
    let mut input = &stream[..];
    let expected = proxied("192.0.2.1:5000", "198.51.100.1:443");
    assert_eq!(HeaderReader::default().read(&mut input), Ok(Some(expected)));
    assert_eq!(input, b"rest");
}

#[test]
fn a_mapped_client_is_its_ipv4_self() {
    let bytes = header_for(
        "[::ffff:192.0.2.1]:5000".parse().unwrap(),
        "[2001:db8::2]:443".parse().unwrap(),
    );
    let expected = proxied("192.0.2.1:5000", "[2001:db8::2]:443");
    assert_eq!(read(&bytes), Ok(Some(expected)));
}

#[test]
fn the_proxy_may_speak_for_itself() {
    for (family, body) in [(0, &[][..]), (0x11, &V4[..]), (0x31, &[7; 216][..])] {
        assert_eq!(read(&header(0x20, family, body)), Ok(Some(Header::Local)));
    }
}

#[test]
fn what_is_no_header_is_refused_at_its_first_wrong_byte() {
    let bad_source = |at: usize, with: &[u8]| {
        let mut body = V4;
        body[at..at + with.len()].copy_from_slice(with);
        header(0x21, 0x11, &body)
    };
    let cases: [(Vec<u8>, ProxyError); 14] = [
        (b"\0\x01".to_vec(), ProxyError::Missing),
        (vec![0x16], ProxyError::Missing),
        (b"\r\n\r\n\0\r\nQUIT\r".to_vec(), ProxyError::Missing),
        (b"PROXY TCP4 192.0.2.1 ".to_vec(), ProxyError::Version1),
        (b"PROXZ".to_vec(), ProxyError::Missing),
        (header(0x11, 0x11, &V4), ProxyError::Malformed),
        (header(0x22, 0x11, &V4), ProxyError::Malformed),
        (header(0x21, 0x11, &V4[..11]), ProxyError::Malformed),
        (header(0x21, 0x21, &V4), ProxyError::Malformed),
        (header(0x21, 0x00, &[]), ProxyError::Unsupported),
        (header(0x21, 0x12, &V4), ProxyError::Unsupported),
        (header(0x21, 0x31, &[0; 216]), ProxyError::Unsupported),
        (bad_source(0, &[0; 4]), ProxyError::BadSource),
        (bad_source(8, &[0, 0]), ProxyError::BadSource),
    ];
    for (bytes, expected) in cases {
        assert_eq!(read(&bytes), Err(expected), "{bytes:02x?}");
    }
    assert_eq!(read(&bad_source(0, &[224])), Err(ProxyError::BadSource));
}

#[test]
fn a_header_is_bounded_by_name() {
    let body = |length: usize| [&V4[..], &vec![0; length - V4.len()]].concat();
    let longest = header(0x21, 0x11, &body(LONGEST_HEADER - FIXED));
    assert!(matches!(read(&longest), Ok(Some(Header::Proxied { .. }))));
    let longer = header(0x21, 0x11, &body(LONGEST_HEADER - FIXED + 1));
    assert_eq!(read(&longer[..FIXED]), Err(ProxyError::TooLong));
    let endless = header(0x20, 0, &vec![0; usize::from(u16::MAX)]);
    assert_eq!(read(&endless[..FIXED]), Err(ProxyError::TooLong));
}

fn reads_the_same_in_pieces(bytes: &[u8], cuts: &[usize]) -> Result<(), TestCaseError> {
    let mut whole = bytes;
    let expected = HeaderReader::default().read(&mut whole);
    let mut reader = HeaderReader::default();
    let (mut outcome, mut taken) = (Ok(None), 0);
    let mut cuts = cuts
        .iter()
        .map(|cut| cut % 9 + 1)
        .chain(std::iter::repeat(64));
    while taken < bytes.len() && outcome == Ok(None) {
        let until = bytes.len().min(taken + cuts.next().unwrap());
        let mut input = &bytes[taken..until];
        outcome = reader.read(&mut input);
        taken = until - input.len();
    }
    prop_assert_eq!(outcome, expected);
    if matches!(outcome, Ok(Some(_))) {
        prop_assert_eq!(&bytes[taken..], whole);
    }
    Ok(())
}

fn address() -> impl Strategy<Value = SocketAddr> {
    let ip = prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from)
    ];
    (ip, any::<u16>()).prop_map(SocketAddr::from)
}

proptest! {
    #[test]
    fn a_written_header_is_read_back(source in address(), destination in address(), rest in any::<Vec<u8>>()) {
        let bytes = [header_for(source, destination), rest.clone()].concat();
        let mut input = &bytes[..];
        match HeaderReader::default().read(&mut input) {
            Ok(header) => {
                let canonical = |of: SocketAddr| SocketAddr::new(of.ip().to_canonical(), of.port());
                let expected = Header::Proxied { source: canonical(source), destination: canonical(destination) };
                prop_assert_eq!(header, Some(expected));
                prop_assert_eq!(input, &rest[..]);
            }
            Err(error) => {
                prop_assert_eq!(error, ProxyError::BadSource);
                let ip = source.ip().to_canonical();
                prop_assert!(source.port() == 0 || ip.is_unspecified() || ip.is_multicast());
            }
        }
    }

    #[test]
    fn cuts_change_nothing(command in 0x20..0x22_u8, family in prop_oneof![Just(0x11_u8), Just(0x21), any::<u8>()],
        body in prop::collection::vec(any::<u8>(), 0..120), rest in any::<[u8; 5]>(), cuts in any::<Vec<usize>>()) {
        let bytes = [header(command, family, &body), rest.to_vec()].concat();
        reads_the_same_in_pieces(&bytes, &cuts)?;
    }

    #[test]
    fn garbage_behind_the_signature_never_panics(tail in any::<Vec<u8>>(), keep in 0..=12_usize, cuts in any::<Vec<usize>>()) {
        let bytes = [&SIGNATURE[..keep], &tail].concat();
        reads_the_same_in_pieces(&bytes, &cuts)?;
    }
}
