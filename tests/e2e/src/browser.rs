//! A browser without a window, with a profile of its own that trusts one authority.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::netns::run;
use crate::processes::Process;
use crate::wait::{self, PATIENCE};

/// Whose browser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Brand {
    /// Debian's `chromium`.
    Chromium,
    /// Debian's `firefox-esr`.
    Firefox,
}

/// A running browser with one page.
#[derive(Debug)]
pub struct Browser {
    process: Process,
}

/// Nothing asked of the network but what the page asks, and ICE over loopback.
const QUIET_CHROMIUM: [&str; 10] = [
    "--headless",
    "--disable-gpu",
    // Else it gathers nothing where there is no other network.
    "--allow-loopback-in-peer-connection",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-breakpad",
    // Chromium refuses to run as root with its sandbox, and the page is ours.
    "--no-sandbox",
];

/// The same, and ICE over loopback, which Firefox leaves out otherwise.
const FIREFOX_PREFERENCES: &str = r#"user_pref("media.peerconnection.ice.loopback", true);
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("toolkit.telemetry.enabled", false);
user_pref("app.update.enabled", false);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
"#;

impl Brand {
    /// The program's name.
    #[must_use]
    pub fn program(self) -> &'static str {
        match self {
            Self::Chromium => "chromium",
            Self::Firefox => "firefox-esr",
        }
    }
}

impl Browser {
    /// Opens `url`. The profile is made in `home`, which has to be empty of browsers; the certificates of NSS in it are the same
    /// thing for both, in different places.
    ///
    /// # Errors
    /// When the profile cannot be made or the browser not be started.
    pub fn open(brand: Brand, home: &Path, authority: &Path, url: &str) -> Result<Self> {
        let profile = home.join("profile");
        let certificates = match brand {
            Brand::Chromium => home.join(".pki/nssdb"),
            Brand::Firefox => profile.clone(),
        };
        std::fs::create_dir_all(&profile)?;
        trust(authority, &certificates)?;

        let mut command = Command::new(brand.program());
        command.env("HOME", home);
        match brand {
            Brand::Chromium => {
                command.args(QUIET_CHROMIUM);
                command.arg(format!("--user-data-dir={}", profile.display()));
            }
            Brand::Firefox => {
                std::fs::write(profile.join("user.js"), FIREFOX_PREFERENCES)?;
                command.args(["--headless", "--no-remote", "--profile"]);
                command.arg(&profile);
            }
        }
        let process = Process::start(brand.program(), command.arg(url))?;
        Ok(Self { process })
    }

    /// What it wrote, for the message of a failure.
    #[must_use]
    pub fn report(&self) -> String {
        self.process.report()
    }

    /// Ends it and waits until it is gone, its profile no longer in use.
    ///
    /// # Errors
    /// When it stays.
    pub fn close(&self) -> Result<()> {
        self.process.terminate()?;
        wait::until("the browser ends", PATIENCE, || {
            Ok((!self.process.running()?).then_some(()))
        })
    }
}

/// Puts the authority into a fresh certificate database.
fn trust(authority: &Path, certificates: &Path) -> Result<()> {
    std::fs::create_dir_all(certificates)?;
    let database = format!("sql:{}", certificates.display());
    let certutil = |arguments: &[&str]| {
        let mut command = Command::new("certutil");
        run(command.args(["-d", &database]).args(arguments), "")
    };
    certutil(&["-N", "--empty-password"])?;
    let file = authority.display().to_string();
    certutil(&["-A", "-n", "authority", "-t", "C,,", "-i", &file])?;
    Ok(())
}
