//! What attention of one layer is like, beside its keys and values.

/// How scores become weights.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    /// What the product of a query and a key is multiplied by.
    pub scale: f32,
    /// Tokens that a query sees, itself included; all before it if there is no window.
    pub window: Option<usize>,
    /// Scores are bent to stay below this: `cap * tanh(score / cap)`.
    pub soft_cap: Option<f32>,
}
