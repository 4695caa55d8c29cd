//! When a table gives back room that it does not need: after a rush, and not for a table that is filled and emptied all the
//! time. Looking through a table costs as much as it has room, so that is done once in so many removals.

/// Room that every table may keep.
const KEPT: usize = 256;

/// One table's.
#[derive(Default)]
pub(crate) struct Room {
    /// Removals since the table was last looked through.
    removed: usize,
}

impl Room {
    /// To be told of each removal, with what the table holds then and has room for. True: three quarters of the room are empty,
    /// and the removals since the last time pay for looking through it.
    pub(crate) fn is_too_large(&mut self, len: usize, capacity: usize) -> bool {
        self.removed += 1;
        let too_large = is_too_large(len, capacity) && self.removed >= capacity / 16;
        if too_large {
            self.removed = 0;
        }
        too_large
    }
}

/// Three quarters of the room are empty.
pub(crate) fn is_too_large(len: usize, capacity: usize) -> bool {
    capacity > KEPT && len <= capacity / 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_looked_through_once_in_a_sixteenth_of_its_room() {
        let mut room = Room::default();
        let mut looks = Vec::new();
        // A table that never gets smaller, as one whose last place is taken.
        for len in (0..4096).rev() {
            if room.is_too_large(len, 4096) {
                looks.push(len);
            }
        }
        assert_eq!(looks, [1024, 768, 512, 256, 0]);
    }

    #[test]
    fn small_tables_and_half_full_ones_keep_their_room() {
        let mut room = Room::default();
        assert!((0..10_000).all(|_| !room.is_too_large(0, KEPT)));
        assert!((0..10_000).all(|_| !room.is_too_large(300, 1024)));
        assert!(room.is_too_large(256, 1024));
    }
}
