//! MOBILITY-TICKET (RFC 8016 section 3.3.1).

bytes_attribute! {
    /// The server's opaque ticket to move an allocation; empty in an Allocate request.
    MobilityTicket = MOBILITY_TICKET
}
