//! Users whom the operator keeps out for a time: what they sign is refused with 403 (RFC 8656 §7.4)
//! although it is right. Without it a kicked user is back in a second.

use std::collections::BTreeMap;

use crate::clock::Tick;

/// Users that can be kept out at a time.
pub const MAX_BLOCKED_USERS: usize = 1024;

/// Who is kept out, and until when.
#[derive(Default)]
pub(crate) struct Blocks(BTreeMap<Box<str>, Tick>);

impl Blocks {
    /// Keeps a user out, in place of what was said of it before. False if too many are.
    pub(crate) fn block(&mut self, user: &str, now: Tick, until: Tick) -> bool {
        self.0.retain(|_, end| *end > now);
        if self.0.len() >= MAX_BLOCKED_USERS && !self.0.contains_key(user) {
            return false;
        }
        self.0.insert(user.into(), until);
        true
    }

    /// Lets a user in again. False if it was not kept out.
    pub(crate) fn unblock(&mut self, user: &str, now: Tick) -> bool {
        self.0.remove(user).is_some_and(|until| until > now)
    }

    pub(crate) fn contains(&self, user: &str, now: Tick) -> bool {
        self.0.get(user).is_some_and(|until| *until > now)
    }

    /// Who is kept out now, by name.
    pub(crate) fn iter(&self, now: Tick) -> impl Iterator<Item = (&str, Tick)> {
        let live = self.0.iter().filter(move |(_, until)| **until > now);
        live.map(|(user, until)| (&**user, *until))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn table_is_bounded_and_what_has_passed_makes_room() {
        let start = Tick::default();
        let later = |seconds| start.after(Duration::from_secs(seconds));
        let mut blocks = Blocks::default();
        for n in 0..MAX_BLOCKED_USERS {
            assert!(blocks.block(&format!("user {n}"), start, later(10)));
        }
        assert!(!blocks.block("one more", start, later(10)));
        assert!(blocks.block("user 7", start, later(20)), "is listed");
        assert!(blocks.contains("user 8", later(9)));
        assert!(!blocks.contains("user 8", later(10)));
        assert!(blocks.block("one more", later(10), later(20)));
        let listed: Vec<_> = blocks.iter(later(11)).map(|(user, _)| user).collect();
        assert_eq!(listed, ["one more", "user 7"]);
        assert!(blocks.unblock("user 7", later(11)));
        assert!(!blocks.unblock("user 7", later(11)));
        assert!(!blocks.unblock("one more", later(20)), "it had passed");
    }
}
