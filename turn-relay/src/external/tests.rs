//! Against servers of a few lines on loopback that say what a test wants them to.

use std::net::Ipv4Addr;

use stun_wire::attribute::ErrorCode;

use super::*;
use crate::config::Peers;
use ops::config::IpPrefix;

const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 32, 10);
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Long enough for loopback, short enough for servers that are silent on purpose.
const SHORT: Patience = Patience {
    requests: [
        Duration::ZERO,
        Duration::from_millis(50),
        Duration::from_millis(150),
    ],
    end: Duration::from_millis(600),
};

/// Writes the answer to one request, or nothing.
type Say = fn(&[u8], TransactionId) -> Vec<u8>;

fn server(say: Say) -> StunServer {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; MAX_ANSWER];
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            let request = &buffer[..len];
            let transaction = Message::parse(request).unwrap().transaction_id();
            socket.send_to(&say(request, transaction), from).unwrap();
        }
    });
    address.into()
}

fn success(transaction: TransactionId, ip: Ipv4Addr) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = MessageWriter::new(&mut out, Class::Success, Method::BINDING, transaction);
    writer.attribute(&XorMappedAddress(SocketAddr::new(ip.into(), 4000)));
    writer.finish();
    out
}

fn honest(_: &[u8], transaction: TransactionId) -> Vec<u8> {
    success(transaction, OUTSIDE)
}

fn mistaken(_: &[u8], transaction: TransactionId) -> Vec<u8> {
    success(transaction, Ipv4Addr::new(192, 0, 32, 11))
}

/// Echoes the request, which answers nothing.
fn silent(request: &[u8], _: TransactionId) -> Vec<u8> {
    request.to_vec()
}

fn config(servers: Vec<StunServer>) -> Config {
    Config {
        relay_addresses: vec![LOOPBACK],
        external_addresses: ExternalAddresses::Auto(Discovery {
            stun: servers,
            ..Discovery::default()
        }),
        ..Config::default()
    }
}

fn found(config: &Config) -> Result<Vec<(IpAddr, IpAddr)>, String> {
    let ExternalAddresses::Auto(discovery) = &config.external_addresses else {
        panic!("it is asked for")
    };
    discover(config, discovery, SHORT).map_err(|error| error.to_string())
}

fn refusal(servers: Vec<StunServer>) -> String {
    found(&config(servers)).expect_err("a refusal")
}

#[test]
fn two_servers_that_agree_are_believed() {
    let config = config(vec![server(honest), server(honest)]);
    assert_eq!(found(&config), Ok(vec![(LOOPBACK, OUTSIDE.into())]));
}

#[test]
fn servers_that_disagree_are_named_with_what_they_say() {
    let (one, other) = (server(honest), server(mistaken));
    let error = refusal(vec![one.clone(), other.clone()]);
    assert_eq!(
        error,
        format!(
            "external-addresses = \"auto\": 127.0.0.1: the servers disagree; {one} says 192.0.32.10; {other} says 192.0.32.11"
        )
    );
}

#[test]
fn one_answer_is_not_enough() {
    let (one, other) = (server(honest), server(silent));
    let error = refusal(vec![one, other.clone()]);
    let silence = format!("{other} does not answer at {other}");
    assert!(
        error.contains("at least two") && error.contains(&silence),
        "{error}"
    );
}

#[test]
fn an_answer_to_another_transaction_is_none() {
    let forged: Say = |_, mut transaction| {
        transaction.0[11] ^= 1;
        success(transaction, OUTSIDE)
    };
    assert!(refusal(vec![server(honest), server(forged)]).contains("does not answer"));
}

#[test]
fn an_answer_from_another_source_is_none() {
    let question = |to| Question {
        to,
        transaction: TransactionId([7; 12]),
        answer: None,
    };
    let answer = success(TransactionId([7; 12]), OUTSIDE);
    let asked = SocketAddr::new(LOOPBACK, 3478);
    let other = SocketAddr::new(asked.ip(), asked.port() ^ 1);
    assert_eq!(
        [asked, other].map(|from| answer_to(&question(asked), from, &answer)),
        [Some(Answer::Address(OUTSIDE.into())), None]
    );
}

#[test]
fn an_error_is_told_with_its_code() {
    let refuses: Say = |_, transaction| {
        let mut out = Vec::new();
        let mut writer = MessageWriter::new(&mut out, Class::Error, Method::BINDING, transaction);
        writer.attribute(&ErrorCode {
            code: 500,
            reason: "",
        });
        writer.finish();
        out
    };
    let error = refusal(vec![server(honest), server(refuses)]);
    assert!(error.contains("refuses with error 500"), "{error}");
}

#[test]
fn private_and_special_answers_are_refused_unless_listed() {
    let private: Say = |_, transaction| success(transaction, Ipv4Addr::new(10, 0, 0, 7));
    let mut config = config(vec![server(private), server(private)]);
    let error = found(&config).expect_err("a private address");
    assert!(
        error.contains("10.0.0.7 is no address that players"),
        "{error}"
    );

    config.peers = Peers {
        allow: vec![IpPrefix::new(Ipv4Addr::new(10, 0, 0, 0).into(), 8).unwrap()],
        ..Peers::default()
    };
    let outside = IpAddr::from([10, 0, 0, 7]);
    assert_eq!(found(&config), Ok(vec![(LOOPBACK, outside)]));
}

#[test]
fn what_is_seen_as_itself_needs_no_mapping() {
    let mirror: Say = |_, transaction| success(transaction, Ipv4Addr::LOCALHOST);
    let mut config = config(vec![server(mirror), server(mirror)]);
    // Loopback is no public address either.
    assert!(found(&config).is_err());
    config.peers.allow_loopback_for_tests = true;
    assert_eq!(found(&config), Ok(Vec::new()));
}

#[test]
fn a_name_without_address_is_told() {
    let nowhere = StunServer::from(SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 3478)));
    let error = refusal(vec![server(honest), nowhere]);
    assert!(
        error.contains("[::1]:3478 has no address of this family"),
        "{error}"
    );
}

#[test]
fn one_server_under_two_names_is_one_server() {
    let one = server(honest);
    let error = refusal(vec![one.clone(), one.clone()]);
    assert!(
        error.contains(&format!("{one} is one server under two names")),
        "{error}"
    );
}
