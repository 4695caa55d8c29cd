//! Homes with plain datagrams instead of the SDK: what passes, what does not.

use std::future::poll_fn;
use std::time::Duration;

use super::*;

/// Long enough for a datagram on a loaded machine.
const ARRIVES: Duration = Duration::from_secs(10);
/// Nothing arrives: loopback is synchronous, so what is not there at once never comes.
const STAYS_AWAY: Duration = Duration::from_millis(100);

fn home(kind: Kind, number: u8) -> Home {
    Home::new(kind, Line::of_home(number), [number; 32])
}

/// A home on the one address that every system has.
fn home_sharing(kind: Kind, number: u8) -> Home {
    let line = Line::new(number, Ipv4Addr::LOCALHOST.into());
    Home::new(kind, line, [number; 32])
}

fn socket(home: &Home) -> Box<dyn DatagramSocket> {
    home.bind_udp(home.line.inner).expect("the inner address")
}

async fn receive(socket: &dyn DatagramSocket, patience: Duration) -> Option<(Vec<u8>, SocketAddr)> {
    let mut bytes = [0; 64];
    let arrival = poll_fn(|context| {
        let mut buffer = ReadBuf::new(&mut bytes);
        let Poll::Ready(from) = socket.poll_recv_from(context, &mut buffer) else {
            return Poll::Pending;
        };
        Poll::Ready((buffer.filled().to_vec(), from.expect("no error")))
    });
    tokio::time::timeout(patience, arrival).await.ok()
}

/// Answers every datagram with the address it came from.
async fn reflector() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("loopback");
    let address = socket.local_addr().expect("bound");
    tokio::spawn(async move {
        let mut bytes = [0; 64];
        while let Ok((_, from)) = socket.recv_from(&mut bytes).await {
            let _ = socket.send_to(from.to_string().as_bytes(), from).await;
        }
    });
    address
}

async fn reflexive(socket: &dyn DatagramSocket, reflector: SocketAddr) -> SocketAddr {
    socket.try_send_to(b"?", reflector).expect("sent");
    let (seen, from) = receive(socket, ARRIVES).await.expect("an answer");
    assert_eq!(from, reflector);
    String::from_utf8(seen)
        .expect("text")
        .parse()
        .expect("an address")
}

/// Whether checks to the reflexive addresses, sent by both, bring a datagram through; then the answer must come back.
async fn punch(a: &dyn DatagramSocket, b: &dyn DatagramSocket) -> bool {
    let server = reflector().await;
    let (seen_a, seen_b) = (reflexive(a, server).await, reflexive(b, server).await);
    for (sender, target, receiver) in [(a, seen_b, b), (b, seen_a, a), (a, seen_b, b)] {
        sender.try_send_to(b"check", target).expect("sent");
        if let Some((bytes, from)) = receive(receiver, STAYS_AWAY).await {
            assert_eq!(bytes, b"check");
            receiver.try_send_to(b"answer", from).expect("sent");
            let (answer, _) = receive(sender, ARRIVES)
                .await
                .expect("the way back is open");
            assert_eq!(answer, b"answer");
            return true;
        }
    }
    false
}

#[tokio::test]
async fn pairs_punch_as_their_kinds_allow() {
    for (number, (a, b)) in [
        (Kind::PortRestricted, Kind::PortRestricted),
        (Kind::FullCone, Kind::SymmetricRandom),
        (Kind::SymmetricRandom, Kind::SymmetricRandom),
        (Kind::PortRestricted, Kind::SymmetricRandom),
    ]
    .into_iter()
    .enumerate()
    {
        let number = u8::try_from(number).expect("few") * 2 + 40;
        let expected = a.behaviour().punches(&b.behaviour());
        let (one, other) = (socket(&home(a, number)), socket(&home(b, number + 1)));
        assert_eq!(punch(&*one, &*other).await, expected, "{a} x {b}");
        let shared = (home_sharing(a, number), home_sharing(b, number + 1));
        let (one, other) = (socket(&shared.0), socket(&shared.1));
        assert_eq!(
            punch(&*one, &*other).await,
            expected,
            "{a} x {b} on one address"
        );
    }
}

#[tokio::test]
async fn host_has_only_its_private_address() {
    let home = home(Kind::FullCone, 50);
    let inner = home.line.inner;
    assert_eq!(home.addresses().expect("listed"), [inner]);
    assert!(inner.to_string().starts_with("192.168.1."));
    assert!(home.bind_udp(home.line.outer).is_err());
    let (first, second) = (socket(&home), socket(&home));
    assert_ne!(first.local_addr(), second.local_addr());
    first
        .try_send_to(b"lost", second.local_addr())
        .expect("a datagram without a route is lost, not an error");
    assert_eq!(receive(&*second, STAYS_AWAY).await, None);
}

#[tokio::test]
async fn blocked_udp_loses_datagrams_and_lets_tcp_pass() {
    let home = home(Kind::UdpBlocked, 51);
    let inside = socket(&home);
    inside
        .try_send_to(b"?", reflector().await)
        .expect("dropped without a word");
    assert_eq!(receive(&*inside, STAYS_AWAY).await, None);

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("loopback");
    let to = listener.local_addr().expect("bound");
    let (_stream, local) = home.connect_tcp(to).await.expect("connected");
    let (_accepted, from) = listener.accept().await.expect("accepted");
    assert_eq!((local, local.ip()), (from, home.line.outer));
}

#[tokio::test]
async fn cut_ends_the_path_and_spares_the_server() {
    for shared in [false, true] {
        let make = if shared { home_sharing } else { home };
        let (home_a, home_b) = (
            make(Kind::PortRestricted, 52),
            make(Kind::PortRestricted, 53),
        );
        let (a, b) = (socket(&home_a), socket(&home_b));
        assert!(punch(&*a, &*b).await);
        let server = reflector().await;
        let seen_b = reflexive(&*b, server).await;
        home_a.cut(seen_b);
        a.try_send_to(b"lost", seen_b)
            .expect("dropped without a word");
        assert_eq!(receive(&*b, STAYS_AWAY).await, None);
        b.try_send_to(b"lost", reflexive(&*a, server).await)
            .expect("sent");
        assert_eq!(receive(&*a, STAYS_AWAY).await, None);
    }
}
