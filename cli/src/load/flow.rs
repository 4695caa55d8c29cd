//! One flow's arithmetic: what is in flight, what has arrived, what was lost.

/// Packets of one flow, numbered from 0.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    window: u64,
    sent: u64,
    received: u64,
    /// Behind the highest number that has arrived: what came before it and is missing was lost.
    reached: u64,
    /// Numbers below this are waited for no longer.
    given_up: u64,
    /// What `reached` was when [`Self::give_up_if_stalled`] last looked.
    reached_before: u64,
    out_of_order: u64,
}

impl Flow {
    pub(crate) fn new(window: u64) -> Self {
        Self {
            window,
            ..Self::default()
        }
    }

    /// Packets that may be sent.
    pub(crate) fn room(&self) -> u64 {
        let in_flight = self.sent - self.reached.max(self.given_up);
        self.window.saturating_sub(in_flight)
    }

    /// The number of the packet to send.
    pub(crate) fn take_number(&mut self) -> u64 {
        self.sent += 1;
        self.sent - 1
    }

    /// Notes an arrival; false if no such packet was ever sent.
    pub(crate) fn arrived(&mut self, number: u64) -> bool {
        if number >= self.sent {
            return false;
        }
        if number < self.reached {
            self.out_of_order += 1;
        } else {
            self.received += 1;
            self.reached = number + 1;
        }
        true
    }

    /// To be called now and then: a flow that has not moved since the last call has lost all that is in flight.
    pub(crate) fn give_up_if_stalled(&mut self) {
        if self.reached == self.reached_before {
            self.given_up = self.sent;
        }
        self.reached_before = self.reached;
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// All that arrived, each once unless the network doubled it.
    pub(crate) fn received(&self) -> u64 {
        self.received + self.out_of_order
    }

    /// Behind one with a higher number, or twice.
    pub(crate) fn out_of_order(&self) -> u64 {
        self.out_of_order
    }

    pub(crate) fn missing(&self) -> u64 {
        self.sent.saturating_sub(self.received())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow_with(sent: u64) -> Flow {
        let mut flow = Flow::new(8);
        for number in 0..sent {
            assert_eq!(flow.take_number(), number);
        }
        flow
    }

    #[test]
    fn window_opens_with_what_arrives() {
        let mut flow = flow_with(8);
        assert_eq!(flow.room(), 0);
        assert!(flow.arrived(0) && flow.arrived(1));
        assert_eq!(flow.room(), 2);
        assert_eq!((flow.received(), flow.missing()), (2, 6));
    }

    #[test]
    fn a_gap_is_loss_and_no_longer_in_flight() {
        let mut flow = flow_with(8);
        assert!(flow.arrived(7));
        assert_eq!((flow.room(), flow.missing()), (8, 7));
    }

    #[test]
    fn late_packets_are_received_and_out_of_order() {
        let mut flow = flow_with(3);
        assert!(flow.arrived(2) && flow.arrived(1));
        assert_eq!(
            (flow.received(), flow.out_of_order(), flow.missing()),
            (2, 1, 1)
        );
    }

    #[test]
    fn a_flow_that_lost_its_window_goes_on() {
        let mut flow = flow_with(8);
        assert!(flow.arrived(0));
        flow.give_up_if_stalled();
        assert_eq!(flow.room(), 1, "it has moved since the start");
        flow.give_up_if_stalled();
        assert_eq!((flow.room(), flow.missing()), (8, 7));
    }

    #[test]
    fn what_was_never_sent_cannot_arrive() {
        let mut flow = flow_with(1);
        assert!(!flow.arrived(1));
        assert_eq!(flow.received(), 0);
    }
}
