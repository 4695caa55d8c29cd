//! The `rallypoint-stun` daemon.

use std::net::SocketAddr;
use std::pin::pin;
use std::process::ExitCode;

use anyhow::Context;
use ops::admin::Admin;
use ops::daemon::{self, Program, Start};
use ops::metrics::{self, BuildInfo, Registry};
use ops::reload::{ConfigFile, ReloadRequests};
use ops::{Health, logging, shutdown};
use stun_server::{Config, Server};

const PROGRAM: Program = Program {
    name: "rallypoint-stun",
    about: "A STUN server: tells players the address that the world sees them at",
    version: env!("CARGO_PKG_VERSION"),
    default_config: stun_server::config::DEFAULT,
};

const BUILD: BuildInfo = BuildInfo {
    version: env!("CARGO_PKG_VERSION"),
    revision: match option_env!("RALLYPOINT_REVISION") {
        Some(revision) => revision,
        None => "unknown",
    },
};

fn main() -> ExitCode {
    let file = ConfigFile::of(std::env::args_os());
    let config = match daemon::start::<Config>(PROGRAM) {
        Start::Run(config) => config,
        Start::Exit(code) => return code,
    };
    daemon::abort_on_panic();
    match run(config, file) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: Config, file: Option<ConfigFile>) -> anyhow::Result<()> {
    logging::init(&config.log)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime
        .context("the runtime of the admin listener")?
        .block_on(serve(config, file))
}

async fn serve(config: Config, file: Option<ConfigFile>) -> anyhow::Result<()> {
    let registry = Registry::new();
    metrics::register_process(&registry, BUILD)?;
    let health = Health::new(&registry)?;
    let mut reloads = ReloadRequests::new(file)?;
    let admin_address = config.admin;
    let mut server = Server::bind(config, &registry)?;
    for (scheme, address) in server.local_addrs() {
        tracing::info!(name: logging::OPERATOR, scheme = scheme.as_str(), %address, "listening");
    }
    let admin = match admin_address {
        Some(address) => Some(Admin::bind(address, registry, health.clone()).await?),
        None => None,
    };
    if let Some(admin) = &admin {
        announce(admin.local_addr());
    }
    health.set_ready(true);

    let mut signal = pin!(shutdown::signal());
    loop {
        tokio::select! {
            () = &mut signal => break,
            file = reloads.next() => {
                // What came of it is in the log and the metrics.
                if server.reload_file(file).is_ok() {
                    logging::set_level(&server.config().log.level);
                }
            }
        }
    }

    health.set_stopping();
    server.shutdown();
    if let Some(admin) = admin {
        admin.shutdown().await;
    }
    tracing::info!("ended");
    Ok(())
}

fn announce(address: SocketAddr) {
    tracing::info!(%address, "metrics and health");
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "metrics are readable from other machines; keep a firewall before them");
    }
}
