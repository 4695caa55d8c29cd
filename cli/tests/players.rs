//! `up` and two `play` processes on loopback: direct, over the relay, with files, and what goes wrong.

#[path = "support/processes.rs"]
mod processes;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use processes::{Process, Services, run, two_players, words};

#[test]
fn two_players_connect_directly_and_complete() {
    let services = Services::start();
    let args = ["--count", "20", "--hz", "50"];
    for player in two_players(&services, "direct-room", &args, &args) {
        player.assert_success();
        assert!(player.event("gathered")["candidates"].as_u64() > Some(0));
        let connected = player.event("connected");
        assert_eq!(connected["path"], "direct", "{player:#?}");
        assert!(connected["total_ms"].as_f64() > Some(0.0));
        assert!(connected["local"].is_string() && connected["remote"].is_string());
        let done = player.event("done");
        assert_eq!((&done["sent"], &done["expected"]), (&20.into(), &20.into()));
        assert_eq!(done["received"], 20, "loopback loses nothing: {player:#?}");
        assert!(done["rtt_ms"].as_f64() > Some(0.0));
    }
}

#[test]
fn relay_only_players_use_the_relay_and_tell_no_other_address() {
    let services = Services::start();
    let args = ["--count", "20", "--hz", "50", "--relay-only"];
    for player in two_players(&services, "relay-room", &args, &args) {
        player.assert_success();
        assert_eq!(player.event("connected")["path"], "relay", "{player:#?}");
        assert_eq!(player.event("done")["path"], "relay");
        let candidates = player
            .events
            .iter()
            .filter(|event| event["event"] == "candidate");
        for candidate in candidates {
            assert_eq!(candidate["kind"], "relayed", "{player:#?}");
        }
    }
}

#[test]
fn file_of_some_megabytes_arrives_as_it_was_directly_and_over_the_relay() {
    let services = Services::start();
    let folder = tempfile::tempdir().expect("a folder");
    let input = folder.path().join("input");
    let bytes: Vec<u8> = (0..3_000_017u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24).to_le_bytes()[0])
        .collect();
    fs::write(&input, &bytes).expect("written");
    for (room, more) in [("file-direct", None), ("file-relay", Some("--relay-only"))] {
        let output = folder.path().join(room);
        let (input, output) = (
            input.to_str().expect("text"),
            output.to_str().expect("text"),
        );
        let mut a = vec!["--count", "5", "--input", input];
        let mut b = vec!["--count", "5", "--output", output];
        a.extend(more);
        b.extend(more);
        let [a, b] = two_players(&services, room, &a, &b);
        let sent = a.assert_success().event("done")["file_sent"].clone();
        let received = b.assert_success().event("done")["file_received"].clone();
        assert_eq!(sent, received);
        assert_eq!(sent["bytes"], 3_000_017);
        assert!(
            fs::read(output).expect("there") == bytes,
            "{room}: the file differs"
        );
    }
    assert_eq!(
        fs::read_dir(folder.path()).expect("listed").count(),
        3,
        "no rest is left"
    );
}

#[test]
fn output_without_an_input_is_refused_in_words_and_leaves_nothing() {
    let services = Services::start();
    let folder = tempfile::tempdir().expect("a folder");
    let output = folder.path().join("output");
    let output = output.to_str().expect("text");
    let [a, b] = two_players(&services, "no-file", &["--output", output], &[]);
    assert!(!a.status.success());
    assert!(a.words.contains("sends no file"), "{a:#?}");
    assert!(
        !b.status.success(),
        "its partner left in the middle: {b:#?}"
    );
    assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 0);
}

#[test]
fn signaling_that_is_not_there_is_named() {
    let port = TcpListener::bind("127.0.0.1:0")
        .and_then(|free| free.local_addr())
        .expect("loopback")
        .port();
    let url = format!("ws://127.0.0.1:{port}/v1/ws");
    let output = run(&[
        "play",
        "--signal",
        &url,
        "--room",
        "jump-rocket",
        "--timeout",
        "20",
    ]);
    assert_eq!(output.status.code(), Some(1));
    assert!(words(&output).contains(&url), "{}", words(&output));
    assert!(
        words(&output).to_lowercase().contains("refused"),
        "{}",
        words(&output)
    );
}

#[test]
fn unreadable_url_missing_input_and_bad_passphrase_are_named() {
    let output = run(&[
        "play",
        "--signal",
        "http://127.0.0.1",
        "--room",
        "jump-rocket",
    ]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        words(&output).contains("http://127.0.0.1"),
        "{}",
        words(&output)
    );

    let output = run(&[
        "play",
        "--signal",
        "ws://127.0.0.1:1/",
        "--room",
        "a",
        "--input",
        "/no/such/file",
    ]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        words(&output).contains("/no/such/file"),
        "{}",
        words(&output)
    );

    let services = Services::start();
    let output = run(&[
        "play",
        "--signal",
        services.signal(),
        "--room",
        "Not A Passphrase!",
    ]);
    assert_eq!(output.status.code(), Some(1));
    assert!(words(&output).contains("passphrase"), "{}", words(&output));
}

#[test]
fn third_player_and_second_of_a_name_are_refused_and_the_others_play_on() {
    let services = Services::start();
    let common = [
        "play",
        "--json",
        "--signal",
        services.signal(),
        "--room",
        "full-room",
        "--timeout",
        "60",
    ];
    let player = |name: &'static str, hold: &'static str| {
        let mut args = common.to_vec();
        args.extend(["--name", name, "--hold", hold]);
        Process::start(&args)
    };
    let anna = player("anna", "4");
    while anna.next().is_some_and(|event| event["event"] != "joined") {}
    let twin = player("anna", "0").finish();
    assert_eq!(twin.status.code(), Some(1));
    assert!(twin.words.contains("conflict"), "{twin:#?}");

    let ben = player("ben", "4");
    while ben.next().is_some_and(|event| event["event"] != "joined") {}
    let carl = player("carl", "0").finish();
    assert_eq!(carl.status.code(), Some(1));
    assert!(carl.words.contains("full"), "{carl:#?}");

    anna.finish().assert_success();
    ben.finish().assert_success();
}

#[cfg(unix)]
#[test]
fn up_serves_page_and_metrics_and_ends_cleanly() {
    let services = Services::start();
    let page = get(services.ready["health"].as_str().expect("a URL"));
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    for (service, metric) in [
        ("stun", "rallypoint_stun_"),
        ("turn", "rallypoint_turn_"),
        ("signal", "rallypoint_signal_"),
    ] {
        let metrics = get(services.ready["metrics"][service].as_str().expect("a URL"));
        assert!(metrics.contains(metric), "{service}: {metrics}");
        assert!(metrics.contains("rallypoint_ready 1"), "{service}");
    }
    let ended = services.end();
    ended.assert_success();
}

#[test]
fn port_in_use_is_named_with_its_service() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let port = taken.local_addr().expect("bound").port().to_string();
    let free = [
        "up",
        "--stun-port",
        "0",
        "--turn-port",
        "0",
        "--stun-admin-port",
        "0",
        "--turn-admin-port",
        "0",
    ];
    for (flag, other, service) in [
        ("--signal-port", "--signal-admin-port", "signaling server"),
        (
            "--signal-admin-port",
            "--signal-port",
            "metrics of the signaling server",
        ),
    ] {
        let mut args = free.to_vec();
        args.extend([flag, &port, other, "0"]);
        let output = run(&args);
        assert_eq!(output.status.code(), Some(1));
        let words = words(&output);
        assert!(words.contains(service) && words.contains(&port), "{words}");
    }
}

#[test]
fn up_refuses_addresses_that_others_reach() {
    let output = run(&["up", "--bind", "0.0.0.0"]);
    assert_eq!(output.status.code(), Some(1));
    let output = run(&["up", "--bind", "192.0.2.1"]);
    assert!(words(&output).contains("--expose"), "{}", words(&output));
}

/// A plain GET; answers head and body.
fn get(url: &str) -> String {
    let rest = url.strip_prefix("http://").expect("plain http");
    let (host, path) = rest.split_once('/').expect("a path");
    let mut stream = TcpStream::connect(host).expect("connected");
    write!(
        stream,
        "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )
    .expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("text");
    answer
}
