//! Room for as many sockets as a run needs.

use super::LoadError;

/// What a process has open beside its sockets.
const BESIDE: u64 = 64;

/// Raises this process's limit of open files as far as `sockets` need it.
///
/// # Errors
/// The system does not let it be raised so far.
#[cfg(unix)]
pub(crate) fn make_room(sockets: u64) -> Result<(), LoadError> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let needed = sockets + BESIDE;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let wanted = Rlimit {
        current: Some(needed),
        // Raising this one too takes a privilege.
        maximum: limit.maximum.map(|maximum| maximum.max(needed)),
    };
    setrlimit(Resource::Nofile, wanted).map_err(|_| LoadError::Descriptors {
        needed,
        limit: limit.maximum.unwrap_or(u64::MAX),
    })
}

/// Elsewhere sockets are not bounded so.
#[cfg(not(unix))]
pub(crate) fn make_room(_sockets: u64) -> Result<(), LoadError> {
    Ok(())
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_enough_and_what_cannot_be_had_is_told() {
        assert!(make_room(1).is_ok());
        // More than fs.nr_open ever is, whoever asks.
        let refused = make_room(1 << 40).expect_err("too many").to_string();
        assert!(refused.contains("1099511627840 open files"), "{refused}");
    }
}
