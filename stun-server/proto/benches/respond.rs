//! What one datagram costs the machine, without system calls: `cargo bench -p stun-server-proto`.
//!
//! Each case runs for a fixed number of datagrams, several times over; the best run is printed, since
//! whatever else the machine does can only make a run slower.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a bench reads clocks and prints"
)]

use std::hint::black_box;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use stun_server_proto::{LimitConfig, Responder, SourceLimits, Verdict};
use stun_wire::{AttributeType, Class, MessageWriter, Method, TransactionId};

const DATAGRAMS: u32 = 400_000;
const RUNS: usize = 5;

fn main() {
    let plain = request(|_| {});
    let fingerprinted = request(|writer| {
        writer.fingerprint();
    });
    let unknown = request(|writer| {
        writer.raw(AttributeType(0x7fff), b"????");
    });
    let garbage = vec![0xab; 100];
    let unlimited = LimitConfig {
        per_source: 1_000_000,
        burst: 1_000_000,
        server: 1_000_000_000,
        ..LimitConfig::default()
    };
    let strict = LimitConfig {
        per_source: 1,
        burst: 1,
        ..LimitConfig::default()
    };
    println!("{:<44} {:>9} {:>12}", "datagram", "ns each", "per second");
    measure(
        "Binding request, IPv4, one source",
        &plain,
        &unlimited,
        |_| v4(1),
    );
    measure(
        "Binding request, IPv4, 65,536 sources",
        &plain,
        &unlimited,
        |n| v4(n % 65_536),
    );
    measure(
        "Binding request, IPv6, 65,536 sources",
        &plain,
        &unlimited,
        |n| v6(n % 65_536),
    );
    measure(
        "Binding request with FINGERPRINT",
        &fingerprinted,
        &unlimited,
        |_| v4(1),
    );
    measure("unknown attribute (420)", &unknown, &unlimited, |_| v4(1));
    measure("over its limit", &plain, &strict, |_| v4(1));
    measure("garbage of 100 bytes", &garbage, &unlimited, v4);
}

fn measure(name: &str, datagram: &[u8], config: &LimitConfig, source: impl Fn(u32) -> SocketAddr) {
    let local: SocketAddr = SocketAddr::from(([203, 0, 113, 10], 3478));
    let best = (0..RUNS).map(|_| {
        let start = Instant::now();
        let mut responder = Responder::new(Arc::new(SourceLimits::new(config, [7; 16], start)));
        let mut reply = Vec::with_capacity(128);
        let mut replies = 0_u32;
        for n in 0..DATAGRAMS {
            // The shell reads the clock once a batch; here time moves 1 us a datagram.
            let now = start + Duration::from_micros(n.into());
            let verdict = responder.handle(now, source(n), local, black_box(datagram), &mut reply);
            replies += u32::from(matches!(verdict, Verdict::Reply { .. }));
        }
        black_box(replies);
        start.elapsed()
    });
    let best = best.min().unwrap_or_default().as_secs_f64() / f64::from(DATAGRAMS);
    println!("{name:<44} {:>9.1} {:>12.0}", best * 1e9, 1.0 / best);
}

fn request(build: impl FnOnce(&mut MessageWriter<'_>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let tx = TransactionId(*b"transaction!");
    let mut writer = MessageWriter::new(&mut bytes, Class::Request, Method::BINDING, tx);
    build(&mut writer);
    writer.finish();
    bytes
}

fn v4(n: u32) -> SocketAddr {
    SocketAddr::new(IpAddr::from((0x0a00_0000 + n).to_be_bytes()), 5000)
}

fn v6(n: u32) -> SocketAddr {
    let network = u128::from(n) << 64;
    SocketAddr::new(
        Ipv6Addr::from_bits((0x2001_0db8 << 96) | network).into(),
        5000,
    )
}
