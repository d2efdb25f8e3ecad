//! Whose turn it is among the models, fairly by tokens: start-time fair queueing
//! (<https://doi.org/10.1109/90.649569>) with one step as the packet.
//!
//! The clock stands where the model served last began its step. Who was idle starts there: it has
//! neither saved up a claim nor run into a debt.

use std::collections::BTreeMap;

/// Tokens that each model was given.
#[derive(Debug, Default)]
pub struct Turns {
    clock: u64,
    served: BTreeMap<u64, u64>,
}

impl Turns {
    /// A model has work again, or for the first time.
    pub fn wake(&mut self, model: u64) {
        let served = self.served.entry(model).or_default();
        *served = self.clock.max(*served);
    }

    /// A model is gone.
    pub fn forget(&mut self, model: u64) {
        self.served.remove(&model);
    }

    /// These models, the one that was given the fewest tokens first.
    pub fn order(&self, models: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let mut models: Vec<u64> = models.into_iter().collect();
        models.sort_by_key(|model| (self.served.get(model).copied().unwrap_or(0), *model));
        models
    }

    /// A model was given a step of so many tokens.
    pub fn charge(&mut self, model: u64, tokens: usize) {
        let served = self.served.entry(model).or_default();
        self.clock = self.clock.max(*served);
        *served += tokens as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tokens each model gets in `steps` steps of the given sizes.
    fn run(turns: &mut Turns, sizes: &[(u64, usize)], steps: usize) -> BTreeMap<u64, usize> {
        let mut got: BTreeMap<u64, usize> = sizes.iter().map(|(model, _)| (*model, 0)).collect();
        for _ in 0..steps {
            let first = turns.order(sizes.iter().map(|(model, _)| *model))[0];
            let size = sizes.iter().find(|(model, _)| *model == first).unwrap().1;
            turns.charge(first, size);
            *got.get_mut(&first).unwrap() += size;
        }
        got
    }

    fn awake(models: &[u64]) -> Turns {
        let mut turns = Turns::default();
        models.iter().for_each(|model| turns.wake(*model));
        turns
    }

    #[test]
    fn models_get_equal_tokens_whatever_the_size_of_their_steps() {
        let got = run(&mut awake(&[1, 2, 3]), &[(1, 20), (2, 1), (3, 7)], 10_000);
        let (least, most) = (got.values().min().unwrap(), got.values().max().unwrap());
        assert!(most - least <= 20, "{got:?}");
    }

    #[test]
    fn a_newcomer_starts_level() {
        let mut turns = awake(&[1, 2]);
        run(&mut turns, &[(1, 5), (2, 5)], 1000);
        turns.wake(3);
        let got = run(&mut turns, &[(1, 5), (2, 5), (3, 5)], 300);
        assert!(got.values().all(|tokens| (495..=505).contains(tokens)), "{got:?}");
    }

    #[test]
    fn who_was_idle_has_saved_up_no_claim() {
        let mut turns = awake(&[1, 2]);
        run(&mut turns, &[(1, 5)], 1000);
        turns.wake(2);
        let got = run(&mut turns, &[(1, 5), (2, 5)], 200);
        assert!(got.values().all(|tokens| (495..=505).contains(tokens)), "{got:?}");
    }

    #[test]
    fn who_was_alone_for_long_has_no_debt() {
        let mut turns = awake(&[1]);
        run(&mut turns, &[(1, 5)], 1000);
        turns.wake(2);
        run(&mut turns, &[(2, 5)], 1);
        turns.wake(1);
        let got = run(&mut turns, &[(1, 5), (2, 5)], 200);
        assert!(got.values().all(|tokens| (495..=505).contains(tokens)), "{got:?}");
    }
}
