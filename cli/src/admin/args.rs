//! Options of `admin`. The token is named by its file, never given here: others see command lines.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Options of `admin`.
#[derive(Debug, Args)]
pub struct AdminArgs {
    /// The admin listener of the relay
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "RALLYPOINT_ADMIN_URL",
        default_value = "http://127.0.0.1:9479"
    )]
    pub url: String,
    /// File with the token that the relay's `[admin]` section names
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "RALLYPOINT_ADMIN_TOKEN_FILE"
    )]
    pub token_file: Option<PathBuf>,
    /// The answer as JSON, as docs/admin-api.md has it
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Show the relay and its shards
    Status,
    /// List who is relayed; of addresses no more than the network is told
    Allocations {
        /// Only this user's
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
        /// So many at most
        #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        limit: u32,
    },
    /// End all allocations of a user, or one allocation
    Kick {
        /// The subject of the credential, or a test user's name
        #[arg(value_name = "NAME", required_unless_present = "allocation")]
        user: Option<String>,
        /// Keep the user out for so long, such as 10m or 1h30m; without it the next packet brings it back
        #[arg(long, value_name = "DURATION", conflicts_with = "allocation")]
        block: Option<String>,
        /// Only the allocation of this id, from the list
        #[arg(long, value_name = "ID", conflicts_with = "user")]
        allocation: Option<String>,
    },
    /// List who is kept out
    Blocks,
    /// Let a user in again
    Unblock {
        /// The user
        #[arg(value_name = "NAME")]
        user: String,
    },
    /// Show the bounds in force, or change some until the relay reads its file again
    Quotas {
        /// Keys of `[quota]` with new values, such as allocations-per-user=4 bandwidth-per-user=2MiB
        #[arg(value_name = "KEY=VALUE", value_parser = key_and_value)]
        changes: Vec<(String, String)>,
    },
    /// Make no new allocations; those that are there live on
    Drain {
        /// End what is left after so long, such as 5m
        #[arg(long, value_name = "DURATION")]
        deadline: Option<String>,
    },
    /// Make new allocations again
    Undrain,
    /// Read the relay's configuration file again
    Reload,
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or("a key, `=` and a value, such as allocations-per-user=4")?;
    Ok((key.to_owned(), value.to_owned()))
}
