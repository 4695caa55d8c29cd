//! The numbers of ERROR-CODE, by the RFC that defines them.

/// RFC 8489: ask the server in ALTERNATE-SERVER.
pub const TRY_ALTERNATE: u16 = 300;
/// RFC 8489: malformed; do not retry unchanged.
pub const BAD_REQUEST: u16 = 400;
/// RFC 8489: no credentials, or wrong ones.
pub const UNAUTHENTICATED: u16 = 401;
/// RFC 8656: valid, but not allowed.
pub const FORBIDDEN: u16 = 403;
/// RFC 8016: mobility is not to be had.
pub const MOBILITY_FORBIDDEN: u16 = 405;
/// RFC 8489: a comprehension-required attribute was not understood.
pub const UNKNOWN_ATTRIBUTE: u16 = 420;
/// RFC 8656: there is no allocation on this 5-tuple, or there is one.
pub const ALLOCATION_MISMATCH: u16 = 437;
/// RFC 8489: the nonce is too old; retry with the new one.
pub const STALE_NONCE: u16 = 438;
/// RFC 8656: the address family is not supported.
pub const ADDRESS_FAMILY_NOT_SUPPORTED: u16 = 440;
/// RFC 8656: the allocation was made with other credentials.
pub const WRONG_CREDENTIALS: u16 = 441;
/// RFC 8656: the transport towards peers is not supported.
pub const UNSUPPORTED_TRANSPORT_PROTOCOL: u16 = 442;
/// RFC 8656: the peer's address is of another family than the relayed one.
pub const PEER_ADDRESS_FAMILY_MISMATCH: u16 = 443;
/// RFC 6062: there is a connection to that peer already.
pub const CONNECTION_ALREADY_EXISTS: u16 = 446;
/// RFC 6062: the connection to the peer failed or took too long.
pub const CONNECTION_TIMEOUT_OR_FAILURE: u16 = 447;
/// RFC 8656: the user has enough allocations.
pub const ALLOCATION_QUOTA_REACHED: u16 = 486;
/// RFC 8445: both agents claim the same role.
pub const ROLE_CONFLICT: u16 = 487;
/// RFC 8489: a passing error of the server.
pub const SERVER_ERROR: u16 = 500;
/// RFC 8656: no more ports, or none of the kind asked for.
pub const INSUFFICIENT_CAPACITY: u16 = 508;

/// The reason phrase the RFCs suggest, for programs that send one.
#[must_use]
pub const fn reason(code: u16) -> &'static str {
    match code {
        TRY_ALTERNATE => "Try Alternate",
        BAD_REQUEST => "Bad Request",
        UNAUTHENTICATED => "Unauthenticated",
        FORBIDDEN => "Forbidden",
        MOBILITY_FORBIDDEN => "Mobility Forbidden",
        UNKNOWN_ATTRIBUTE => "Unknown Attribute",
        ALLOCATION_MISMATCH => "Allocation Mismatch",
        STALE_NONCE => "Stale Nonce",
        ADDRESS_FAMILY_NOT_SUPPORTED => "Address Family not Supported",
        WRONG_CREDENTIALS => "Wrong Credentials",
        UNSUPPORTED_TRANSPORT_PROTOCOL => "Unsupported Transport Protocol",
        PEER_ADDRESS_FAMILY_MISMATCH => "Peer Address Family Mismatch",
        CONNECTION_ALREADY_EXISTS => "Connection Already Exists",
        CONNECTION_TIMEOUT_OR_FAILURE => "Connection Timeout or Failure",
        ALLOCATION_QUOTA_REACHED => "Allocation Quota Reached",
        ROLE_CONFLICT => "Role Conflict",
        SERVER_ERROR => "Server Error",
        INSUFFICIENT_CAPACITY => "Insufficient Capacity",
        _ => "",
    }
}
