//! A relay on loopback with ports of the system's choice, and a look at its metrics.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ops::metrics::Registry;
use turn_relay::{Config, ListenUrl, Peers, Scheme, Server, StaticUser};

/// Far beyond what the slowest machine needs; a test that passes never waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const USER: &str = "tester";
pub(crate) const PASSWORD: &str = "a password for tests";
pub(crate) const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
pub(crate) const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// A running relay.
pub(crate) struct TestRelay {
    server: Option<Server>,
    pub(crate) registry: Registry,
    addrs: Vec<(Scheme, SocketAddr)>,
}

/// UDP and TCP in both families, both relay addresses, one shard, one test user.
pub(crate) fn config() -> Config {
    let on = |scheme, ip| ListenUrl {
        scheme,
        address: SocketAddr::new(ip, 0),
    };
    Config {
        listen: [Scheme::Udp, Scheme::Tcp]
            .into_iter()
            .flat_map(|scheme| [on(scheme, V4), on(scheme, V6)])
            .collect(),
        relay_addresses: vec![V4, V6],
        threads: 1,
        test_users: vec![StaticUser {
            name: USER.into(),
            password: PASSWORD.into(),
        }],
        peers: Peers {
            allow_loopback_for_tests: true,
            ..Peers::default()
        },
        admin: None,
        ..Config::default()
    }
}

pub(crate) fn start(config: Config) -> TestRelay {
    let registry = Registry::new();
    let server = Server::bind(config, &registry).unwrap();
    let addrs = server.local_addrs();
    TestRelay {
        server: Some(server),
        registry,
        addrs,
    }
}

impl TestRelay {
    /// The listener of that scheme and family.
    pub(crate) fn addr(&self, scheme: Scheme, ip: IpAddr) -> SocketAddr {
        let fits = |(of, addr): &&(Scheme, SocketAddr)| *of == scheme && addr.ip() == ip;
        self.addrs
            .iter()
            .find(fits)
            .expect("the configuration has it")
            .1
    }

    pub(crate) fn udp(&self) -> SocketAddr {
        self.addr(Scheme::Udp, V4)
    }

    pub(crate) fn tcp(&self) -> SocketAddr {
        self.addr(Scheme::Tcp, V4)
    }

    /// One sample, such as `rallypoint_turn_channels` or `name{label="value"}`.
    pub(crate) fn metric(&self, sample: &str) -> f64 {
        value(&self.registry.render(), sample).unwrap_or_else(|| panic!("no sample {sample}"))
    }

    /// The sum of all samples of a family.
    pub(crate) fn total(&self, family: &str) -> f64 {
        let text = self.registry.render();
        let samples = text.lines().filter_map(|line| line.rsplit_once(' '));
        let of_family =
            samples.filter(|(name, _)| name.split('{').next().is_some_and(|name| name == family));
        of_family
            .map(|(_, value)| value.parse::<f64>().unwrap())
            .sum()
    }

    /// Waits until `sample` is `expected`: counts are copied when a round of the loop ends.
    pub(crate) fn expect(&self, sample: &str, expected: f64) {
        self.wait_until(sample, |value| value == expected);
    }

    pub(crate) fn wait_until(&self, sample: &str, is_right: impl Fn(f64) -> bool) {
        eventually(|| {
            let value = self.metric(sample);
            so(is_right(value), || format!("{sample} is {value}"))
        });
    }

    pub(crate) fn server(&mut self) -> &mut Server {
        self.server.as_mut().expect("it runs")
    }

    /// Gives the server away; its listeners and metrics can still be asked for.
    pub(crate) fn take(&mut self) -> Server {
        self.server.take().expect("it runs")
    }

    pub(crate) fn shutdown(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown();
        }
    }
}

/// Asks again until there is an answer; what is wrong until then is said when patience ends.
pub(crate) fn eventually<T>(mut ask: impl FnMut() -> Result<T, String>) -> T {
    let pause = Duration::from_millis(10);
    let mut waited = Duration::ZERO;
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(wrong) => assert!(waited < PATIENCE, "{wrong}"),
        }
        std::thread::sleep(pause);
        waited += pause;
    }
}

/// For [`eventually`]: that it is so, or what is wrong.
pub(crate) fn so(is_so: bool, wrong: impl FnOnce() -> String) -> Result<(), String> {
    is_so.then_some(()).ok_or_else(wrong)
}

/// The value of a sample, its labels in whatever order.
pub(crate) fn value(text: &str, sample: &str) -> Option<f64> {
    let wanted = parts(sample);
    let samples = text.lines().filter_map(|line| line.rsplit_once(' '));
    let (_, value) = samples
        .into_iter()
        .find(|(name, _)| parts(name) == wanted)?;
    value.parse().ok()
}

/// The family and the sorted labels of a sample.
fn parts(sample: &str) -> (&str, Vec<&str>) {
    let (family, labels) = sample.split_once('{').unwrap_or((sample, ""));
    let mut labels: Vec<&str> = labels.trim_end_matches('}').split(',').collect();
    labels.sort_unstable();
    (family, labels)
}
