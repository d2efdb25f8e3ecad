//! The books: bytes reserved before a load, committed at their measured size after it, released
//! when they are seen to be back. What is on the books never exceeds the budget.

use std::collections::BTreeMap;

use crate::domain::ModelId;
use crate::engine::Footprint;

/// One model's page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A load is under way; the estimate is held for it.
    Reserved(Footprint),
    /// It is loaded.
    Committed { estimated: Footprint, measured: Footprint },
}

impl Entry {
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Reserved(estimated) => estimated.total(),
            Self::Committed { measured, .. } => measured.total(),
        }
    }
}

/// A load that measured more than there is room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overrun {
    pub measured: u64,
    pub estimated: u64,
    /// What it could have taken at most.
    pub allowed: u64,
}

#[derive(Clone, Debug)]
pub struct Ledger {
    budget: u64,
    entries: BTreeMap<ModelId, Entry>,
}

impl Ledger {
    pub fn new(budget: u64) -> Self {
        Self { budget, entries: BTreeMap::new() }
    }

    pub fn budget(&self) -> u64 {
        self.budget
    }

    /// Bytes on the books.
    pub fn used(&self) -> u64 {
        self.entries.values().map(Entry::bytes).fold(0, u64::saturating_add)
    }

    pub fn free(&self) -> u64 {
        self.budget.saturating_sub(self.used())
    }

    pub fn entry(&self, model: &ModelId) -> Option<&Entry> {
        self.entries.get(model)
    }

    /// Bytes of one model, 0 if it is not on the books.
    pub fn bytes(&self, model: &ModelId) -> u64 {
        self.entry(model).map_or(0, Entry::bytes)
    }

    /// Holds the estimate of a load. `false`, and nothing changed, if there is no room or the
    /// model is on the books already.
    #[must_use]
    pub fn reserve(&mut self, model: &ModelId, estimated: Footprint) -> bool {
        if self.entries.contains_key(model) || estimated.total() > self.free() {
            return false;
        }
        self.entries.insert(model.clone(), Entry::Reserved(estimated));
        true
    }

    /// Turns a reservation into what was measured.
    ///
    /// # Errors
    /// [`Overrun`] if that is more than there is room for; the reservation stays, and the caller
    /// has to undo the load. Without a reservation nothing is allowed.
    pub fn commit(&mut self, model: &ModelId, measured: Footprint) -> Result<(), Overrun> {
        let Some(Entry::Reserved(estimated)) = self.entries.get(model).copied() else {
            return Err(Overrun { measured: measured.total(), estimated: 0, allowed: 0 });
        };
        let allowed = self.free().saturating_add(estimated.total());
        if measured.total() > allowed {
            return Err(Overrun { measured: measured.total(), estimated: estimated.total(), allowed });
        }
        self.entries.insert(model.clone(), Entry::Committed { estimated, measured });
        Ok(())
    }

    /// Takes a model off the books.
    pub fn release(&mut self, model: &ModelId) {
        self.entries.remove(model);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(total: u64) -> Footprint {
        Footprint { weights_private: total, ..Footprint::default() }
    }

    #[test]
    fn a_reservation_is_replaced_by_what_was_measured() {
        let (mut ledger, a) = (Ledger::new(100), ModelId::from("a"));
        assert!(ledger.reserve(&a, bytes(60)));
        assert!(!ledger.reserve(&a, bytes(1)), "on the books already");
        assert!(!ledger.reserve(&"b".into(), bytes(41)), "no room");
        assert_eq!(ledger.commit(&a, bytes(50)), Ok(()));
        assert_eq!((ledger.used(), ledger.free()), (50, 50));
        ledger.release(&a);
        assert_eq!(ledger.used(), 0);
    }

    #[test]
    fn an_overrun_changes_nothing() {
        let (mut ledger, a) = (Ledger::new(100), ModelId::from("a"));
        assert!(ledger.reserve(&a, bytes(60)));
        assert!(ledger.reserve(&"b".into(), bytes(30)));
        assert_eq!(ledger.commit(&a, bytes(71)), Err(Overrun { measured: 71, estimated: 60, allowed: 70 }));
        assert_eq!(ledger.used(), 90);
        assert_eq!(ledger.commit(&a, bytes(70)), Ok(()));
    }

    proptest! {
        #[test]
        fn the_books_never_exceed_the_budget(
            budget in 0u64..1000,
            steps in proptest::collection::vec((0u8..4, 0usize..5, 0u64..600), 0..60),
        ) {
            let mut ledger = Ledger::new(budget);
            let models = ["a", "b", "c", "d", "e"].map(ModelId::from);
            for (step, model, size) in steps {
                match step {
                    0 | 1 => { let _ = ledger.reserve(&models[model], bytes(size)); }
                    2 => { let _ = ledger.commit(&models[model], bytes(size)); }
                    _ => ledger.release(&models[model]),
                }
                prop_assert!(ledger.used() <= budget);
            }
        }
    }
}
