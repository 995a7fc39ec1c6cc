//! The buffers through which the host and a program talk: inputs, outputs, and the small state of a step.

use super::spec::Spec;
use crate::dtype::DType;
use crate::op::{CONTROL_FIELDS, Place, Purpose, Rows, SAMPLE_FIELDS, View};
use crate::tape::Tape;

/// Buffers that the host writes before a run and reads after it. `[T,1]` unless stated.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// I32: token ids.
    pub ids: View,
    /// I32: the next token's id, or −100.
    pub targets: View,
    /// Factor on the loss of each token.
    pub weight: View,
    /// I32: position in the document.
    pub pos: View,
    /// I32: first key that a token sees.
    pub lo: View,
    /// I32: one past the last.
    pub hi: View,
    /// I32: first query that sees a key.
    pub qlo: View,
    /// I32: one past the last.
    pub qhi: View,
    /// `lo` and `qhi` of the layers without a window, if only some layers have it.
    pub full: Option<(View, View)>,
    /// `[1, d/2]`: angle of one position for each pair.
    pub inv_freq: View,
    /// I32 `[1,2]`: key of the random numbers of this micro-step.
    pub seed: View,
    /// `[1,1]`: size of the noise on the embeddings in this micro-step, where there is any.
    pub noise: Option<View>,
    /// `[1, CONTROL_FIELDS]`, see [`crate::op::Control`].
    pub control: View,
    /// Log-probability of each target.
    pub logp: View,
    /// I32: 1 where the target is the most probable token.
    pub hit: View,
    /// `[1,1]`: the router's auxiliary loss, where there is one.
    pub aux: Option<View>,
    /// Present if there are `Logits` phases.
    pub selected: Option<Selected>,
}

/// Rows of the stream whose logits are wanted, and what comes of them.
#[derive(Clone, Copy, Debug)]
pub struct Selected {
    /// I32 `[n,1]`: the rows.
    pub rows: View,
    /// `[n,V]`.
    pub logits: View,
    /// `[1, SAMPLE_FIELDS]`: how tokens are chosen, see [`crate::op::SampleField`].
    pub rule: View,
    /// I32 `[n,1]`: the token chosen for each row.
    pub token: View,
}

/// Declares the buffers that `spec` needs.
pub fn declare_exchange(t: &mut Tape, spec: &Spec) -> Exchange {
    let token =
        |t: &mut Tape, name: &str, dtype| t.buf(name, Rows::Tokens(1), 1, dtype, Place::Resident(Purpose::Exchange));
    let fixed = |t: &mut Tape, name: &str, rows, cols, dtype| t.resident(name, rows, cols, dtype, Purpose::Exchange);
    let wide = t.wide();
    let n = spec.logits_rows;
    Exchange {
        ids: token(t, "ids", DType::I32),
        targets: token(t, "targets", DType::I32),
        weight: token(t, "weight", wide),
        pos: token(t, "pos", DType::I32),
        lo: token(t, "lo", DType::I32),
        hi: token(t, "hi", DType::I32),
        qlo: token(t, "qlo", DType::I32),
        qhi: token(t, "qhi", DType::I32),
        full: (!spec.config.full_layers.is_empty())
            .then(|| (token(t, "full_lo", DType::I32), token(t, "full_qhi", DType::I32))),
        inv_freq: fixed(t, "inv_freq", 1, spec.config.head_dim / 2, wide),
        seed: fixed(t, "seed", 1, 2, DType::I32),
        noise: spec.neftune.map(|_| fixed(t, "noise", 1, 1, wide)),
        control: fixed(t, "control", 1, CONTROL_FIELDS, wide),
        logp: token(t, "logp", wide),
        hit: token(t, "hit", DType::I32),
        aux: spec.loss.aux.map(|_| fixed(t, "aux", 1, 1, wide)),
        selected: (n > 0).then(|| Selected {
            rows: fixed(t, "select", n, 1, DType::I32),
            logits: fixed(t, "logits", n, spec.config.vocab_size, wide),
            rule: fixed(t, "rule", 1, SAMPLE_FIELDS, wide),
            token: fixed(t, "token", n, 1, DType::I32),
        }),
    }
}
