//! What is declared is exported from the start, and adds up.

use super::*;

crate::label! {
    /// For these tests.
    enum Transport: "transport" {
        Udp = "udp",
        Tcp = "tcp",
    }
}

crate::label! {
    /// For these tests.
    enum Family: "family" {
        Ipv4 = "ipv4",
        Ipv6 = "ipv6",
    }
}

crate::label! {
    /// For these tests: more values than cells in a line.
    enum Letter: "letter" {
        A = "a", B = "b", C = "c", D = "d", E = "e", F = "f", G = "g", H = "h", I = "i", J = "j",
        K = "k", L = "l", M = "m", N = "n", O = "o", P = "p", Q = "q", R = "r",
    }
}

/// The sample lines of one metric.
fn samples(registry: &Registry, name: &str) -> Vec<String> {
    let text = registry.render();
    text.lines()
        .filter(|line| line.starts_with(name))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_combination_is_exported_from_the_start() {
    let registry = Registry::new();
    let vec = registry
        .counter_vec::<(Transport, Family)>("x_total", "X.")
        .unwrap();
    vec.with((Transport::Tcp, Family::Ipv6)).add(3);
    let expected = [
        r#"x_total{family="ipv4",transport="tcp"} 0"#,
        r#"x_total{family="ipv4",transport="udp"} 0"#,
        r#"x_total{family="ipv6",transport="tcp"} 3"#,
        r#"x_total{family="ipv6",transport="udp"} 0"#,
    ];
    let mut lines = samples(&registry, "x_total");
    lines.sort();
    assert_eq!(lines, expected);
}

#[test]
fn a_name_can_be_declared_once() {
    let registry = Registry::new();
    registry.counter("x_total", "X.").unwrap();
    let error = registry.counter("x_total", "X.").unwrap_err().to_string();
    assert!(error.contains("x_total"), "{error}");
    assert!(registry.sharded_counter::<()>("x_total", "X.", 1).is_err());
    assert!(registry.gauge("not a name", "X.").is_err());
}

#[test]
fn shards_count_apart_and_are_summed_at_scrape() {
    let registry = Registry::new();
    let shards = registry
        .sharded_counter::<Letter>("x_total", "X.", 3)
        .unwrap();
    let threads = shards.into_iter().map(|shard| {
        std::thread::spawn(move || {
            for _ in 0..1000 {
                shard.inc(Letter::A);
                shard.add(Letter::R, 2);
            }
            shard
        })
    });
    let threads: Vec<_> = threads.collect();
    let shards: Vec<_> = threads
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect();
    assert!(shards.iter().all(|shard| shard.value(Letter::R) == 2000));
    let lines = samples(&registry, "x_total");
    assert_eq!(lines.len(), Letter::ALL.len());
    assert!(
        lines.contains(&r#"x_total{letter="a"} 3000"#.to_owned()),
        "{lines:?}"
    );
    assert!(
        lines.contains(&r#"x_total{letter="r"} 6000"#.to_owned()),
        "{lines:?}"
    );
    assert!(
        lines.contains(&r#"x_total{letter="b"} 0"#.to_owned()),
        "{lines:?}"
    );
}

#[test]
fn what_one_shard_opened_another_may_close() {
    let registry = Registry::new();
    let shards = registry.sharded_gauge::<()>("open", "Open.", 2).unwrap();
    shards[0].add((), 5);
    shards[1].sub((), 3);
    assert_eq!(samples(&registry, "open"), ["open 2"]);
}

#[test]
fn values_known_elsewhere_are_asked_for_at_each_scrape() {
    let registry = Registry::new();
    let asked = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let count = Arc::clone(&asked);
    let families = vec![super::Family::gauge("depth", "Depth.").labels(&["queue"])];
    registry
        .collector(families, move |sink| {
            let times = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
            sink.set("depth", &["ranked"], f64::from(times));
        })
        .unwrap();
    assert_eq!(samples(&registry, "depth"), [r#"depth{queue="ranked"} 1"#]);
    assert_eq!(samples(&registry, "depth"), [r#"depth{queue="ranked"} 2"#]);
}

#[test]
fn histograms_count_what_they_observe() {
    let registry = Registry::new();
    let histogram = registry
        .histogram("wait_seconds", "Wait.", &[0.1, 1.0])
        .unwrap();
    histogram.observe(0.5);
    assert_eq!(histogram.count(), 1);
    let lines = samples(&registry, "wait_seconds");
    assert!(
        lines.contains(&r#"wait_seconds_bucket{le="0.1"} 0"#.to_owned()),
        "{lines:?}"
    );
    assert!(
        lines.contains(&r#"wait_seconds_bucket{le="1"} 1"#.to_owned()),
        "{lines:?}"
    );
}

#[test]
fn the_http_metrics_of_a_service_are_shared_by_its_listeners() {
    let registry = Registry::new();
    registry.http().unwrap().declare("lobby", &[200]);
    let clone = registry.clone();
    clone
        .http()
        .unwrap()
        .record("lobby", 200, std::time::Duration::ZERO);
    let expected = r#"rallypoint_http_requests_total{code="200",handler="lobby"} 1"#;
    assert_eq!(
        samples(&registry, "rallypoint_http_requests_total"),
        [expected]
    );
}
