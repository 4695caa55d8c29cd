//! What the network says of datagrams that a relay socket sent to peers: told to the client (RFC 8656 §11.5).

use net_io::IcmpError;
use stun_wire::attribute::Icmp;
use turn_relay_proto::{Now, Relay, RelayAddr, Verdict};

use crate::counters::Told;
use crate::outward::Outward;
use crate::sockets::SocketKey;
use crate::stream::Kind;

/// Errors taken from one socket in a round: whoever makes them up in bulk does not hold up the others.
const ERRORS: usize = 16;

/// Passes on what waits at a relay socket. True: there may be more.
pub(crate) fn serve(
    relay: &mut Relay,
    outward: &mut Outward,
    now: Now,
    (key, addr): (SocketKey, RelayAddr),
    reply: &mut Vec<u8>,
) -> bool {
    for _ in 0..ERRORS {
        let Some(error) = outward.sockets.next_peer_error(key) else {
            return false;
        };
        let verdict = relay.handle_peer_error(now, addr, error.to, told(error), reply);
        let outcome = if let Verdict::Reply { path } = verdict {
            outward.send_to_client(path, &[reply], Kind::Data);
            Told::Told
        } else {
            Told::Dropped
        };
        outward.counters.peer_errors.inc(outcome);
    }
    true
}

/// RFC 8656 §18.13: the data is the MTU where the error is "too big", and 0 otherwise.
fn told(error: IcmpError) -> Icmp {
    let is_too_big = match error.to {
        std::net::SocketAddr::V4(_) => (error.icmp_type, error.code) == (3, 4),
        std::net::SocketAddr::V6(_) => error.icmp_type == 2,
    };
    Icmp {
        icmp_type: error.icmp_type,
        code: error.code.into(),
        data: if is_too_big { error.info } else { 0 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_too_big_has_data() {
        let tell = |to: &str, icmp_type, code| {
            let error = IcmpError {
                to: to.parse().unwrap(),
                icmp_type,
                code,
                info: 1280,
            };
            told(error).data
        };
        assert_eq!(tell("192.0.2.1:9", 3, 4), 1280);
        assert_eq!(tell("192.0.2.1:9", 3, 3), 0);
        assert_eq!(tell("192.0.2.1:9", 2, 0), 0);
        assert_eq!(tell("[2001:db8::1]:9", 2, 0), 1280);
        assert_eq!(tell("[2001:db8::1]:9", 3, 4), 0);
    }
}
