//! STUN over TCP: what is answered, and who is cut off.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};

use ops::config::Scheme;
use stun_wire::{AttributeType, Class, Message, Method};

use crate::client::*;

#[test]
fn both_families_are_told_their_address() {
    for listen in ["tcp://127.0.0.1:0", "tcp://[::1]:0"] {
        let fixture = Fixture::start(&format!("listen = ['{listen}']"));
        let mut stream = fixture.tcp();
        let reply = exchange_tcp(&mut stream, &request());
        assert_eq!(mapped(&reply), stream.local_addr().unwrap());
    }
}

#[test]
fn requests_may_come_in_pieces_and_in_a_row() {
    let fixture = Fixture::start("listen = ['tcp://127.0.0.1:0']");
    let mut stream = fixture.tcp();
    stream.set_nodelay(true).unwrap();
    for byte in request() {
        stream.write_all(&[byte]).unwrap();
    }
    mapped(&read_message(&mut stream));
    // An indication and an unwelcome method among them are passed over, not fatal.
    let mut row = request().repeat(20);
    row.extend(message(Class::Indication, Method::BINDING, |_| {}));
    row.extend(message(Class::Request, Method::ALLOCATE, |_| {}));
    row.extend(request().repeat(20));
    stream.write_all(&row).unwrap();
    for _ in 0..40 {
        mapped(&read_message(&mut stream));
    }
}

#[test]
fn a_client_that_has_finished_still_gets_its_answers() {
    let fixture = Fixture::start("listen = ['tcp://127.0.0.1:0']");
    let mut stream = fixture.tcp();
    stream.write_all(&request()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    mapped(&read_message(&mut stream));
    assert_closed(&mut stream);
    fixture.wait_for(
        r#"rallypoint_stun_connections_closed_total{reason="client"}"#,
        1.0,
    );
    assert_eq!(fixture.metric("rallypoint_stun_connections{"), 0.0);
}

#[test]
fn what_is_no_stun_is_closed_and_counted() {
    let fixture = Fixture::start("listen = ['tcp://127.0.0.1:0']");
    let oversized = request_with(|writer| {
        writer.raw(AttributeType(0x8022), &[b'x'; 3000]);
    });
    let mut bad_fingerprint = request_with(|writer| {
        writer.fingerprint();
    });
    bad_fingerprint[27] ^= 1;
    let streams: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\n\r\n     ",
        &[0x40, 1, 0, 4, 1, 2, 3, 4],
        &oversized,
        &bad_fingerprint,
    ];
    for bytes in streams {
        let mut stream = fixture.tcp();
        stream.write_all(bytes).unwrap();
        assert_closed(&mut stream);
    }
    fixture.wait_for(
        r#"rallypoint_stun_connections_closed_total{reason="malformed"}"#,
        4.0,
    );
    assert_eq!(fixture.metric("rallypoint_stun_responses_total"), 0.0);
}

#[test]
fn an_address_has_its_share_of_connections_and_others_theirs() {
    let fixture = Fixture::start(
        "listen = ['tcp://0.0.0.0:0']\n[limits]\nconnections-per-address = 2\nconnections = 3",
    );
    let port = fixture.address(Scheme::Tcp).port();
    let connect = |host| connect_from([127, 0, 0, host], SocketAddr::from(([127, 0, 0, 1], port)));
    let mut first = connect(1);
    let mut second = connect(1);
    exchange_tcp(&mut first, &request());
    exchange_tcp(&mut second, &request());
    assert_closed(&mut connect(1));
    let mut other = connect(5);
    exchange_tcp(&mut other, &request());
    assert_closed(&mut connect(6));
    assert_eq!(fixture.metric("rallypoint_stun_connections{"), 3.0);
    drop(first);
    fixture.wait_for(
        r#"rallypoint_stun_connections_closed_total{reason="client"}"#,
        1.0,
    );
    exchange_tcp(&mut connect(1), &request());
    let refused = |reason| {
        fixture.metric(&format!(
            "rallypoint_stun_connections_closed_total{{reason=\"{reason}\"}}"
        ))
    };
    assert_eq!(
        (refused("address_limit"), refused("server_limit")),
        (1.0, 1.0)
    );
}

#[test]
fn silent_and_idle_connections_are_cut() {
    let text = "listen = ['tcp://127.0.0.1:0']\n[limits]\nfirst-message = '200ms'\nidle = '200ms'";
    let fixture = Fixture::start(text);
    let mut silent = fixture.tcp();
    let mut dripping = fixture.tcp();
    dripping.write_all(&request()[..10]).unwrap();
    let mut idle = fixture.tcp();
    exchange_tcp(&mut idle, &request());
    for stream in [&mut silent, &mut dripping, &mut idle] {
        assert_closed(stream);
    }
    fixture.wait_for(
        r#"rallypoint_stun_connections_closed_total{reason="silent"}"#,
        2.0,
    );
    fixture.wait_for(
        r#"rallypoint_stun_connections_closed_total{reason="idle"}"#,
        1.0,
    );
}

#[test]
fn who_does_not_read_is_not_read_and_cut() {
    let text = "listen = ['tcp://127.0.0.1:0']\n[limits]\nidle = '500ms'\n\
                answers-per-second = 1000000\nburst = 1000000\nanswers-per-second-total = 1000000";
    let fixture = Fixture::start(text);
    let mut deaf = fixture.tcp();
    deaf.set_write_timeout(Some(PATIENCE)).unwrap();
    let flood = request().repeat(1000);
    let mut written = 0_usize;
    // Ends when the server, whose answers nobody takes, has cut it off.
    while let Ok(count) = deaf.write(&flood) {
        written += count;
        assert!(written < 1 << 30, "the server swallows without end");
    }
    fixture.wait_for(
        r#"rallypoint_stun_connections_closed_total{reason="slow"}"#,
        1.0,
    );
    let mut other = fixture.tcp();
    exchange_tcp(&mut other, &request());
}

#[test]
fn a_shutdown_closes_what_is_open() {
    let fixture = Fixture::start("listen = ['tcp://127.0.0.1:0']");
    let mut stream = fixture.tcp();
    let reply = exchange_tcp(&mut stream, &request());
    assert_eq!(Message::parse(&reply).unwrap().class(), Class::Success);
    fixture.server.shutdown();
    let mut rest = Vec::new();
    assert_eq!(stream.read_to_end(&mut rest).unwrap(), 0);
    let text = fixture.registry.render();
    assert!(
        text.contains("rallypoint_stun_connections{transport=\"tcp\"} 0"),
        "{text}"
    );
    assert!(
        text.contains("closed_total{reason=\"shutdown\"} 1"),
        "{text}"
    );
}
