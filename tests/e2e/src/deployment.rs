//! The deployment of the README: STUN, relay and signaling on three servers of their own, each with its own
//! configuration file made from the example in `deploy/config`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::binaries::binaries;
use crate::config::Config;
use crate::http;
use crate::lab::{Lab, Server};
use crate::player::Player;
use crate::processes::Process;

/// The shared secret between relay and signaling. Only for tests: every deployment makes its own.
const SECRET: &str = "4f1d0e6a93c85b7720ab94d6cf3e1857a2c06b9de84f7351";

/// Three servers and their daemons, all ready.
#[derive(Debug)]
pub struct Deployment {
    /// The STUN server, admin listener on 9478.
    pub stun: Daemon,
    /// The TURN relay, admin listener on 9479.
    pub turn: Daemon,
    /// The signaling server, admin listener on 9480.
    pub signal: Daemon,
    directory: TempDir,
}

/// One daemon on its server.
#[derive(Debug)]
pub struct Daemon {
    process: Process,
    server: Server,
    admin: SocketAddr,
    config: PathBuf,
    program: PathBuf,
}

impl Deployment {
    /// Puts the three servers into the lab and waits until each says that it is ready.
    ///
    /// # Errors
    /// When a daemon does not come up; the error holds what it said.
    pub fn start(lab: &mut Lab) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let secret = directory.path().join("turn-secret");
        std::fs::write(&secret, SECRET)?;
        let programs = binaries()?;
        let (stun, turn, signal) = (lab.server(10)?, lab.server(20)?, lab.server(30)?);

        let (four, six) = (stun.address4(), stun.address6());
        let stun_config = Config::example("rallypoint-stun")?.with(&format!(
            r#"listen = ["udp://{four}:3478", "udp://[{six}]:3478", "tcp://{four}:3478", "tcp://[{six}]:3478"]"#
        ))?;

        let (four, six) = (turn.address4(), turn.address6());
        let turn_config = Config::example("rallypoint-turn")?.without("tls").with(&format!(
            r#"listen = ["udp://{four}:3478", "udp://[{six}]:3478", "tcp://{four}:3478", "tcp://[{six}]:3478"]
relay-addresses = ["{four}", "{six}"]
[credentials]
secrets = [{{ id = "k1", file = "{}" }}]
[peers]
allow = ["198.51.100.0/24", "2001:db8::/32"]"#,
            secret.display()
        ))?;

        let (four, six) = (signal.address4(), signal.address6());
        let signal_config = Config::example("rallypoint-signal")?.without("tls").with(&format!(
            r#"listen = ["http://{four}:8765", "http://[{six}]:8765"]
[[stun]]
urls = ["stun:{}:3478", "stun:[{}]:3478"]
[[relay]]
region = "lab"
urls = ["turn:{}:3478?transport=udp", "turn:{}:3478?transport=tcp", "turn:[{}]:3478?transport=udp", "turn:[{}]:3478?transport=tcp"]
secret = {{ id = "k1", file = "{}" }}"#,
            stun.address4(),
            stun.address6(),
            turn.address4(),
            turn.address4(),
            turn.address6(),
            turn.address6(),
            secret.display()
        ))?;

        let path = directory.path();
        let (stun_config, turn_config, signal_config) = (
            stun_config.write(path, "stun")?,
            turn_config.write(path, "turn")?,
            signal_config.write(path, "signal")?,
        );
        Ok(Self {
            stun: Daemon::start(stun, programs.stun.clone(), stun_config, 9478)?,
            turn: Daemon::start(turn, programs.turn.clone(), turn_config, 9479)?,
            signal: Daemon::start(signal, programs.signal.clone(), signal_config, 9480)?,
            directory,
        })
    }

    /// Where players find signaling, over IPv4.
    #[must_use]
    pub fn signal_url(&self) -> String {
        format!(
            "ws://{}/v1/ws",
            SocketAddr::new(self.signal.server.address4(), 8765)
        )
    }

    /// Where players find signaling, over IPv6.
    #[must_use]
    pub fn signal_url6(&self) -> String {
        format!(
            "ws://{}/v1/ws",
            SocketAddr::new(self.signal.server.address6(), 8765)
        )
    }

    /// A player on a machine, told where signaling is in the family it has.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn player(
        &self,
        home: &crate::lab::Home,
        room: &str,
        arguments: &[&str],
    ) -> Result<Player> {
        let url = match home.external4() {
            Ok(_) => self.signal_url(),
            Err(_) => self.signal_url6(),
        };
        Player::start(home.host(), &url, room, arguments)
    }

    /// A directory for files of the test, gone with the deployment.
    #[must_use]
    pub fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }
}

impl Daemon {
    /// Starts `PROGRAM --config FILE` on a server and waits until it is ready.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn start(server: Server, program: PathBuf, config: PathBuf, admin: u16) -> Result<Self> {
        let admin = SocketAddr::new(IpAddr::from([127, 0, 0, 1]), admin);
        let process = launch(&server, &program, &config)?;
        http::wait_ready(server.host(), admin, &process)
            .with_context(|| program.display().to_string())?;
        Ok(Self {
            process,
            server,
            admin,
            config,
            program,
        })
    }

    /// Kills the daemon (SIGKILL) and starts it again with the same configuration.
    ///
    /// # Errors
    /// When it does not become ready again.
    pub fn restart(&mut self) -> Result<()> {
        if self.process.running()? {
            self.process.kill()?;
        }
        self.process = launch(&self.server, &self.program, &self.config)?;
        http::wait_ready(self.server.host(), self.admin, &self.process)
    }

    /// The server it runs on.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Its process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Its admin listener, inside its namespace.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Its configuration file.
    #[must_use]
    pub fn config(&self) -> &std::path::Path {
        &self.config
    }

    /// `/metrics` as text.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn metrics(&self) -> Result<String> {
        let (status, body) = http::get(self.server.host(), self.admin, "/metrics")?;
        anyhow::ensure!(status == 200, "/metrics answered {status}: {body}");
        Ok(body)
    }

    /// The sum of a metric over all its series whose text contains every word of `labels`; zero if there is none.
    ///
    /// # Errors
    /// When `/metrics` does not answer.
    pub fn metric(&self, name: &str, labels: &[&str]) -> Result<f64> {
        Ok(sum_of(&self.metrics()?, name, labels))
    }
}

/// The sum of one metric in a scrape over the series that carry all the given labels.
#[must_use]
pub fn sum_of(scrape: &str, name: &str, labels: &[&str]) -> f64 {
    scrape
        .lines()
        .filter(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
        })
        .filter(|line| labels.iter().all(|label| line.contains(label)))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

fn launch(server: &Server, program: &std::path::Path, config: &std::path::Path) -> Result<Process> {
    let name = program
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    Process::start(
        &name,
        server.host().command(program).arg("--config").arg(config),
    )
}
