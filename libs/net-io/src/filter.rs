//! What a socket takes at all: the system drops the rest before it takes a place in the queue.
//!
//! A queue is short: some hundred small datagrams, a few milliseconds of a flood. Whoever fills it with what nobody
//! would look at a second time pushes out what others wait for. A filter keeps that out at a cost that the sender's
//! packets have anyway. The protocol's own checks stay where they are; a form is what can be told from a few bytes.

use std::ops::RangeInclusive;

/// One form that datagrams may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    /// The first byte.
    pub first_byte: RangeInclusive<u8>,
    /// Bytes at least.
    pub min_len: u32,
    /// Four bytes in network order, and where.
    pub word: Option<(u32, u32)>,
    /// Bits that are 0, and in which byte.
    pub clear: Option<(u32, u8)>,
}

/// Has `socket` take only datagrams of these forms.
#[cfg(target_os = "linux")]
pub(crate) fn attach(socket: &impl std::os::fd::AsFd, forms: &[Form]) -> std::io::Result<()> {
    socket2::SockRef::from(socket).attach_filter(&linux::program(forms))
}

/// Elsewhere everything is taken.
#[cfg(not(target_os = "linux"))]
pub(crate) fn attach<S>(_socket: &S, _forms: &[Form]) -> std::io::Result<()> {
    Ok(())
}

#[cfg(target_os = "linux")]
mod linux {
    use socket2::SockFilter;

    use super::Form;
    use crate::bpf::{
        IF_ANY_BIT, IF_EQUAL, IF_GREATER, IF_GREATER_OR_EQUAL, LOAD_BYTE, LOAD_LENGTH, LOAD_WORD,
        RETURN,
    };

    /// A filter of a UDP socket sees the UDP header first.
    const HEADER: u32 = 8;

    const WHOLE: u32 = u32::MAX;

    /// One instruction; a test says when it is the wrong form.
    enum Step {
        Load(u16, u32),
        WrongUnless(u16, u32),
        WrongIf(u16, u32),
    }

    /// Form by form: the first that fits lets the datagram in.
    pub(super) fn program(forms: &[Form]) -> Vec<SockFilter> {
        let mut program = Vec::new();
        for form in forms {
            let steps = steps(form);
            let count = steps.len();
            for (index, step) in steps.into_iter().enumerate() {
                // To the form that follows, past the return of this one.
                let next = u8::try_from(count - index).expect("a form has at most nine steps");
                program.push(match step {
                    Step::Load(code, k) => SockFilter::new(code, 0, 0, k),
                    Step::WrongUnless(code, k) => SockFilter::new(code, 0, next, k),
                    Step::WrongIf(code, k) => SockFilter::new(code, next, 0, k),
                });
            }
            program.push(SockFilter::new(RETURN, 0, 0, WHOLE));
        }
        program.push(SockFilter::new(RETURN, 0, 0, 0));
        program
    }

    fn steps(form: &Form) -> Vec<Step> {
        let mut steps = vec![
            Step::Load(LOAD_LENGTH, 0),
            Step::WrongUnless(IF_GREATER_OR_EQUAL, HEADER + form.min_len.max(1)),
            Step::Load(LOAD_BYTE, HEADER),
            Step::WrongUnless(IF_GREATER_OR_EQUAL, (*form.first_byte.start()).into()),
            Step::WrongIf(IF_GREATER, (*form.first_byte.end()).into()),
        ];
        if let Some((at, word)) = form.word {
            steps.push(Step::Load(LOAD_WORD, HEADER + at));
            steps.push(Step::WrongUnless(IF_EQUAL, word));
        }
        if let Some((at, bits)) = form.clear {
            steps.push(Step::Load(LOAD_BYTE, HEADER + at));
            steps.push(Step::WrongIf(IF_ANY_BIT, bits.into()));
        }
        steps
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::net::UdpSocket as StdSocket;

    use super::*;
    use crate::{BindOptions, RecvBatch, UdpSocket};

    fn forms() -> [Form; 2] {
        let cookie = Form {
            first_byte: 0x00..=0x3F,
            min_len: 8,
            word: Some((4, 0x2112_A442)),
            clear: Some((3, 0b11)),
        };
        let short = Form {
            first_byte: 0x40..=0x7F,
            min_len: 4,
            word: None,
            clear: None,
        };
        [cookie, short]
    }

    #[test]
    fn only_the_forms_arrive_over_both_families() {
        let right: [&[u8]; 4] = [
            &[0x00, 1, 0, 8, 0x21, 0x12, 0xA4, 0x42],
            &[0x3F, 1, 0, 0xFC, 0x21, 0x12, 0xA4, 0x42, 9],
            &[0x40, 0, 0, 0],
            &[0x7F, 0xFF, 0xFF, 0xFF, 0xFF],
        ];
        let wrong: [&[u8]; 8] = [
            &[],
            &[0x00],
            &[0x40, 0, 0],
            &[0x80, 0, 0, 0, 0, 0, 0, 0],
            &[0xFF; 1400],
            &[0x00, 1, 0, 8, 0x21, 0x12, 0xA4, 0x43],
            &[0x00, 1, 0, 9, 0x21, 0x12, 0xA4, 0x42],
            &[0x00, 1, 0, 8, 0x21, 0x12, 0xA4],
        ];
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let socket = UdpSocket::bind(any.parse().unwrap(), &BindOptions::default()).unwrap();
            socket.admit_only(&forms()).unwrap();
            let sender = StdSocket::bind(any).unwrap();
            // The last one is right: what was before it has arrived or never will.
            for datagram in wrong.iter().chain(&right) {
                sender.send_to(datagram, socket.local_addr()).unwrap();
            }
            let mut batch = RecvBatch::new(32, 2048);
            let mut arrived: Vec<Vec<u8>> = Vec::new();
            while arrived.last().is_none_or(|last| last != right[3]) {
                socket.recv_batch(&mut batch).unwrap();
                arrived.extend(batch.iter().map(|datagram| datagram.bytes.to_vec()));
            }
            assert_eq!(arrived, right.map(<[u8]>::to_vec), "{any}");
            assert_eq!(
                socket.overflow_drops(),
                wrong.len() as u64,
                "{any}: the system counts them"
            );
        }
    }
}
