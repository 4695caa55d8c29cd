//! The admin API of the process, as docs/admin-api.md has it: every route, and what each does to
//! clients on the wire.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use turn_relay::admin::{
    AllocationKicked, AllocationPage, Blocks, Drained, QuotaSource, Quotas, ReloadOutcome,
    ShardState, Status, Unblocked, UserKicked,
};

use crate::client::Client;
use crate::daemon::{ADMIN_TOKEN, Daemon};
use crate::drain::{Flow, wait_until_draining};
use crate::harness::USER;

/// A second user beside the one that all daemons of the tests have.
const OTHER: &str = "[[test-user]]\nname = \"a/b \u{fc}\"\npassword = \"another password\"\n";

/// What a route answers when all is well.
fn ask<T: DeserializeOwned>(daemon: &Daemon, method: &str, path: &str, body: &str) -> T {
    let (status, answer) = daemon.api(method, path, body);
    assert_eq!(status, 200, "{method} {path}: {answer}\n{}", daemon.log());
    serde_json::from_value(answer).unwrap()
}

/// The status and the error code of a route that refuses.
fn refusal(daemon: &Daemon, method: &str, path: &str, body: &str) -> (u16, String) {
    let (status, answer) = daemon.api(method, path, body);
    let code = answer["error"]["code"].as_str().unwrap_or_default();
    assert!(answer["error"]["message"].is_string(), "{answer}");
    (status, code.to_owned())
}

/// A client on an address of its own: these meet different shards.
fn client(daemon: &Daemon, host: u8) -> Client {
    Client::udp_from(IpAddr::from([127, 0, 0, host]), daemon.turn)
}

fn other(client: Client) -> Client {
    client.login("a/b \u{fc}", "another password")
}

#[test]
fn allocations_of_all_shards_are_listed_with_masked_addresses() {
    let daemon = Daemon::start(OTHER);
    let mut flow = Flow::start(daemon.turn);
    flow.carry();
    let mut tcp = Client::tcp(daemon.turn);
    let relayed = tcp.allocate();
    let mut clients: Vec<Client> = (2..10).map(|host| client(&daemon, host)).collect();
    for client in &mut clients {
        client.allocate();
    }
    let mut theirs = other(client(&daemon, 11));
    theirs.allocate();

    let page: AllocationPage = ask(&daemon, "GET", "/v1/allocations", "");
    assert_eq!((page.allocations.len(), page.next), (11, None));
    assert_eq!(page.missing_shards, []);
    let shards: BTreeSet<_> = page.allocations.iter().map(|entry| entry.shard).collect();
    assert_eq!(shards, BTreeSet::from([0, 1]), "both have some");
    for entry in &page.allocations {
        assert_eq!(entry.client.network, "127.0.0.0/16");
        assert_eq!(
            (entry.family.as_str(), entry.relays.as_str()),
            ("ipv4", "udp")
        );
        assert!(entry.expires >= entry.created + 599, "{entry:?}");
    }
    let hashes: BTreeSet<_> = page.allocations.iter().map(|it| &it.client.hash).collect();
    assert_eq!(
        hashes.len(),
        10,
        "the flow and the connection are of one address"
    );
    let by_tcp = page.allocations.iter().find(|it| it.transport == "tcp");
    assert_eq!(by_tcp.unwrap().relayed, [relayed.to_string()]);
    let busy = page.allocations.iter().find(|it| it.channels == 1).unwrap();
    assert_eq!((busy.user.as_str(), busy.permissions), (USER, 1));
    assert_eq!(busy.traffic.to_peer_packets, 20);
    assert_eq!(busy.traffic.to_client_bytes, 20 * 30);

    let path = "/v1/allocations?user=a%2Fb%20%C3%BC";
    let page: AllocationPage = ask(&daemon, "GET", path, "");
    assert_eq!(page.allocations.len(), 1);
    let page: AllocationPage = ask(&daemon, "GET", "/v1/allocations?user=nobody", "");
    assert_eq!(page.allocations, []);
}

#[test]
fn a_list_goes_on_page_by_page_and_shows_each_allocation_once() {
    let daemon = Daemon::start("");
    let mut clients: Vec<Client> = (2..13).map(|host| client(&daemon, host)).collect();
    for client in &mut clients {
        client.allocate();
    }
    for limit in [1, 2, 3, 10, 11, 12] {
        let mut ids = Vec::new();
        let mut path = format!("/v1/allocations?limit={limit}");
        loop {
            let page: AllocationPage = ask(&daemon, "GET", &path, "");
            assert!(page.allocations.len() <= limit);
            ids.extend(page.allocations.into_iter().map(|entry| entry.id));
            let Some(next) = page.next else { break };
            path = format!("/v1/allocations?limit={limit}&cursor={next}");
        }
        let once: BTreeSet<_> = ids.iter().collect();
        assert_eq!((ids.len(), once.len()), (11, 11), "by {limit}");
    }
    for wrong in ["limit=0", "limit=501", "limit=x", "cursor=x", "cusor=0-0"] {
        let path = format!("/v1/allocations?{wrong}");
        let expected = (400, "bad_request".to_owned());
        assert_eq!(refusal(&daemon, "GET", &path, ""), expected, "{wrong}");
    }
    // A cursor behind the end is an empty page.
    let page: AllocationPage = ask(&daemon, "GET", "/v1/allocations?cursor=99-0", "");
    assert_eq!((page.allocations.len(), page.next), (0, None));
}

#[test]
fn a_user_is_kicked_from_every_shard_and_kept_out_for_a_time() {
    let daemon = Daemon::start(OTHER);
    let mut clients: Vec<Client> = (2..8).map(|host| client(&daemon, host)).collect();
    for client in &mut clients {
        client.allocate();
    }
    let mut theirs = other(client(&daemon, 11));
    theirs.allocate();

    let path = format!("/v1/users/{USER}/kick");
    let kicked: UserKicked = ask(&daemon, "POST", &path, "{\"block\": \"10m\"}");
    assert_eq!((kicked.ended, kicked.blocked_seconds), (6, Some(600)));
    daemon.expect(
        "rallypoint_turn_allocations_ended_total{reason=\"admin\"}",
        6.0,
    );
    for client in &mut clients {
        assert_eq!(client.refresh(600).error, Some(437), "it has ended");
        assert_eq!(client.try_allocate().error, Some(403), "and it is kept out");
    }
    assert_eq!(theirs.refresh(600).error, None, "others notice nothing");
    daemon.expect(
        "rallypoint_turn_auth_failures_total{reason=\"blocked\"}",
        6.0,
    );

    let blocks: Blocks = ask(&daemon, "GET", "/v1/blocks", "");
    let left = blocks.blocked[USER];
    assert!((500..=600).contains(&left), "{left}");
    let status: Status = ask(&daemon, "GET", "/v1/status", "");
    assert_eq!((status.blocked_users, status.users), (1, 1));

    let path = format!("/v1/users/{USER}/block");
    let unblocked: Unblocked = ask(&daemon, "DELETE", &path, "");
    assert!(unblocked.was_blocked);
    for client in &mut clients {
        client.allocate();
    }
    let unblocked: Unblocked = ask(&daemon, "DELETE", &path, "");
    assert!(!unblocked.was_blocked);
    // Without a block the next packet brings it back.
    let path = "/v1/users/a%2Fb%20%C3%BC/kick";
    let kicked: UserKicked = ask(&daemon, "POST", path, "");
    assert_eq!((kicked.ended, kicked.blocked_seconds), (1, None));
    theirs.allocate();
    for (path, body) in [
        (path, "{\"block\": \"0s\"}"),
        (path, "{\"block\": \"25h\"}"),
        (path, "{\"block\": 600}"),
        (path, "{\"blok\": \"10m\"}"),
        (&format!("/v1/users/{}/kick", "x".repeat(509)), ""),
    ] {
        let expected = (400, "bad_request".to_owned());
        assert_eq!(refusal(&daemon, "POST", path, body), expected, "{body}");
    }
    assert_eq!(theirs.refresh(600).error, None);
}

#[test]
fn users_kept_out_are_bounded_and_one_too_many_is_not_kicked() {
    let daemon = Daemon::start("");
    let mut client = client(&daemon, 2);
    client.allocate();
    for n in 0..1024 {
        let path = format!("/v1/users/u{n}/kick");
        let _: UserKicked = ask(&daemon, "POST", &path, "{\"block\": \"1h\"}");
    }
    let path = format!("/v1/users/{USER}/kick");
    let expected = (409, "too_many_blocks".to_owned());
    let refused = refusal(&daemon, "POST", &path, "{\"block\": \"1h\"}");
    assert_eq!(refused, expected);
    assert_eq!(client.refresh(600).error, None, "nothing was done");
    let kicked: UserKicked = ask(&daemon, "POST", &path, "");
    assert_eq!(kicked.ended, 1);
}

#[test]
fn one_allocation_is_kicked_by_its_id() {
    let daemon = Daemon::start("");
    let mut clients: Vec<Client> = (2..6).map(|host| client(&daemon, host)).collect();
    for client in &mut clients {
        client.allocate();
    }
    let page: AllocationPage = ask(&daemon, "GET", "/v1/allocations", "");
    let id = &page.allocations[2].id;
    let path = format!("/v1/allocations/{id}/kick");
    let kicked: AllocationKicked = ask(&daemon, "POST", &path, "");
    assert_eq!((&kicked.id, kicked.ended), (id, 1));
    let gone = (404, "no_allocation".to_owned());
    assert_eq!(refusal(&daemon, "POST", &path, ""), gone);
    for wrong in ["9-0000000000000000", "0-0", "x", "-"] {
        let path = format!("/v1/allocations/{wrong}/kick");
        assert_eq!(refusal(&daemon, "POST", &path, ""), gone, "{wrong}");
    }
    let left = clients.iter_mut().map(|client| client.refresh(600).error);
    let left: Vec<_> = left.collect();
    assert_eq!(left.iter().filter(|error| **error == Some(437)).count(), 1);
    assert_eq!(left.iter().filter(|error| error.is_none()).count(), 3);
}

#[test]
fn quotas_are_changed_in_part_until_the_file_is_read_again() {
    let daemon = Daemon::start("[quota]\nallocations-per-user = 5\n");
    let quotas: Quotas = ask(&daemon, "GET", "/v1/quotas", "");
    assert_eq!(quotas.from, QuotaSource::File);
    assert_eq!(quotas.quotas["allocations-per-user"], 5);
    assert_eq!(quotas.quotas["bandwidth-per-user"], "1000000B");

    let change = json!({ "allocations-per-user": 2, "silent-peer-packets": "unlimited" });
    let changed: Quotas = ask(&daemon, "PATCH", "/v1/quotas", &change.to_string());
    assert_eq!(changed.from, QuotaSource::Operator);
    assert!(
        changed.note.contains("file is unchanged"),
        "{}",
        changed.note
    );
    assert_eq!(changed.quotas["allocations-per-user"], 2);
    assert_eq!(changed.quotas["silent-peer-packets"], "unlimited");
    assert_eq!(changed.quotas["channels-per-allocation"], 64);
    let mut clients: Vec<Client> = (2..5).map(|host| client(&daemon, host)).collect();
    let answers: Vec<_> = clients
        .iter_mut()
        .map(|client| client.try_allocate().error)
        .collect();
    assert_eq!(answers, [None, None, Some(486)], "on whichever shard");

    let wrong = json!({ "allocations-per-user": 0, "alocations": 7 });
    let (status, answer) = daemon.api("PATCH", "/v1/quotas", &wrong.to_string());
    assert_eq!((status, &answer["error"]["code"]), (422, &json!("invalid")));
    let faults = answer["error"]["faults"].as_array().unwrap();
    let keys: BTreeSet<_> = faults.iter().map(|fault| fault["key"].as_str()).collect();
    assert_eq!(
        keys,
        [Some("allocations-per-user"), Some("alocations")].into()
    );
    let same: Quotas = ask(&daemon, "GET", "/v1/quotas", "");
    assert_eq!(same, changed, "refused whole");

    let reloaded: ReloadOutcome = ask(&daemon, "POST", "/v1/reload", "");
    assert_eq!(
        (reloaded.changed, reloaded.need_restart),
        (vec!["quota".to_owned()], vec![])
    );
    let quotas: Quotas = ask(&daemon, "GET", "/v1/quotas", "");
    assert_eq!(quotas.from, QuotaSource::File);
    assert_eq!(quotas.quotas["allocations-per-user"], 5);
    clients[2].allocate();
}

#[test]
fn a_reload_tells_of_every_fault() {
    let daemon = Daemon::start("");
    daemon.rewrite("[quota]\nallocations-per-user = 0\n[limits]\nbindings-per-secnd = 5\n");
    let (status, answer) = daemon.api("POST", "/v1/reload", "");
    assert_eq!((status, &answer["error"]["code"]), (422, &json!("invalid")));
    let text = answer.to_string();
    for key in ["quota.allocations-per-user", "limits.bindings-per-secnd"] {
        assert!(text.contains(key), "{text}");
    }
    let _: Status = ask(&daemon, "GET", "/v1/status", "");
    client(&daemon, 2).allocate();
}

#[test]
fn a_drain_is_called_off_and_the_process_stays() {
    let daemon = Daemon::start("");
    let mut flow = Flow::start(daemon.turn);
    let drained: Drained = ask(&daemon, "POST", "/v1/drain", "");
    let expected = Drained {
        draining: true,
        seconds_left: None,
        allocations: 1,
    };
    assert_eq!(drained, expected);
    assert!(daemon.get("/readyz").ends_with("draining\n"));
    daemon.expect("rallypoint_draining", 1.0);
    assert_eq!(client(&daemon, 2).try_allocate().error, Some(508));
    flow.carry();
    let status: Status = ask(&daemon, "GET", "/v1/status", "");
    assert!(status.draining && !status.ready);

    let drained: Drained = ask(&daemon, "DELETE", "/v1/drain", "");
    assert!(!drained.draining);
    assert!(daemon.get("/readyz").starts_with("HTTP/1.1 200"));
    client(&daemon, 2).allocate();
    flow.carry();
}

#[test]
fn what_is_left_at_the_deadline_of_a_drain_is_ended_and_the_process_stays() {
    let daemon = Daemon::start("");
    let mut flow = Flow::start(daemon.turn);
    let far: Drained = ask(&daemon, "POST", "/v1/drain", "{\"deadline\": \"1h\"}");
    assert!(
        (3590..=3600).contains(&far.seconds_left.unwrap()),
        "{far:?}"
    );
    flow.carry();
    // Said again it is another deadline.
    let _: Drained = ask(&daemon, "POST", "/v1/drain", "{\"deadline\": \"100ms\"}");
    daemon.expect(
        "rallypoint_turn_allocations_ended_total{reason=\"drained\"}",
        1.0,
    );
    assert_eq!(flow.client.refresh(600).error, Some(437));
    assert!(daemon.log().contains("the deadline has passed"));
    let status: Status = ask(&daemon, "GET", "/v1/status", "");
    assert_eq!((status.draining, status.drain_seconds_left), (true, None));
    assert_eq!(client(&daemon, 2).try_allocate().error, Some(508));
    let _: Drained = ask(&daemon, "DELETE", "/v1/drain", "");
    client(&daemon, 2).allocate();
    for wrong in ["25h", "soon"] {
        let body = json!({ "deadline": wrong }).to_string();
        let expected = (400, "bad_request".to_owned());
        assert_eq!(refusal(&daemon, "POST", "/v1/drain", &body), expected);
    }
}

#[test]
fn status_tells_of_each_shard_and_of_all() {
    let daemon = Daemon::start("");
    let mut clients: Vec<Client> = (2..8).map(|host| client(&daemon, host)).collect();
    for client in &mut clients {
        client.allocate();
    }
    let status: Status = ask(&daemon, "GET", "/v1/status", "");
    assert_eq!(status.version, env!("CARGO_PKG_VERSION"));
    assert!(status.ready && !status.draining);
    assert_eq!((status.totals.allocations, status.users), (6, 1));
    assert_eq!(status.totals.ports_limit, 16_384);
    let each = status.shards.iter().map(|shard| {
        assert_eq!(shard.state, ShardState::Ok);
        shard.levels.clone().unwrap().allocations
    });
    let each: Vec<usize> = each.collect();
    assert_eq!((each.len(), each.iter().sum::<usize>()), (2, 6));
}

#[test]
fn while_the_process_ends_orders_are_refused_and_kicks_are_not() {
    let mut daemon = Daemon::start("[drain]\ndeadline = \"1h\"\n");
    let _flow = Flow::start(daemon.turn);
    daemon.signal("-TERM");
    wait_until_draining(&daemon);
    let stopping = (503, "stopping".to_owned());
    for (method, path) in [
        ("DELETE", "/v1/drain"),
        ("POST", "/v1/reload"),
        ("PATCH", "/v1/quotas"),
    ] {
        assert_eq!(refusal(&daemon, method, path, ""), stopping, "{path}");
    }
    let page: AllocationPage = ask(&daemon, "GET", "/v1/allocations", "");
    assert_eq!(page.allocations.len(), 1);
    let path = format!("/v1/users/{USER}/kick");
    let kicked: UserKicked = ask(&daemon, "POST", &path, "");
    assert_eq!(kicked.ended, 1);
    assert_eq!(daemon.wait().code(), Some(0), "{}", daemon.log());
}

#[test]
fn the_token_is_changed_by_a_reload_and_never_logged() {
    const NEXT: &str = "c83d1e5f70924b6ac83d1e5f70924b6a";
    let daemon = Daemon::start("[log]\nlevel = \"trace\"\n");
    let status = |token: &str| daemon.api_as(token, "GET", "/v1/status", "").0;
    assert_eq!((status(ADMIN_TOKEN), status(NEXT)), (200, 401));
    daemon.write_secret("admin-token", NEXT);
    let (code, answer) = daemon.api("POST", "/v1/reload", "");
    assert_eq!((code, &answer["changed"]), (200, &json!(["admin.token"])));
    assert_eq!((status(ADMIN_TOKEN), status(NEXT)), (401, 200));
    let log = daemon.log();
    assert!(!log.contains(ADMIN_TOKEN) && !log.contains(NEXT), "{log}");
}

#[test]
fn what_an_operator_does_is_written_down_and_what_is_only_seen_is_not() {
    let daemon = Daemon::start("");
    let _: UserKicked = ask(
        &daemon,
        "POST",
        "/v1/users/x%0Ay/kick",
        "{\"block\": \"1m\"}",
    );
    let _: Status = ask(&daemon, "GET", "/v1/status", "");
    let (status, _) = daemon.api("PATCH", "/v1/quotas", "{\"allocations\": 0}");
    assert_eq!(status, 422);
    let (status, _) = daemon.api_as("wrong", "POST", "/v1/reload", "");
    assert_eq!(status, 401);
    let log = daemon.log();
    let lines: Vec<&str> = log.lines().filter(|it| it.contains("admin API")).collect();
    assert_eq!(lines.len(), 2, "{log}");
    for part in ["INFO", "kick_user", "x\\ny", "block", "1m", "200"] {
        assert!(lines[0].contains(part), "{part}: {}", lines[0]);
    }
    for part in ["change_quotas", "allocations", "422"] {
        assert!(lines[1].contains(part), "{part}: {}", lines[1]);
    }
    for code in [200, 401] {
        let sample =
            format!("rallypoint_http_requests_total{{handler=\"reload\",code=\"{code}\"}}");
        daemon.expect(&sample, if code == 401 { 1.0 } else { 0.0 });
    }
    let sample = "rallypoint_http_requests_total{handler=\"kick_user\",code=\"200\"}";
    daemon.expect(sample, 1.0);
}

#[test]
fn without_a_token_the_api_is_off_and_metrics_are_not() {
    let daemon = Daemon::start("");
    // A configuration without one, taken over.
    let text = daemon.config_text();
    let without: String = text
        .lines()
        .filter(|line| !line.starts_with("token ="))
        .map(|line| format!("{line}\n"))
        .collect();
    daemon.write_config(&without);
    let (status, answer) = daemon.api("POST", "/v1/reload", "");
    assert_eq!(
        (status, answer["changed"].clone()),
        (200, json!(["admin.token"]))
    );
    let off: (u16, Value) = daemon.api("GET", "/v1/status", "");
    assert_eq!((off.0, &off.1["error"]["code"]), (403, &json!("api_off")));
    assert!(daemon.get("/metrics").starts_with("HTTP/1.1 200"));
}
