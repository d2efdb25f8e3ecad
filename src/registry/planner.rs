//! Who has to go so that a model fits. Pure: it is asked, it answers, it changes nothing.

use std::time::Instant;

use crate::domain::ModelId;

/// A model that takes room now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resident {
    pub id: ModelId,
    pub bytes: u64,
    pub standing: Standing,
    /// When it was last in use.
    pub last_used: Instant,
}

/// What may be done with a resident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Ready, unused and not pinned.
    Evictable,
    /// Holds its room for now: in use, or being loaded.
    Busy,
    /// On its way out: its bytes will come back by themselves.
    Leaving,
    /// Stays for good: pinned, or its memory was not given back.
    Stays,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    Fits,
    /// It fits once these are gone, in this order, and those that leave already.
    FitsAfter(Vec<ModelId>),
    /// Models in use hold the room; ask again when one of them is free.
    Busy,
    /// No waiting helps: this much can be made free at most.
    NeverFits {
        free_at_most: u64,
    },
}

/// Whether `needed` bytes fit beside `residents` in `budget`. Victims are the least recently used.
pub fn admit(needed: u64, budget: u64, residents: &[Resident]) -> Admission {
    let sum = |wanted: &[Standing]| {
        let counted = residents.iter().filter(|resident| wanted.contains(&resident.standing));
        counted.map(|resident| resident.bytes).fold(0, u64::saturating_add)
    };
    let used = sum(&[Standing::Evictable, Standing::Busy, Standing::Leaving, Standing::Stays]);
    let free = budget.saturating_sub(used);
    let free_at_most = budget.saturating_sub(sum(&[Standing::Stays]));
    if needed <= free {
        return Admission::Fits;
    }
    if needed > free_at_most {
        return Admission::NeverFits { free_at_most };
    }
    let mut coming = free.saturating_add(sum(&[Standing::Leaving]));
    let mut evictable: Vec<&Resident> =
        residents.iter().filter(|resident| resident.standing == Standing::Evictable).collect();
    evictable.sort_by(|a, b| a.last_used.cmp(&b.last_used).then_with(|| a.id.cmp(&b.id)));
    let mut victims = Vec::new();
    for resident in evictable {
        if needed <= coming {
            break;
        }
        coming = coming.saturating_add(resident.bytes);
        victims.push(resident.id.clone());
    }
    if needed <= coming { Admission::FitsAfter(victims) } else { Admission::Busy }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use Standing::{Busy, Evictable, Leaving, Stays};

    /// `residents` stand from the least to the most recently used.
    fn ask(needed: u64, residents: &[(&str, u64, Standing)]) -> Admission {
        let start = Instant::now();
        let residents: Vec<Resident> = (0..)
            .zip(residents)
            .map(|(age, (id, bytes, standing))| Resident {
                id: (*id).into(),
                bytes: *bytes,
                standing: *standing,
                last_used: start + Duration::from_secs(age),
            })
            .collect();
        admit(needed, 100, &residents)
    }

    fn after(victims: &[&str]) -> Admission {
        Admission::FitsAfter(victims.iter().map(|id| ModelId::from(*id)).collect())
    }

    #[test]
    fn room_that_is_there_is_taken() {
        assert_eq!(ask(60, &[("a", 40, Evictable)]), Admission::Fits);
    }

    #[test]
    fn the_least_recently_used_go_first_and_no_more_than_needed() {
        let residents = [("old", 30, Evictable), ("middle", 30, Evictable), ("new", 30, Evictable)];
        assert_eq!(ask(40, &residents), after(&["old"]));
        assert_eq!(ask(60, &residents), after(&["old", "middle"]));
    }

    #[test]
    fn who_leaves_already_is_counted_before_anyone_is_evicted() {
        assert_eq!(ask(50, &[("a", 60, Leaving), ("b", 40, Evictable)]), after(&[]));
    }

    #[test]
    fn models_in_use_are_waited_for() {
        assert_eq!(ask(50, &[("a", 60, Busy), ("b", 30, Evictable)]), Admission::Busy);
    }

    #[test]
    fn what_stays_for_good_decides_what_never_fits() {
        assert_eq!(ask(50, &[("a", 60, Stays)]), Admission::NeverFits { free_at_most: 40 });
        assert_eq!(ask(101, &[]), Admission::NeverFits { free_at_most: 100 });
        assert_eq!(ask(u64::MAX, &[("a", u64::MAX, Busy)]), Admission::NeverFits { free_at_most: 100 });
    }
}
