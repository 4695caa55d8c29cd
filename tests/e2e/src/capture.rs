//! Everything that crosses the core, on disk, to be searched for what must not be readable.

use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use crate::netns::Namespace;
use crate::processes::Process;
use crate::wait::{self, PATIENCE};

/// A running `tcpdump`.
#[derive(Debug)]
pub struct Capture {
    recorder: Process,
    file: PathBuf,
}

/// The recorded bytes: packet headers and payloads one after the other.
#[derive(Debug)]
pub struct Recording(Vec<u8>);

impl Capture {
    /// Records every packet that enters `namespace` by any interface, whole.
    ///
    /// # Errors
    /// When `tcpdump` does not start to listen.
    pub fn start(namespace: &Namespace, file: &Path) -> Result<Self> {
        let mut command = namespace.command("tcpdump");
        command
            .args([
                "-i", "any", "-Q", "in", "-n", "-U", "-s", "0", "-B", "65536", "-Z", "root", "-w",
            ])
            .arg(file);
        let recorder = Process::start("tcpdump", &mut command)?;
        recorder.wait_for_stderr("listening on", PATIENCE)?;
        Ok(Self {
            recorder,
            file: file.to_owned(),
        })
    }

    /// Ends the recording, having proven that it works: a datagram in clear is sent from `from` through the core to
    /// `to` and must be found in it, behind everything that was sent before.
    ///
    /// # Errors
    /// When the proof fails or packets were lost by the recorder.
    pub fn finish(self, from: &Namespace, to: SocketAddr) -> Result<Recording> {
        let proof = format!("in clear on purpose: {:?}", self.file);
        let unspecified = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = from
            .enter(|| UdpSocket::bind(unspecified))?
            .context("a socket for the proof")?;
        let recording = wait::until(
            "the recorder sees a datagram sent in clear",
            PATIENCE,
            || {
                socket.send_to(proof.as_bytes(), to).context("the proof")?;
                let recording = Recording(std::fs::read(&self.file)?);
                Ok(recording.contains(proof.as_bytes()).then_some(()))
            },
        );
        recording?;
        self.recorder.terminate()?;
        let status = self.recorder.wait(PATIENCE)?;
        ensure!(status.success(), "tcpdump ended with {status}");
        let report = self.recorder.stderr();
        if !report.contains("0 packets dropped by kernel") {
            bail!("the recorder lost packets, so its silence proves nothing: {report}");
        }
        Ok(Recording(std::fs::read(&self.file)?))
    }
}

impl Recording {
    /// Whether these bytes were on the wire, one after the other in one packet.
    #[must_use]
    pub fn contains(&self, marker: &[u8]) -> bool {
        memchr::memmem::find(&self.0, marker).is_some()
    }

    /// How many bytes were recorded.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
