//! The life of a model, as a pure table: which step may follow which.

use std::fmt;

/// Where a model is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Known, not in memory.
    Unloaded,
    Loading,
    /// Serving.
    Ready,
    /// Takes no new requests; those it has run on.
    Draining,
    /// Giving its memory back.
    Unloading,
    /// Cannot serve; an admin may load it again.
    Failed(String),
}

/// What can happen to a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    LoadStarted,
    Loaded,
    LoadFailed(String),
    DrainStarted,
    Drained,
    Released,
    /// It was unloaded, but its memory did not come back.
    ReleaseFailed(String),
}

impl State {
    /// The names of all states, for metrics.
    pub const NAMES: [&'static str; 6] = ["unloaded", "loading", "ready", "draining", "unloading", "failed"];

    pub fn name(&self) -> &'static str {
        match self {
            Self::Unloaded => Self::NAMES[0],
            Self::Loading => Self::NAMES[1],
            Self::Ready => Self::NAMES[2],
            Self::Draining => Self::NAMES[3],
            Self::Unloading => Self::NAMES[4],
            Self::Failed(_) => Self::NAMES[5],
        }
    }

    /// The state after `event`; `None` if it cannot happen here.
    #[must_use]
    pub fn after(&self, event: Event) -> Option<Self> {
        use Event as E;
        match (self, event) {
            (Self::Unloaded | Self::Failed(_), E::LoadStarted) => Some(Self::Loading),
            (Self::Loading, E::Loaded) => Some(Self::Ready),
            (Self::Loading, E::LoadFailed(reason)) => Some(Self::Failed(reason)),
            (Self::Ready, E::DrainStarted) => Some(Self::Draining),
            (Self::Draining, E::Drained) => Some(Self::Unloading),
            (Self::Unloading, E::Released) => Some(Self::Unloaded),
            (Self::Unloading, E::ReleaseFailed(reason)) => Some(Self::Failed(reason)),
            _ => None,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_of_state_and_event_is_decided() {
        let why = || "why".to_owned();
        let states =
            [State::Unloaded, State::Loading, State::Ready, State::Draining, State::Unloading, State::Failed(why())];
        let events = [
            Event::LoadStarted,
            Event::Loaded,
            Event::LoadFailed(why()),
            Event::DrainStarted,
            Event::Drained,
            Event::Released,
            Event::ReleaseFailed(why()),
        ];
        // One row for each state, one column for each event; "-" is illegal.
        let expected = [
            ["loading", "-", "-", "-", "-", "-", "-"],
            ["-", "ready", "failed", "-", "-", "-", "-"],
            ["-", "-", "-", "draining", "-", "-", "-"],
            ["-", "-", "-", "-", "unloading", "-", "-"],
            ["-", "-", "-", "-", "-", "unloaded", "failed"],
            ["loading", "-", "-", "-", "-", "-", "-"],
        ];
        for (state, row) in states.iter().zip(expected) {
            for (event, want) in events.iter().zip(row) {
                let got = state.after(event.clone()).map_or("-", |next| next.name());
                assert_eq!(got, want, "{state} + {event:?}");
            }
        }
    }
}
