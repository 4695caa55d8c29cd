//! `rallypoint up`: the three services in one process, until Ctrl-C.

use std::io;
use std::net::IpAddr;

use serde_json::json;
use tokio::runtime::Runtime;

use crate::args::UpArgs;
use crate::output;
use crate::services::{Ports, Services, ServicesError};

/// Why the services do not run.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// Others could reach it.
    #[error(
        "--bind {0}: other machines can reach that address, and these are services for development; \
         --expose if that is what you want, 127.0.0.1 or ::1 if not"
    )]
    Exposed(IpAddr),
    /// No address at all.
    #[error("--bind {0}: players must be told one address; name one of this machine's")]
    Unspecified(IpAddr),
    /// A service did not start.
    #[error(transparent)]
    Services(#[from] ServicesError),
    /// The system has no threads for us.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// Runs until SIGINT or SIGTERM.
///
/// # Errors
/// What did not start.
pub fn run(args: &UpArgs) -> Result<(), UpError> {
    let ports = ports(args)?;
    Runtime::new()?.block_on(async {
        let signal = ops::shutdown::signal();
        let services = Services::start(ports).await?;
        if args.json {
            output::line(&ready_json(&services).to_string());
        } else {
            output::line(&ready_words(&services));
        }
        signal.await;
        services.shutdown().await;
        if !args.json {
            output::line("all services have ended");
        }
        Ok(())
    })
}

fn ports(args: &UpArgs) -> Result<Ports, UpError> {
    let ip = args.bind;
    if ip.is_unspecified() {
        return Err(UpError::Unspecified(ip));
    }
    if !ip.is_loopback() && !args.expose {
        return Err(UpError::Exposed(ip));
    }
    Ok(Ports {
        ip,
        stun: args.stun_port,
        turn: args.turn_port,
        signal: args.signal_port,
        admin: [
            args.stun_admin_port,
            args.turn_admin_port,
            args.signal_admin_port,
        ],
    })
}

fn ready_json(services: &Services) -> serde_json::Value {
    let [stun_metrics, turn_metrics, signal_metrics] = services.metrics_urls();
    json!({
        "event": "up",
        "signal": services.signal_url(),
        "health": services.health_page(),
        "stun": services.stun_urls(),
        "turn": services.turn_urls(),
        "metrics": { "stun": stun_metrics, "turn": turn_metrics, "signal": signal_metrics },
    })
}

fn ready_words(services: &Services) -> String {
    let [stun_metrics, turn_metrics, signal_metrics] = services.metrics_urls();
    let signal = services.signal_url();
    let urls = |urls: Vec<String>| urls.join("  ");
    format!(
        "Rallypoint is up, for development: the secret is random and gone at the end.\n\
         \n\
         \x20 signaling   {signal}   health page {}\n\
         \x20 relay       {}\n\
         \x20 STUN        {}\n\
         \x20 metrics     {signal_metrics}\n\
         \x20             {turn_metrics}\n\
         \x20             {stun_metrics}\n\
         \n\
         Two players, each in a terminal of their own:\n\
         \n\
         \x20 rallypoint play --signal {signal} --room jump-rocket\n\
         \n\
         Ctrl-C ends everything.",
        services.health_page(),
        urls(services.turn_urls()),
        urls(services.stun_urls()),
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn ports_of(line: &str) -> Result<Ports, UpError> {
        match Cli::try_parse_from(line.split(' ')).map(|cli| cli.command) {
            Ok(Command::Up(args)) => ports(&args),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn default_ports_are_those_of_the_design() {
        let ports = ports_of("rallypoint up").expect("loopback");
        assert_eq!((ports.stun, ports.turn, ports.signal), (3479, 3478, 8765));
        assert_eq!(ports.admin, [9478, 9479, 9480]);
        assert!(ports.ip.is_loopback());
    }

    #[test]
    fn other_machines_are_let_in_only_when_asked_for() {
        let refused = ports_of("rallypoint up --bind 192.168.1.2");
        assert!(refused.is_err_and(|error| error.to_string().contains("--expose")));
        assert!(ports_of("rallypoint up --bind 192.168.1.2 --expose").is_ok());
        assert!(ports_of("rallypoint up --bind ::1").is_ok());
        assert!(ports_of("rallypoint up --bind 0.0.0.0 --expose").is_err());
    }
}
