//! `rallypoint admin` as a program, against a relay in this process.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use ops::Health;
use ops::admin::Admin;
use ops::admin::api::ApiToken;
use ops::metrics::Registry;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::oneshot;
use turn_relay::admin::Operator;

const TOKEN: &str = "7a0e4c19d5f38b62a1c90e5d7f24b836";
const PASSWORD: &str = "of the admin test";
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn an_operator_sees_and_steers_a_relay() {
    let relay = Relay::start();
    assert!(relay.tell("status").contains("0 users, 0 of them kept out"));
    assert_eq!(relay.tell("allocations"), "no allocations\n");
    let _clients = relay.clients();
    relay.wait_for_allocations(2);

    let status = relay.tell("status");
    assert!(status.starts_with("rallypoint-turn "), "{status}");
    assert!(status.contains(": ready\n1 users"), "{status}");
    let list = relay.tell("allocations --user anna");
    assert!(
        list.contains("127.0.0.0/16") && list.contains("  anna  "),
        "{list}"
    );
    assert!(list.ends_with("2 allocations\n"), "{list}");
    let first = relay.tell("allocations --limit 1");
    assert!(
        first.ends_with("1 allocations, and there are more\n"),
        "{first}"
    );
    let page: Value = relay.json("allocations");
    let id = page["allocations"][0]["id"].as_str().unwrap();
    assert_eq!(
        relay.tell(&format!("kick --allocation {id}")),
        format!("ended {id}\n")
    );
    let again = relay.refusal(&format!("kick --allocation {id}"));
    assert!(again.contains("no such allocation"), "{again}");

    let kicked = relay.tell("kick anna --block 1h30m");
    assert_eq!(
        kicked,
        "ended 1 allocations of anna, kept out for 1 h 30 min\n"
    );
    assert!(relay.tell("blocks").starts_with("anna  1 h "));
    assert_eq!(relay.tell("unblock anna"), "anna may come back\n");
    assert_eq!(relay.tell("unblock anna"), "anna was not kept out\n");
    assert_eq!(relay.tell("blocks"), "nobody is kept out\n");
}

#[test]
fn bounds_drain_and_refusals_are_told_in_words() {
    let relay = Relay::start();
    let shown = relay.tell("quotas");
    assert!(
        shown.contains("\nallocations-per-user                16\n"),
        "{shown}"
    );
    assert!(shown.ends_with("\nas in the file\n"), "{shown}");
    let changed = relay.tell("quotas allocations-per-user=3 bandwidth-per-user=unlimited");
    assert!(
        changed.contains("\nallocations-per-user                3\n"),
        "{changed}"
    );
    assert!(changed.contains("the file is unchanged"), "{changed}");
    let said = relay.refusal("quotas allocations-per-user=0 alocations=1");
    assert!(said.contains("refused whole"), "{said}");
    for fault in ["  allocations-per-user: ", "  alocations: unknown key"] {
        assert!(said.contains(fault), "{said}");
    }
    let draining = relay.tell("drain --deadline 5m");
    assert_eq!(
        draining,
        "draining: 0 allocations left, ended in 5 min 0 s\n"
    );
    assert!(relay.tell("status").contains("draining, ends what is left"));
    assert_eq!(relay.tell("undrain"), "not draining: 0 allocations\n");
    let said = relay.refusal("reload");
    assert!(said.contains("nothing to reload (no_file)"), "{said}");
    assert!(
        relay
            .refusal("drain --deadline soon")
            .contains("(bad_request)")
    );
}

#[test]
fn who_has_no_token_or_no_relay_is_told_what_is_missing() {
    let relay = Relay::start();
    let token = relay.folder.path().join("token");
    let run = |url: &str, file: Option<&Path>| {
        let mut command = command();
        command.args(["admin", "status", "--url", url]);
        if let Some(file) = file {
            command.arg("--token-file").arg(file);
        }
        failed(&command.output().unwrap())
    };
    let url = relay.url();
    assert!(run(&url, None).contains("--token-file"));
    assert!(run(&url, Some(Path::new("/nowhere"))).contains("cannot be read"));
    let open = relay.folder.path().join("open");
    std::fs::write(&open, TOKEN).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(run(&url, Some(&open)).contains("chmod"));
    let wrong = relay.folder.path().join("wrong");
    write_secret(&wrong, &TOKEN.replace('7', "8"));
    assert!(run(&url, Some(&wrong)).contains("the token is wrong (unauthorized)"));
    assert!(run("https://127.0.0.1:9479", Some(&token)).contains("--url"));
    // Somebody else's port.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    assert!(run(&nobody, Some(&token)).contains("refused"));
    // An admin listener without this API.
    let other = Relay::start_without_api();
    let said = run(&other.url(), Some(&token));
    assert!(said.contains("has no admin API"), "{said}");
}

/// A relay with its admin listener, in a thread of its own.
struct Relay {
    admin: SocketAddr,
    turn: SocketAddr,
    folder: TempDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    fn start() -> Self {
        Self::with(true)
    }

    fn start_without_api() -> Self {
        Self::with(false)
    }

    fn with(api: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_secret(&folder.path().join("token"), TOKEN);
        let (stop, stopped) = oneshot::channel();
        let (bound, addresses) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || serve(api, stopped, &bound));
        let (admin, turn) = addresses.recv_timeout(PATIENCE).unwrap();
        Self {
            admin,
            turn,
            folder,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    fn url(&self) -> String {
        format!("http://{}", self.admin)
    }

    fn run(&self, line: &str) -> Output {
        command()
            .arg("admin")
            .args(line.split(' '))
            .args(["--url", &self.url()])
            .env(
                "RALLYPOINT_ADMIN_TOKEN_FILE",
                self.folder.path().join("token"),
            )
            .output()
            .unwrap()
    }

    /// What it says when all is well.
    fn tell(&self, line: &str) -> String {
        let output = self.run(line);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.tell(&format!("{line} --json"))).unwrap()
    }

    fn refusal(&self, line: &str) -> String {
        failed(&self.run(line))
    }

    /// Two allocations, until they are dropped.
    fn clients(&self) -> KillOnDrop {
        let child = command()
            .args("load turn --user anna --peer-bind 127.0.0.1 --clients 2 --rate 20".split(' '))
            .args(["--seconds", "60", "--server", &self.turn.to_string()])
            .env("RALLYPOINT_LOAD_PASSWORD", PASSWORD)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        KillOnDrop(child.unwrap())
    }

    fn wait_for_allocations(&self, expected: u64) {
        let mut waited = Duration::ZERO;
        loop {
            let status = self.json("status");
            if status["totals"]["allocations"] == expected {
                return;
            }
            assert!(waited < PATIENCE, "{status}");
            std::thread::sleep(Duration::from_millis(50));
            waited += Duration::from_millis(50);
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// As `rallypoint-turn` does, without its signals and files.
fn serve(
    api: bool,
    mut stopped: oneshot::Receiver<()>,
    bound: &std::sync::mpsc::Sender<(SocketAddr, SocketAddr)>,
) {
    let text = format!(
        "listen = [\"udp://127.0.0.1:0\"]\nrelay-addresses = [\"127.0.0.1\"]\nthreads = 2\n\
         [[test-user]]\nname = \"anna\"\npassword = \"{PASSWORD}\"\n\
         [peers]\nallow-loopback-for-tests = true\n"
    );
    let config = turn_relay::Config::from_toml(&text).unwrap();
    let registry = Registry::new();
    let health = Health::new(&registry).unwrap();
    let token = ops::config::Secret::new(TOKEN.as_bytes().to_vec());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (mut operator, routes) =
            Operator::new(health.clone(), ApiToken::new(Some(token)), None);
        let address = "127.0.0.1:0".parse().unwrap();
        let admin = if api {
            Admin::bind_with_api(address, registry.clone(), health.clone(), routes).await
        } else {
            Admin::bind(address, registry.clone(), health.clone()).await
        };
        let admin = admin.unwrap();
        let mut server = turn_relay::Server::bind(config, &registry).unwrap();
        operator.serves(&server);
        health.set_ready(true);
        let (_, turn) = server.local_addrs()[0];
        bound.send((admin.local_addr(), turn)).unwrap();
        loop {
            tokio::select! {
                _ = &mut stopped => break,
                task = operator.next() => operator.carry_out(task, &mut server),
            }
        }
        admin.shutdown().await;
        server.shutdown();
    });
}

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rallypoint"));
    command
        .env_remove("RALLYPOINT_ADMIN_URL")
        .env_remove("RALLYPOINT_ADMIN_TOKEN_FILE");
    command
}

/// What it says on stderr, and nothing else, with exit code 1.
fn failed(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(output.stdout.is_empty());
    assert!(!said.contains(TOKEN), "{said}");
    said
}

fn write_secret(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}
