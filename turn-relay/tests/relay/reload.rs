//! A new configuration while flows go on: in force everywhere and soon, or refused whole.

use std::time::Duration;

use credentials::Credential;
use net_io::clock;
use turn_relay::{
    BindError, Config, ListenUrl, NamedSecret, Peers, ReloadError, Scheme, Secret, StreamLimits,
};

use crate::client::{Client, Peer};
use crate::daemon::Daemon;
use crate::drain::Flow;
use crate::harness::{config, eventually, so, start};

const ONE: &str = "3c1f0c4d6a7e8f90aa51c3d2b4e5f601";
const TWO: &str = "74a2919e0cc14fb2a7c2a3355ad1ee02";
const SUCCESSFUL: &str = "rallypoint_config_last_reload_successful";

#[test]
fn a_new_secret_is_valid_soon_and_the_old_one_while_it_is_listed() {
    let daemon = Daemon::start("");
    daemon.write_secret("one", ONE);
    daemon.write_secret("two", TWO);
    let (one, two) = (
        "{ id = \"k1\", file = \"one\" }",
        "{ id = \"k2\", file = \"two\" }",
    );
    let list = |secrets: &[&str]| {
        let before = reloads(&daemon);
        let secrets = secrets.join(", ");
        daemon.rewrite(&format!("[credentials]\nsecrets = [{secrets}]\n"));
        wait_for_reload(&daemon, before);
    };
    list(&[one]);
    let mut flow = Flow::of(login(&daemon, "k1", ONE, "first"));
    list(&[two, one]);
    login(&daemon, "k2", TWO, "second").allocate();
    login(&daemon, "k1", ONE, "third").allocate();
    flow.carry();
    list(&[two]);
    login(&daemon, "k2", TWO, "fourth").allocate();
    let answer = login(&daemon, "k1", ONE, "fifth").try_allocate();
    assert_eq!(answer.error, Some(401));
    flow.carry();
    let log = daemon.log();
    assert!(
        !log.contains(ONE) && !log.contains(TWO),
        "a secret in:\n{log}"
    );
}

#[test]
fn sighup_reads_the_secrets_again_too() {
    let daemon = Daemon::start("");
    daemon.write_secret("one", ONE);
    daemon.rewrite("[credentials]\nsecrets = [{ id = \"k1\", file = \"one\" }]\n");
    wait_for_reload(&daemon, 0);
    login(&daemon, "k1", ONE, "first").allocate();
    // The configuration file stays as it is.
    daemon.write_secret("one", TWO);
    daemon.signal("-HUP");
    wait_for_reload(&daemon, 1);
    login(&daemon, "k1", TWO, "second").allocate();
}

#[test]
fn a_bad_file_changes_nothing_and_is_told_fault_by_fault() {
    let daemon = Daemon::start("");
    let mut flow = Flow::start(daemon.turn);
    assert_eq!(daemon.metric(SUCCESSFUL), 1.0);
    let since = "rallypoint_config_last_reload_success_timestamp_seconds";
    let started = daemon.metric(since);
    assert!(started > 1e9, "{started}");
    daemon.rewrite("[quota]\nallocations-per-user = 0\n[limits]\nbindings-per-secnd = 5\n");
    daemon.expect(SUCCESSFUL, 0.0);
    let log = daemon.log();
    for fault in [
        "quota.allocations-per-user",
        "limits.bindings-per-secnd",
        "refused",
    ] {
        assert!(log.contains(fault), "{fault} is missing in:\n{log}");
    }
    assert_eq!(daemon.metric(since), started);
    assert!(daemon.get("/readyz").starts_with("HTTP/1.1 200"));
    flow.carry();
    Client::udp(daemon.turn).allocate();

    daemon.write_config("what is this?");
    wait_for_log(&daemon, "turn.toml:1");
    daemon.signal("-HUP");
    flow.carry();
    let before = reloads(&daemon);
    daemon.rewrite("[quota]\nallocations-per-user = 1\n[log]\nformat = \"json\"\n");
    wait_for_reload(&daemon, before);
    daemon.expect(SUCCESSFUL, 1.0);
    assert!(daemon.metric(since) >= started);
    wait_for_log(&daemon, "only after a restart keys=\"log.format\"");
    // The flow has its allocation, and so has the client before: there is no place on any shard.
    let answer = Client::udp(daemon.turn).try_allocate();
    assert_eq!(answer.error, Some(486));
    flow.carry();
}

#[test]
fn the_level_of_the_log_is_in_force_at_once() {
    let daemon = Daemon::start("");
    let bandwidth = "rallypoint_turn_bandwidth_limit_bytes_per_second";
    let rewrite = |level: &str, limit: u32| {
        daemon.rewrite(&format!(
            "[log]\nlevel = \"{level}\"\n[quota]\nbandwidth-per-allocation = \"{limit}B\"\n"
        ));
        daemon.expect(bandwidth, f64::from(limit));
    };
    rewrite("error", 3000);
    wait(&daemon, "no reload", || reloads(&daemon) == 1);
    assert!(
        daemon.log().contains("changed=\"quota, log.level\""),
        "{}",
        daemon.log()
    );
    // Taken over in silence: the level of before is in force while that is logged.
    rewrite("info", 4000);
    rewrite("info", 5000);
    wait(&daemon, "no reload that is logged", || {
        reloads(&daemon) == 2
    });
}

#[test]
fn what_needs_a_restart_is_named_and_stays() {
    let mut relay = start(config());
    let udp = relay.udp();
    let mut new = config();
    new.listen.pop();
    new.relay_addresses.pop();
    new.threads = 3;
    new.admin = Some("127.0.0.1:9479".parse().unwrap());
    new.quota.channels_per_allocation = 5;
    new.drain.deadline = Duration::from_secs(7);
    let reloaded = relay.server().reload(new).unwrap();
    assert_eq!(reloaded.changed, ["quota", "drain"]);
    assert_eq!(
        reloaded.need_restart,
        ["listen", "relay-addresses", "threads", "admin.listen"]
    );
    let in_force = relay.server().config().clone();
    assert_eq!((in_force.listen.len(), in_force.threads), (4, 1));
    assert_eq!(in_force.drain.deadline, Duration::from_secs(7));
    Client::udp(udp).allocate();
    assert_eq!(Client::udp(udp).allocate_v6().error, None);
    // The same again changes nothing.
    let reloaded = relay.server().reload(in_force).unwrap();
    assert!(reloaded.changed.is_empty() && reloaded.need_restart.is_empty());
}

#[test]
fn flows_lose_nothing_during_reloads() {
    let secret = |key: &str| NamedSecret {
        id: None,
        secret: Secret::new(key.as_bytes().to_vec()),
    };
    let mut new = Config {
        threads: 2,
        ..config()
    };
    let mut relay = start(new.clone());
    let mut flows: Vec<Flow> = (0..4).map(|_| Flow::start(relay.udp())).collect();
    flows.push(Flow::of(Client::tcp(relay.tcp())));
    for round in 0..40_u8 {
        new.secrets = vec![secret(if round % 2 == 0 { ONE } else { TWO })];
        new.limits.bindings_per_second = 100 + u32::from(round);
        new.lifetime.channel = Duration::from_secs(600 + u64::from(round));
        for flow in &mut flows {
            flow.send(round);
        }
        relay.server().reload(new.clone()).unwrap();
        for flow in &mut flows {
            flow.send(round);
        }
        for flow in &mut flows {
            flow.receive(round);
            flow.receive(round);
        }
    }
    for flow in &mut flows {
        assert_eq!(flow.client.refresh(600).error, None);
    }
    assert_eq!(relay.total("rallypoint_turn_dropped_packets_total"), 0.0);
}

#[test]
fn peers_that_are_no_longer_allowed_are_cut_off_on_every_shard() {
    let mut relay = start(Config {
        threads: 4,
        ..config()
    });
    // Not on the address where players of this relay are peers themselves.
    let elsewhere = "127.0.0.9".parse().unwrap();
    let flow = |_| Flow::between(Client::udp(relay.udp()), Peer::new(elsewhere));
    let _flows: Vec<Flow> = (0..8).map(flow).collect();
    relay.expect("rallypoint_turn_channels", 8.0);
    let new = Config {
        threads: 4,
        peers: Peers::default(),
        ..config()
    };
    relay.server().reload(new).unwrap();
    relay.expect("rallypoint_turn_channels", 0.0);
    relay.expect("rallypoint_turn_permissions", 0.0);
    let answer = Client::udp(relay.udp()).request(stun_wire::Method::ALLOCATE, &|_| {});
    assert_eq!(answer.error, Some(400), "it serves on");
}

#[test]
fn loopback_peers_need_listeners_that_are_on_loopback_now() {
    let any = |port| ListenUrl {
        scheme: Scheme::Udp,
        address: std::net::SocketAddr::from(([0, 0, 0, 0], port)),
    };
    let mut relay = start(Config {
        listen: vec![any(0)],
        peers: Peers::default(),
        ..config()
    });
    // Its listeners would be right after a restart; until then strangers reach the old ones.
    let error = relay.server().reload(config()).unwrap_err();
    assert!(
        matches!(error, ReloadError::Config(BindError::LoopbackPeers(_))),
        "{error:?}"
    );
    assert_eq!(relay.metric(SUCCESSFUL), 0.0);
    assert!(!relay.server().config().peers.allow_loopback_for_tests);
}

#[test]
fn bounds_of_connections_hold_for_open_ones_too() {
    let long = StreamLimits {
        first_message: Duration::from_secs(300),
        idle: Duration::from_secs(300),
        ..StreamLimits::default()
    };
    let mut relay = start(Config {
        streams: long.clone(),
        ..config()
    });
    let mut open = Client::tcp(relay.tcp());
    assert_eq!(open.binding().error, None);
    let reload = |relay: &mut crate::harness::TestRelay, streams| {
        let new = Config {
            streams,
            ..config()
        };
        relay.server().reload(new).unwrap();
    };
    let one = StreamLimits {
        connections_per_address: 1,
        ..long
    };
    reload(&mut relay, one);
    Client::tcp(relay.tcp()).expect_closed();
    assert_eq!(open.binding().error, None);
    let short = StreamLimits {
        idle: Duration::from_secs(1),
        ..long
    };
    reload(&mut relay, short);
    open.expect_closed();
    relay.expect(
        "rallypoint_turn_connections_ended_total{reason=\"idle\"}",
        1.0,
    );
}

/// A client with a credential that was signed with the secret; nobody else has its name.
fn login(daemon: &Daemon, id: &str, key: &str, subject: &str) -> Client {
    let secret = credentials::Secret {
        id: Some(id.to_owned()),
        key: key.as_bytes().to_vec(),
    };
    let Credential {
        username, password, ..
    } = credentials::mint(&secret, subject, clock::unix() + 3600);
    Client::udp(daemon.turn).login(&username, &password)
}

fn reloads(daemon: &Daemon) -> usize {
    daemon.log().matches("configuration reloaded").count()
}

/// Waits until there was one more reload than `before`, and the shards have had a round.
fn wait_for_reload(daemon: &Daemon, before: usize) {
    wait(daemon, "no reload", || reloads(daemon) > before);
    std::thread::sleep(Duration::from_millis(100));
}

fn wait_for_log(daemon: &Daemon, text: &str) {
    wait(daemon, text, || daemon.log().contains(text));
}

fn wait(daemon: &Daemon, what: &str, is_done: impl Fn() -> bool) {
    eventually(|| so(is_done(), || format!("{what}:\n{}", daemon.log())));
}
