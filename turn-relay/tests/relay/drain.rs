//! How a relay ends: new allocations are refused, flows go on until they end or the deadline.

use std::thread;
use std::time::Duration;

use turn_relay::{Config, Drain};

use crate::client::{Answer, Client, FromPeer, Peer};
use crate::daemon::Daemon;
use crate::harness::{V4, V6, config, eventually, so, start};

/// Never reached by a test that passes.
const FAR: Duration = Duration::from_secs(3600);

#[test]
fn a_flow_goes_on_until_it_ends_and_so_does_the_relay() {
    let mut relay = start(Config {
        threads: 2,
        ..config()
    });
    let mut flow = Flow::start(relay.udp());
    let server = relay.take();
    let draining = thread::spawn(move || server.drain(FAR));
    assert_eq!(refusal(|| Client::udp(relay.udp())).error, Some(508));
    flow.carry();
    flow.client.permit("127.0.0.1:5000".parse().unwrap());
    assert_eq!(flow.client.refresh(600).error, None);
    flow.carry();
    assert!(!draining.is_finished());

    assert_eq!(flow.client.refresh(0).error, None);
    assert!(draining.join().unwrap(), "all ended by themselves");
    let ended = |reason| format!("rallypoint_turn_allocations_ended_total{{reason=\"{reason}\"}}");
    assert_eq!(relay.metric(&ended("drained")), 0.0);
    assert_eq!(
        relay.total("rallypoint_turn_allocations_created_total"),
        relay.metric(&ended("deleted"))
    );
}

#[test]
fn what_is_left_at_the_deadline_is_ended() {
    let mut relay = start(config());
    let (mut udp, mut tcp) = (Client::udp(relay.udp()), Client::tcp(relay.tcp()));
    udp.allocate();
    tcp.allocate();
    assert!(!relay.take().drain(Duration::from_millis(100)));
    tcp.expect_closed();
    let drained = "rallypoint_turn_allocations_ended_total{reason=\"drained\"}";
    assert_eq!(relay.metric(drained), 2.0);
    assert_eq!(relay.total("rallypoint_turn_allocations"), 0.0);
}

#[test]
fn a_relay_without_allocations_ends_at_once() {
    let mut relay = start(Config {
        threads: 2,
        ..config()
    });
    let mut idle = Client::tcp(relay.tcp());
    assert_eq!(idle.binding().error, None);
    assert!(relay.take().drain(FAR));
    idle.expect_closed();
}

#[test]
fn new_clients_are_sent_to_the_alternate_of_their_family() {
    // RFC 8489 §14.15.
    let alternate = "203.0.113.11:3478".parse().unwrap();
    let mut relay = start(Config {
        drain: Drain {
            alternate: Some(alternate),
            ..Drain::default()
        },
        ..config()
    });
    let mut flow = Flow::start(relay.udp());
    let server = relay.take();
    let draining = thread::spawn(move || server.drain(FAR));
    let answer = refusal(|| Client::udp(relay.udp()));
    assert_eq!(
        (answer.error, answer.alternate()),
        (Some(300), Some(alternate))
    );
    let six = relay.addr(turn_relay::Scheme::Udp, V6);
    let answer = refusal(|| Client::udp(six));
    assert_eq!((answer.error, answer.alternate()), (Some(508), None));
    assert_eq!(flow.client.refresh(0).error, None);
    assert!(draining.join().unwrap());
}

#[test]
fn sigterm_drains_the_process() {
    let mut daemon = Daemon::start("[drain]\ndeadline = \"1h\"\n");
    let mut flow = Flow::start(daemon.turn);
    daemon.signal("-TERM");
    wait_until_draining(&daemon);
    daemon.expect("rallypoint_draining", 1.0);
    assert_eq!(daemon.metric("rallypoint_ready"), 0.0);
    assert_eq!(refusal(|| Client::udp(daemon.turn)).error, Some(508));
    flow.carry();
    // Nobody can be told of a new configuration any more, and the process does not mind.
    daemon.signal("-HUP");
    flow.carry();
    assert_eq!(flow.client.refresh(0).error, None);
    assert_eq!(daemon.wait().code(), Some(0), "{}", daemon.log());
    assert!(!daemon.log().contains("the deadline has passed"));
}

#[test]
fn the_process_ends_at_its_deadline() {
    let mut daemon = Daemon::start("[drain]\ndeadline = \"1s\"\n");
    let _flow = Flow::start(daemon.turn);
    daemon.signal("-TERM");
    assert_eq!(daemon.wait().code(), Some(0), "{}", daemon.log());
    assert!(daemon.log().contains("the deadline has passed"));
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    for (signal, code) in [("-TERM", 128 + 15), ("-INT", 128 + 2)] {
        let mut daemon = Daemon::start("[drain]\ndeadline = \"1h\"\n");
        let _flow = Flow::start(daemon.turn);
        daemon.signal("-TERM");
        wait_until_draining(&daemon);
        daemon.signal(signal);
        assert_eq!(daemon.wait().code(), Some(code), "{}", daemon.log());
    }
}

#[test]
fn ctrl_c_ends_an_idle_process_at_once() {
    let mut daemon = Daemon::start("[drain]\ndeadline = \"1h\"\n");
    daemon.signal("-INT");
    assert_eq!(daemon.wait().code(), Some(0), "{}", daemon.log());
}

/// A client, its peer and a channel between them.
pub(crate) struct Flow {
    pub(crate) client: Client,
    peer: Peer,
    relayed: std::net::SocketAddr,
}

impl Flow {
    pub(crate) fn start(relay: std::net::SocketAddr) -> Self {
        Self::of(Client::udp(relay))
    }

    pub(crate) fn of(client: Client) -> Self {
        Self::between(client, Peer::new(V4))
    }

    pub(crate) fn between(mut client: Client, peer: Peer) -> Self {
        let relayed = client.allocate();
        client.bind_channel(peer.addr(), 0x4000);
        let mut flow = Self {
            client,
            peer,
            relayed,
        };
        flow.carry();
        flow
    }

    /// Both ways, one by one; each must arrive.
    pub(crate) fn carry(&mut self) {
        for round in 0..10_u8 {
            self.send(round);
            self.receive(round);
        }
    }

    /// One datagram each way.
    pub(crate) fn send(&mut self, round: u8) {
        self.client.send_channel(0x4000, &[round; 40]);
        self.peer.send(self.relayed, &[round; 30]);
    }

    pub(crate) fn receive(&mut self, round: u8) {
        assert_eq!(self.peer.receive(), (self.relayed, vec![round; 40]));
        let expected = FromPeer::Channel(0x4000, vec![round; 30]);
        assert_eq!(self.client.receive(), expected);
    }
}

/// The first answer that is no allocation; what was allocated until then is given back.
fn refusal(client: impl Fn() -> Client) -> Answer {
    eventually(|| {
        let mut client = client();
        let answer = client.try_allocate();
        if answer.error.is_none() {
            assert_eq!(client.refresh(0).error, None);
            return Err("it does not drain".into());
        }
        Ok(answer)
    })
}

pub(crate) fn wait_until_draining(daemon: &Daemon) {
    eventually(|| {
        let is_draining = daemon.get("/readyz").ends_with("draining\n");
        so(is_draining, || {
            format!("it does not drain:\n{}", daemon.log())
        })
    });
}
