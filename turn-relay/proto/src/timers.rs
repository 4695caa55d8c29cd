//! The one deadline queue. Everything that ends by itself has one entry, which says when and why;
//! the earliest is read in O(1), an entry is set, moved or removed in O(log n).
//!
//! A binary heap whose entries know their place: nothing stale ever waits in it, so the answer to
//! "when next, and why" is always true.

use slab::Slab;

use crate::clock::Tick;
use crate::room::Room;
use crate::verdict::Reason;

/// Names an entry until it is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimerId(usize);

/// Deadlines of owners of type `K`.
pub(crate) struct Timers<K> {
    heap: Vec<Entry<K>>,
    /// Where in the heap the entry of a `TimerId` is.
    places: Slab<usize>,
    room: Room,
}

#[derive(Clone, Copy)]
struct Entry<K> {
    at: Tick,
    reason: Reason,
    owner: K,
    id: TimerId,
}

impl<K: Copy> Timers<K> {
    pub(crate) fn new() -> Self {
        Self {
            heap: Vec::new(),
            places: Slab::new(),
            room: Room::default(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    /// A new deadline.
    pub(crate) fn insert(&mut self, at: Tick, reason: Reason, owner: K) -> TimerId {
        let id = TimerId(self.places.insert(self.heap.len()));
        self.heap.push(Entry {
            at,
            reason,
            owner,
            id,
        });
        self.rise(self.heap.len() - 1);
        id
    }

    /// Moves a deadline.
    pub(crate) fn set(&mut self, id: TimerId, at: Tick, reason: Reason) {
        let Some(&place) = self.places.get(id.0) else {
            return;
        };
        if let Some(entry) = self.heap.get_mut(place) {
            entry.at = at;
            entry.reason = reason;
            self.rise(place);
            if let Some(&place) = self.places.get(id.0) {
                self.sink(place);
            }
        }
    }

    /// Takes a deadline out.
    pub(crate) fn remove(&mut self, id: TimerId) {
        let Some(place) = self.places.try_remove(id.0) else {
            return;
        };
        self.heap.swap_remove(place);
        if let Some(moved) = self.heap.get(place) {
            if let Some(known) = self.places.get_mut(moved.id.0) {
                *known = place;
            }
            self.rise(place);
            self.sink(place);
        }
        let len = self.heap.len();
        if len == 0 {
            self.heap.shrink_to_fit();
            self.places.shrink_to_fit();
        } else if self.room.is_too_large(len, self.places.capacity()) {
            self.heap.shrink_to(2 * len);
            self.places.shrink_to_fit();
        }
    }

    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<(Tick, Reason)> {
        self.heap.first().map(|entry| (entry.at, entry.reason))
    }

    /// The owner of the earliest deadline if it has come. The entry stays: the owner moves or
    /// removes it.
    pub(crate) fn due(&self, now: Tick) -> Option<K> {
        self.heap
            .first()
            .filter(|entry| entry.at <= now)
            .map(|entry| entry.owner)
    }

    fn rise(&mut self, mut place: usize) {
        while place > 0 {
            let parent = (place - 1) / 2;
            if !self.earlier(place, parent) {
                return;
            }
            self.swap(place, parent);
            place = parent;
        }
    }

    fn sink(&mut self, mut place: usize) {
        loop {
            let (left, right) = (2 * place + 1, 2 * place + 2);
            let child = if self.earlier(right, left) {
                right
            } else {
                left
            };
            if !self.earlier(child, place) {
                return;
            }
            self.swap(place, child);
            place = child;
        }
    }

    /// A place behind the end is never earlier.
    fn earlier(&self, a: usize, b: usize) -> bool {
        match (self.heap.get(a), self.heap.get(b)) {
            (Some(a), Some(b)) => a.at < b.at,
            (_, None) | (None, _) => false,
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        for place in [a, b] {
            let known = self
                .heap
                .get(place)
                .and_then(|entry| self.places.get_mut(entry.id.0));
            if let Some(known) = known {
                *known = place;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Tick {
        Tick::default().after(Duration::from_secs(seconds))
    }

    #[test]
    fn answers_when_and_why_and_whose() {
        let mut timers = Timers::new();
        assert_eq!(timers.next(), None);
        let late = timers.insert(at(9), Reason::Allocation, 'a');
        timers.insert(at(5), Reason::Channel, 'b');
        assert_eq!(timers.next(), Some((at(5), Reason::Channel)));
        assert_eq!(timers.due(at(4)), None);
        assert_eq!(timers.due(at(5)), Some('b'));
        timers.set(late, at(1), Reason::Permission);
        assert_eq!(timers.next(), Some((at(1), Reason::Permission)));
        timers.remove(late);
        assert_eq!(timers.next(), Some((at(5), Reason::Channel)));
    }

    proptest! {
        #[test]
        fn agrees_with_a_sorted_list(
            acts in prop::collection::vec((0_u8..3, 0_usize..16, 0_u64..50), 1..200),
        ) {
            let mut timers = Timers::new();
            let mut model: Vec<(TimerId, Tick)> = Vec::new();
            for (act, which, second) in acts {
                match act {
                    0 => model.push((
                        timers.insert(at(second), Reason::Allocation, ()),
                        at(second),
                    )),
                    1 if !model.is_empty() => {
                        let entry = which % model.len();
                        model[entry].1 = at(second);
                        timers.set(model[entry].0, at(second), Reason::Channel);
                    }
                    2 if !model.is_empty() => {
                        let (id, _) = model.swap_remove(which % model.len());
                        timers.remove(id);
                        timers.remove(id); // a second time does nothing
                    }
                    _ => {}
                }
                prop_assert_eq!(
                    timers.next().map(|(at, _)| at),
                    model.iter().map(|(_, at)| *at).min()
                );
                prop_assert_eq!(timers.len(), model.len());
            }
        }
    }
}
