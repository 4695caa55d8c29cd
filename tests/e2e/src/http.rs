//! The least HTTP that asks a daemon's admin listener, on the machine it runs on.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::netns::Machine;
use crate::processes::Process;
use crate::wait::{self, PATIENCE};

/// One GET; answers the status and the body.
///
/// # Errors
/// When there is no answer that looks like HTTP.
pub fn get(machine: &Machine, address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let answer = machine.enter(|| -> Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })??;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("an answer without a body")?;
    let status = head
        .split(' ')
        .nth(1)
        .context("an answer without a status")?;
    Ok((status.parse()?, body.to_owned()))
}

/// Waits until `/readyz` of a daemon answers 200; fails as soon as the daemon is gone.
///
/// # Errors
/// When it does not become ready.
pub fn wait_ready(machine: &Machine, admin: SocketAddr, daemon: &Process) -> Result<()> {
    wait::until("ready", PATIENCE, || {
        ensure!(daemon.running()?, "it ended instead of becoming ready");
        let ready = get(machine, admin, "/readyz").is_ok_and(|(status, _)| status == 200);
        Ok(ready.then_some(()))
    })
    .with_context(|| daemon.report())
}
