//! The ladder of memory policies: the first rung keeps all activations, each further one needs less memory and more time.
//! A run that leaves the choice open takes the fastest mix of rungs that fits.

use super::record::Recorded;
use super::spec::MemoryChoice;
use halfbyte_core::error::Result;
use halfbyte_core::model::Model;
use halfbyte_core::plan::cost::Rates;
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
    mix(alike(policy, layers))
}

fn alike(policy: Policy, layers: usize) -> [usize; 4] {
    POLICIES.map(|p| if p == policy { layers } else { 0 })
}

/// The fastest choice that the recipe's `gradient_checkpointing` allows.
pub fn first(checkpointing: Option<bool>, layers: usize) -> MemoryChoice {
    let policy = if checkpointing == Some(true) { Policy::Recompute } else { Policy::Keep };
    MemoryChoice { policies: everywhere(policy, layers), pages_on_host: 0, streamed: 0 }
}

/// The choice that needs the least memory among those that the recipe allows.
pub fn last(checkpointing: Option<bool>, paged: bool, layers: usize) -> MemoryChoice {
    let first = first(checkpointing, layers);
    let policies = if checkpointing.is_none() { everywhere(Policy::Offload, layers) } else { first.policies };
    MemoryChoice { policies, pages_on_host: if paged { usize::MAX } else { 0 }, streamed: layers }
}

/// The choices of a program in words: `20 blocks recompute gate and up, 12 keep activations`.
pub fn describe(model: &Model) -> String {
    let mut words = describe_policies(&model.spec.policies);
    let pages = model.params.optimizer.as_ref().map_or(0, |optimizer| optimizer.groups.len());
    if let Some(paging) = model.spec.optimizer.as_ref().and_then(|optimizer| optimizer.paging) {
        words += &format!("; {} of {pages} pages of optimizer state in host memory", paging.on_host.min(pages));
    }
    if model.spec.streamed > 0 {
        words += &format!("; weights of {} blocks streamed from host memory", model.spec.streamed);
    }
    words
}

fn describe_policies(policies: &[Policy]) -> String {
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

/// One way to record the run.
struct Candidate {
    counts: [usize; 4],
    /// Quarters of the pages of optimizer state and of the 4-bit weights that are in host memory.
    quarters: [usize; 2],
    cost: Cost,
}

/// Estimates: seconds of the kernels and of the copies of a step, bytes on the device and of pinned host memory.
#[derive(Clone, Copy)]
struct Cost {
    kernels: f64,
    copies: f64,
    bytes: f64,
    host: f64,
}

impl Cost {
    fn seconds(&self) -> f64 {
        self.kernels.max(self.copies)
    }

    /// This and `share` times `other`.
    fn plus(self, share: f64, other: Cost) -> Cost {
        Cost {
            kernels: self.kernels + share * other.kernels,
            copies: self.copies + share * other.copies,
            bytes: self.bytes + share * other.bytes,
            host: self.host + share * other.host,
        }
    }
}

/// Programs of one run that differ in their [`MemoryChoice`] alone.
pub struct Ladder<'a> {
    layers: usize,
    /// The recipe's `gradient_checkpointing`; without it, every mix of policies is allowed.
    checkpointing: Option<bool>,
    record: &'a dyn Fn(MemoryChoice) -> Result<Recorded>,
    seconds: &'a dyn Fn(&Recorded, Rates) -> f64,
    rates: Rates,
    /// One program for each of [`POLICIES`].
    pub rungs: Vec<Rung>,
    /// If the optimizer may be paged: the last rung with all pages in host memory.
    pub paged: Option<Rung>,
    /// The last rung with all 4-bit weights in host memory, if there are any.
    pub streamed: Option<Rung>,
}

impl<'a> Ladder<'a> {
    /// Records the rungs; `seconds` predicts the time of a step at the rates of a device.
    pub fn new(
        layers: usize,
        (checkpointing, paged): (Option<bool>, bool),
        record: &'a dyn Fn(MemoryChoice) -> Result<Recorded>,
        seconds: &'a dyn Fn(&Recorded, Rates) -> f64,
        rates: Rates,
    ) -> Result<Self> {
        let (rungs, paged_rung, streamed) = (Vec::new(), None, None);
        let mut ladder = Self { layers, checkpointing, record, seconds, rates, rungs, paged: paged_rung, streamed };
        for policy in POLICIES {
            let policies = everywhere(policy, layers);
            ladder.rungs.push(ladder.rung(MemoryChoice { policies, pages_on_host: 0, streamed: 0 })?);
        }
        if paged {
            ladder.paged = Some(ladder.rung(MemoryChoice { streamed: 0, ..last(None, true, layers) })?);
        }
        if !ladder.rungs[3].recorded.model.spec.base.is_empty() {
            ladder.streamed = Some(ladder.rung(last(None, false, layers))?);
        }
        Ok(ladder)
    }

    /// The fastest program that the recipe allows.
    pub fn first(&self) -> Result<Rung> {
        self.rung(first(self.checkpointing, self.layers))
    }

    /// The smallest program that the recipe allows.
    pub fn last(&self) -> Result<Rung> {
        self.rung(last(self.checkpointing, self.paged.is_some(), self.layers))
    }

    fn rung(&self, choice: MemoryChoice) -> Result<Rung> {
        let recorded = (self.record)(choice)?;
        Ok(Rung { seconds: (self.seconds)(&recorded, self.rates), recorded })
    }

    /// The fastest program that `fits` and pins at most `pinnable` bytes of host memory; `None` if none does.
    pub fn best(&self, pinnable: usize, fits: &dyn Fn(&Recorded) -> Result<bool>) -> Result<Option<Rung>> {
        let optimizer = |rung: &Rung| rung.recorded.model.params.optimizer.as_ref().map_or(0, |o| o.groups.len());
        let pages = self.paged.as_ref().map_or(0, optimizer);
        let candidates = self.frontier(pinnable);
        let (mut low, mut high, mut best) = (0, candidates.len(), None);
        while low < high {
            let middle = (low + high) / 2;
            let Candidate { counts, quarters, .. } = candidates[middle];
            let [pages_on_host, streamed] = [pages * quarters[0], self.layers * quarters[1]].map(|n| n.div_ceil(4));
            let rung = self.rung(MemoryChoice { policies: mix(counts), pages_on_host, streamed })?;
            if fits(&rung.recorded)? {
                (high, best) = (middle, Some(rung));
            } else {
                low = middle + 1;
            }
        }
        Ok(best)
    }

    /// The candidates that pin at most `pinnable` bytes, the fastest first. Time and memory are sums over blocks and pages but for what is the same in all, so
    /// those of a mix lie between those of the rungs, in proportion.
    fn frontier(&self, pinnable: usize) -> Vec<Candidate> {
        let cost = |rung: &Rung| {
            let plan = &rung.recorded.plan;
            // Either the kernels or the copies set the pace.
            let kernels = (self.seconds)(&rung.recorded, Rates { link: f64::INFINITY, ..self.rates });
            let link = Rates { flops: f64::INFINITY, bytes: f64::INFINITY, op: 0.0, ..self.rates };
            let copies = (self.seconds)(&rung.recorded, link);
            Cost { kernels, copies, bytes: plan.bytes as f64, host: plan.host_bytes as f64 }
        };
        let rungs: Vec<Cost> = self.rungs.iter().map(cost).collect();
        let mixes = self.mixes().into_iter().map(|counts| {
            let shares = counts.iter().map(|n| *n as f64 / self.layers as f64).zip(&rungs);
            let none = Cost { kernels: 0.0, copies: 0.0, bytes: 0.0, host: 0.0 };
            Candidate { counts, quarters: [0, 0], cost: shares.fold(none, |sum, (share, rung)| sum.plus(share, *rung)) }
        });
        let mut candidates = best_of(mixes.collect(), pinnable);
        for (i, extra) in [&self.paged, &self.streamed].into_iter().enumerate() {
            let Some(extra) = extra else { continue };
            let more = cost(extra).plus(-1.0, rungs[3]);
            let with = |candidate: &Candidate, n: usize| {
                let mut quarters = candidate.quarters;
                quarters[i] = n;
                Candidate { quarters, cost: candidate.cost.plus(n as f64 / 4.0, more), ..*candidate }
            };
            let all = candidates.iter().flat_map(|c| (0..=4).map(|n| with(c, n)).collect::<Vec<_>>());
            candidates = best_of(all.collect(), pinnable);
        }
        candidates
    }

    /// The mixes of policies that the recipe allows.
    fn mixes(&self) -> Vec<[usize; 4]> {
        match self.checkpointing {
            Some(true) => vec![alike(Policy::Recompute, self.layers)],
            Some(false) => vec![alike(Policy::Keep, self.layers)],
            None => all_mixes(self.layers).collect(),
        }
    }
}

/// Those that pin at most `pinnable` bytes and of which no other is both faster and smaller, the fastest first.
fn best_of(mut candidates: Vec<Candidate>, pinnable: usize) -> Vec<Candidate> {
    candidates.retain(|candidate| candidate.cost.host <= pinnable as f64);
    candidates
        .sort_by(|a, b| a.cost.seconds().total_cmp(&b.cost.seconds()).then(a.cost.bytes.total_cmp(&b.cost.bytes)));
    let mut least = f64::INFINITY;
    candidates.retain(|candidate| {
        let smaller = candidate.cost.bytes < least;
        least = least.min(candidate.cost.bytes);
        smaller
    });
    candidates
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
        assert_eq!(
            describe_policies(&policies),
            "3 blocks recompute, input in host memory, 1 recompute, 2 keep activations"
        );
        assert_eq!(describe_policies(&everywhere(Keep, 4)), "all blocks keep activations");
        assert_eq!(everywhere(Offload, 3), [Offload, Offload, Recompute]);
        let of = |seconds, bytes, host| Candidate {
            counts: [0; 4],
            quarters: [0; 2],
            cost: Cost { kernels: seconds, copies: 0.5, bytes, host },
        };
        let four = || vec![of(3.0, 1.0, 9.0), of(2.0, 2.0, 0.0), of(1.0, 5.0, 0.0), of(2.5, 3.0, 0.0)];
        let left = |pinnable| best_of(four(), pinnable).iter().map(|c| c.cost.seconds()).collect::<Vec<_>>();
        assert_eq!((left(9), left(8)), (vec![1.0, 2.0, 3.0], vec![1.0, 2.0]));
        assert_eq!(all_mixes(5).count(), 56, "C(8, 3)");
        assert!(all_mixes(5).all(|counts| counts.iter().sum::<usize>() == 5));
    }
}
