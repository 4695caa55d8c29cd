//! USE-CANDIDATE (RFC 8445 section 16.1).

flag_attribute! {
    /// Nominates the pair this check is for.
    UseCandidate = USE_CANDIDATE
}
