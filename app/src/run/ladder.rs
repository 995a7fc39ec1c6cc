//! The ladder of memory policies: the first rung keeps all activations, each further one needs less memory and more time.
//! A run that leaves the choice open takes the fastest mix of rungs that fits.

use super::record::Recorded;
use halfbyte_core::error::Result;
use halfbyte_core::tape::Policy;

/// The policies, from the most memory to the least.
pub const POLICIES: [Policy; 4] = [Policy::Keep, Policy::RecomputeGateUp, Policy::Recompute, Policy::Offload];

/// A policy in words.
pub fn name(policy: Policy) -> &'static str {
    match policy {
        Policy::Keep => "keep activations",
        Policy::RecomputeGateUp => "recompute gate and up",
        Policy::Recompute => "recompute",
        Policy::Offload => "recompute, input in host memory",
    }
}

/// The policy of each block if `counts` blocks follow each of [`POLICIES`]. Those that keep the most come last: their
/// memory is free again when the backward pass recomputes the others.
fn mix(counts: [usize; 4]) -> Vec<Policy> {
    let runs = POLICIES.into_iter().zip(counts).rev();
    let mut policies: Vec<Policy> = runs.flat_map(|(policy, n)| std::iter::repeat_n(policy, n)).collect();
    // The backward pass begins with the last block, so its input is needed right away.
    if let Some(last) = policies.last_mut().filter(|last| **last == Policy::Offload) {
        *last = Policy::Recompute;
    }
    policies
}

/// The policies of `layers` blocks that all follow one.
pub fn everywhere(policy: Policy, layers: usize) -> Vec<Policy> {
    mix(POLICIES.map(|p| if p == policy { layers } else { 0 }))
}

/// The policies that the recipe's `gradient_checkpointing` asks for. Without the key, everything is kept as long as no limit
/// is known.
pub fn by_key(checkpointing: Option<bool>, layers: usize) -> Vec<Policy> {
    everywhere(if checkpointing == Some(true) { Policy::Recompute } else { Policy::Keep }, layers)
}

/// Policies in words: `20 blocks recompute gate and up, 12 keep activations`.
pub fn describe(policies: &[Policy]) -> String {
    let runs = policies.chunk_by(|a, b| a == b).enumerate();
    let words = runs.map(|(i, run)| match (i, run.len()) {
        (_, n) if n == policies.len() => format!("all blocks {}", name(run[0])),
        (0, 1) => format!("1 block: {}", name(run[0])),
        (0, n) => format!("{n} blocks {}", name(run[0])),
        (_, n) => format!("{n} {}", name(run[0])),
    });
    words.collect::<Vec<_>>().join(", ")
}

/// A recorded program and its predicted time.
pub struct Rung {
    /// The program.
    pub recorded: Recorded,
    /// Predicted seconds of a step.
    pub seconds: f64,
}

impl Rung {
    /// The policy of each block.
    pub fn policies(&self) -> &[Policy] {
        &self.recorded.model.spec.policies
    }
}

/// Programs that differ in their policies alone.
pub struct Ladder<'a> {
    layers: usize,
    record: &'a dyn Fn(Vec<Policy>) -> Result<Recorded>,
    seconds: &'a dyn Fn(&Recorded) -> f64,
    /// One program for each of [`POLICIES`].
    pub rungs: Vec<Rung>,
}

impl<'a> Ladder<'a> {
    /// Records the rungs; `seconds` predicts the time of a step.
    pub fn new(
        layers: usize,
        record: &'a dyn Fn(Vec<Policy>) -> Result<Recorded>,
        seconds: &'a dyn Fn(&Recorded) -> f64,
    ) -> Result<Self> {
        let mut ladder = Self { layers, record, seconds, rungs: Vec::new() };
        for policy in POLICIES {
            let rung = ladder.uniform(policy)?;
            ladder.rungs.push(rung);
        }
        Ok(ladder)
    }

    /// The program in which all blocks follow `policy`.
    pub fn uniform(&self, policy: Policy) -> Result<Rung> {
        self.rung(everywhere(policy, self.layers))
    }

    fn rung(&self, policies: Vec<Policy>) -> Result<Rung> {
        let recorded = (self.record)(policies)?;
        Ok(Rung { seconds: (self.seconds)(&recorded), recorded })
    }

    /// The fastest mix that `fits`; `None` if none does.
    pub fn best(&self, fits: &dyn Fn(&Recorded) -> Result<bool>) -> Result<Option<Rung>> {
        let mixes = self.frontier();
        let (mut low, mut high, mut best) = (0, mixes.len(), None);
        while low < high {
            let middle = (low + high) / 2;
            let rung = self.rung(mix(mixes[middle]))?;
            if fits(&rung.recorded)? {
                (high, best) = (middle, Some(rung));
            } else {
                low = middle + 1;
            }
        }
        Ok(best)
    }

    /// The mixes of which no other is both faster and smaller, the fastest first. Time and memory are sums over blocks but
    /// for what is the same on every rung, so those of a mix lie between those of its rungs, in proportion.
    fn frontier(&self) -> Vec<[usize; 4]> {
        let mixed = |counts: &[usize; 4], of: &dyn Fn(&Rung) -> f64| {
            counts.iter().zip(&self.rungs).map(|(n, rung)| *n as f64 * of(rung)).sum::<f64>()
        };
        let mut mixes: Vec<(f64, f64, [usize; 4])> = all_mixes(self.layers)
            .map(|c| (mixed(&c, &|r| r.seconds), mixed(&c, &|r| r.recorded.plan.bytes as f64), c))
            .collect();
        mixes.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let mut least = f64::INFINITY;
        mixes.retain(|(_, bytes, _)| {
            let smaller = *bytes < least;
            least = least.min(*bytes);
            smaller
        });
        mixes.into_iter().map(|(_, _, counts)| counts).collect()
    }
}

/// All ways to share `layers` blocks among the policies.
fn all_mixes(layers: usize) -> impl Iterator<Item = [usize; 4]> {
    (0..=layers).flat_map(move |a| {
        (0..=layers - a).flat_map(move |b| (0..=layers - a - b).map(move |c| [a, b, c, layers - a - b - c]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixes_put_what_is_kept_last_and_are_described_in_order() {
        let policies = mix([2, 0, 1, 3]);
        use Policy::{Keep, Offload, Recompute};
        assert_eq!(policies, [Offload, Offload, Offload, Recompute, Keep, Keep]);
        assert_eq!(describe(&policies), "3 blocks recompute, input in host memory, 1 recompute, 2 keep activations");
        assert_eq!(describe(&everywhere(Keep, 4)), "all blocks keep activations");
        assert_eq!(everywhere(Offload, 3), [Offload, Offload, Recompute]);
        assert_eq!(all_mixes(5).count(), 56, "C(8, 3)");
        assert!(all_mixes(5).all(|counts| counts.iter().sum::<usize>() == 5));
    }
}
