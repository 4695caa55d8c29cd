//! Behind a real load balancer: Debian's haproxy sends the headers (`send-proxy-v2`).

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use turn_relay::Scheme;

use crate::client::{Client, FromPeer, Peer};
use crate::doors::proxied;
use crate::harness::{PATIENCE, V4, eventually, start};
use crate::tls::tls_over;

#[test]
fn clients_of_haproxy_are_seen_as_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let (config, certificate) = proxied(folder.path());
    let relay = start(config);
    let Some(haproxy) = Haproxy::before(relay.addr(Scheme::TcpTls, V4), folder.path()) else {
        return;
    };
    // Its own checks speak for themselves (LOCAL).
    let headers = "rallypoint_turn_proxy_headers_total";
    relay.wait_until(&format!("{headers}{{outcome=\"local\"}}"), |n| n >= 1.0);

    for (source, is_tls) in [("127.0.0.5:0", false), ("127.0.0.6:0", true)] {
        let stream = haproxy.connect_from(source.parse().unwrap());
        let own = stream.local_addr().unwrap();
        let mut client = if is_tls {
            Client::stream(tls_over(stream, &certificate, b"stun.turn"))
        } else {
            Client::stream(stream)
        };
        assert_eq!(client.binding().mapped(), own);
        let peer = Peer::new(V4);
        let relayed = client.allocate();
        client.bind_channel(peer.addr(), 0x4000);
        client.send_channel(0x4000, &[3; 1200]);
        assert_eq!(peer.receive(), (relayed, vec![3; 1200]));
        peer.send(relayed, &[4; 1200]);
        assert_eq!(client.receive(), FromPeer::Channel(0x4000, vec![4; 1200]));
    }
    relay.expect(&format!("{headers}{{outcome=\"proxied\"}}"), 2.0);
    for transport in ["tcp", "tls"] {
        let accepted = format!("rallypoint_turn_connections_total{{transport=\"{transport}\"}}");
        relay.expect(&accepted, 1.0);
    }
}

#[test]
fn the_balancer_of_the_deploy_guide_is_accepted_by_haproxy() {
    let guide = include_str!("../../../deploy/README.md");
    let (_, block) = guide.split_once("```\nfrontend https\n").unwrap();
    let (text, _) = block.split_once("```").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("haproxy.cfg");
    let web = "backend web\n mode tcp\n timeout connect 5s\n timeout server 1h\n server web 127.0.0.1:8443\n";
    fs::write(&file, format!("frontend https\n{text}{web}")).unwrap();
    let Ok(checked) = haproxy().arg("-c").arg("-f").arg(&file).output() else {
        return say_skipped();
    };
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(
        checked.status.success() && !said.contains("WARNING"),
        "{said}"
    );
}

fn haproxy() -> Command {
    let mut command = Command::new("haproxy");
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin"));
    command
}

fn say_skipped() {
    let required = std::env::var_os("RALLYPOINT_TEST_ALL").is_some();
    assert!(!required, "haproxy (Debian package haproxy) is missing");
    eprintln!("SKIPPED: haproxy (Debian package haproxy) is missing");
}

/// A process that is ended with the test.
struct Haproxy {
    process: Child,
    frontend: SocketAddr,
}

impl Haproxy {
    fn before(relay: SocketAddr, folder: &Path) -> Option<Self> {
        let frontend = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let file = folder.join("haproxy.cfg");
        let text = format!(
            "defaults\n mode tcp\n timeout connect 10s\n timeout client 60s\n timeout server 60s\n\
             frontend turn\n bind {frontend}\n default_backend relay\n\
             backend relay\n server relay {relay} send-proxy-v2 check check-send-proxy inter 200ms\n"
        );
        fs::write(&file, text).unwrap();
        let spawned = haproxy()
            .args(["-db", "-f"])
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(process) = spawned else {
            say_skipped();
            return None;
        };
        Some(Self { process, frontend })
    }

    /// Waits until it listens.
    fn connect_from(&self, source: SocketAddr) -> TcpStream {
        let stream = eventually(|| {
            let socket =
                socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.bind(&source.into()).unwrap();
            let connected = socket.connect(&self.frontend.into());
            connected.map_err(|error| format!("haproxy does not listen: {error}"))?;
            Ok(TcpStream::from(socket))
        });
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
