//! A page of `tests/e2e/clients` served to a browser on loopback, and what the page posts back.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::workspace;

/// What is served, by path, with its type.
const FILES: [(&str, &str); 2] = [
    ("/browser_pair.html", "text/html"),
    ("/browser_pair.js", "text/javascript"),
];

/// More than any result needs.
const LONGEST_RESULT: u64 = 64 * 1024;

/// A web server for one browser. Its thread ends with the test process.
#[derive(Debug)]
pub struct Page {
    address: SocketAddr,
    results: Receiver<String>,
}

impl Page {
    /// Begins to serve.
    ///
    /// # Errors
    /// When no port of loopback is free.
    pub fn serve() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let (sender, results) = mpsc::channel();
        std::thread::spawn(move || {
            // Browsers open connections ahead of need, so none may keep another waiting.
            for stream in listener.incoming().map_while(Result::ok) {
                let sender = sender.clone();
                std::thread::spawn(move || answer(stream, &sender));
            }
        });
        Ok(Self { address, results })
    }

    /// The address of the page with these parameters.
    #[must_use]
    pub fn url(&self, parameters: &[(&str, &str)]) -> String {
        let encoded: Vec<_> = parameters
            .iter()
            .map(|(name, value)| format!("{name}={}", percent_encoded(value)))
            .collect();
        format!(
            "http://{}{}?{}",
            self.address,
            FILES[0].0,
            encoded.join("&")
        )
    }

    /// Waits for what the page posts.
    ///
    /// # Errors
    /// When nothing comes in time, or no JSON.
    pub fn result(&self, patience: Duration) -> Result<Value> {
        let text = self.results.recv_timeout(patience);
        let text = text.context("the page posted nothing in time")?;
        serde_json::from_str(&text).with_context(|| text.clone())
    }
}

/// One request of a browser. One that breaks off is the browser's affair: what counts is the result.
fn answer(stream: TcpStream, results: &Sender<String>) {
    let _broken_off = exchange(stream, results);
}

fn exchange(mut stream: TcpStream, results: &Sender<String>) -> Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse()?;
        }
    }
    ensure!(length <= LONGEST_RESULT, "a result of {length} bytes");
    let mut words = request.split(' ');
    let (method, target) = (words.next(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default();
    if method == Some("POST") && path == "/result" {
        let mut body = String::new();
        reader.take(length).read_to_string(&mut body)?;
        respond(&mut stream, "204 No Content", "text/plain", "")?;
        results.send(body)?;
        return Ok(());
    }
    let Some((name, kind)) = FILES.iter().find(|(name, _)| *name == path) else {
        return respond(&mut stream, "404 Not Found", "text/plain", "");
    };
    let clients = workspace::root().join("tests/e2e/clients");
    let file = clients.join(name.trim_start_matches('/'));
    respond(&mut stream, "200 OK", kind, &std::fs::read_to_string(file)?)
}

fn respond(stream: &mut TcpStream, status: &str, kind: &str, body: &str) -> Result<()> {
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )?;
    Ok(())
}

fn percent_encoded(value: &str) -> String {
    value
        .bytes()
        .map(|byte| match byte {
            b if b.is_ascii_alphanumeric() => char::from(b).to_string(),
            b => format!("%{b:02X}"),
        })
        .collect()
}
