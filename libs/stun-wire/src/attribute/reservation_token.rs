//! RESERVATION-TOKEN (RFC 8656 section 18.10).

array_attribute! {
    /// Redeems the port that EVEN-PORT reserved.
    ReservationToken = RESERVATION_TOKEN, 8
}
