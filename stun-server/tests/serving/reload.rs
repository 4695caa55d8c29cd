//! A new configuration while the server answers: in force everywhere, or refused whole.

use std::net::UdpSocket;

use ops::config::Scheme;
use stun_server::{Config, Reloaded};

use crate::client::*;

const LISTEN: &str = "listen = ['udp://127.0.0.1:0', 'tcp://127.0.0.1:0']\nthreads = 2\n";
const SUCCESSFUL: &str = "rallypoint_config_last_reload_successful";

impl Fixture {
    fn reload(&mut self, more: &str) -> Reloaded {
        let config = Config::from_toml(&format!("{LISTEN}{more}")).unwrap();
        self.server.reload(config).unwrap()
    }
}

#[test]
fn new_rates_are_in_force_on_every_thread_and_connection() {
    let mut fixture = Fixture::start(LISTEN);
    let (server, mut running) = (fixture.udp(), fixture.tcp());
    mapped(&exchange_tcp(&mut running, &request()));
    let reloaded = fixture.reload("[limits]\nanswers-per-second = 1\nburst = 1\n");
    assert_eq!(reloaded.changed, ["limits"]);
    assert!(reloaded.need_restart.is_empty());
    let limited = r#"rallypoint_rate_limited_total{limiter="source"}"#;
    let sockets: Vec<UdpSocket> = (0..8).map(|_| socket_for(server)).collect();
    fixture.until(limited, || {
        for socket in &sockets {
            socket.send_to(&request(), server).unwrap();
        }
    });
    // An unlimited source again, on the connection of before too.
    fixture.reload("[limits]\nanswers-per-second = 1\nburst = 1\nexempt = ['127.0.0.0/8']\n");
    let after = fixture.metric(limited);
    let socket = socket_for(server);
    for _ in 0..20 {
        mapped(&exchange(&socket, server, &request()).0);
        mapped(&exchange_tcp(&mut running, &request()));
    }
    // What was on its way at the change aside.
    assert!(fixture.metric(limited) <= after + 16.0);
}

#[test]
fn a_switched_protocol_reaches_the_sockets_own_filter() {
    let mut fixture = Fixture::start(LISTEN);
    let server = fixture.udp();
    // RFC 3489 had no cookie, so the system kept such a request out.
    let mut classic = request();
    classic[4..8].copy_from_slice(&[1, 2, 3, 4]);
    let socket = socket_for(server);
    socket.set_read_timeout(Some(SILENCE)).unwrap();
    socket.send_to(&classic, server).unwrap();
    assert!(socket.recv(&mut [0; 100]).is_err());

    let reloaded = fixture.reload("[protocol]\nrfc3489 = true\n");
    assert_eq!(reloaded.changed, ["protocol"]);
    let answered = "rallypoint_stun_responses_total";
    fixture.until_above(answered, fixture.metric(answered), || {
        socket.send_to(&classic, server).unwrap();
    });
}

#[test]
fn what_sockets_and_threads_are_made_from_waits_for_a_restart() {
    let mut fixture = Fixture::start(LISTEN);
    let server = fixture.udp();
    let elsewhere = "listen = ['udp://127.0.0.1:9']\nthreads = 3\nreceive-buffer = '64KiB'\n\
                     [admin]\nlisten = 'off'\n[log]\nformat = 'json'\nlevel = 'warn'\n";
    let reloaded = fixture
        .server
        .reload(Config::from_toml(elsewhere).unwrap())
        .unwrap();
    assert_eq!(reloaded.changed, ["log.level"]);
    assert_eq!(
        reloaded.need_restart,
        [
            "listen",
            "threads",
            "receive-buffer",
            "admin.listen",
            "log.format"
        ]
    );
    assert_eq!(fixture.address(Scheme::Udp), server);
    mapped(&exchange(&socket_for(server), server, &request()).0);
}

#[test]
fn a_faulty_file_changes_nothing_and_the_next_right_one_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stun.toml");
    let mut fixture = Fixture::start(LISTEN);
    assert_eq!(fixture.metric(SUCCESSFUL), 1.0);
    std::fs::write(&path, "[limits]\nburst = 0\nanswers = 1\n").unwrap();
    let refused = fixture.server.reload_file(&path).unwrap_err().to_string();
    for key in ["limits.burst", "limits.answers"] {
        assert!(refused.contains(key), "{refused}");
    }
    assert_eq!(fixture.metric(SUCCESSFUL), 0.0);
    assert_eq!(fixture.server.config().limits.burst, 200);
    std::fs::write(&path, format!("{LISTEN}[limits]\nburst = 300\n")).unwrap();
    fixture.server.reload_file(&path).unwrap();
    assert_eq!(fixture.metric(SUCCESSFUL), 1.0);
    assert_eq!(fixture.server.config().limits.burst, 300);
}
