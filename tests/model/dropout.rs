//! Dropout: a mask is a function of the seed, the site and the place. That backward and recompute draw the forward's mask,
//! the gradients (against central differences) and checkpointing (bit for bit) show.

use crate::alone::Alone;
use crate::fixtures::{batch, session, spec};
use halfbyte_core::device::cpu::CpuOptions;
use halfbyte_core::dtype::DType;
use halfbyte_core::op::{Buf, BufInfo, Op, Place, Program, Purpose, Rows};

const ROWS: usize = 64;
const COLS: usize = 4096;

/// The result of a dropout of ones.
fn ones(seed: [i32; 2], site: u32, p: f64) -> Vec<f32> {
    let info = |name: &str, rows, cols, dtype| BufInfo {
        name: name.into(),
        rows: Rows::Fixed(rows),
        cols,
        dtype,
        place: Place::Resident(Purpose::Exchange),
    };
    let bufs =
        vec![info("x", ROWS, COLS, DType::F32), info("seed", 1, 2, DType::I32), info("out", ROWS, COLS, DType::F32)];
    let program = Program { tokens: 1, bufs, phases: Vec::new(), constants: Vec::new() };
    let [x, seed_view, out] = [0, 1, 2].map(|i| program.view(Buf(i)));
    let alone = Alone::new(&program, CpuOptions::default());
    let mut state = alone.filled(0);
    state[0] = vec![1f32; ROWS * COLS].iter().flat_map(|x| x.to_le_bytes()).collect();
    state[1] = seed.iter().flat_map(|x| x.to_le_bytes()).collect();
    let op = Op::Dropout { x, seed: seed_view, site, p, plus: None, out };
    let after = alone.run(&op, 1, &state, &[]).expect("runs");
    after[2].as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// Five standard deviations of a count of `n` events of probability `p`.
fn bound(n: usize, p: f64) -> f64 {
    5.0 * (n as f64 * p * (1.0 - p)).sqrt()
}

#[test]
fn the_share_of_dropped_elements_is_p() {
    let n = ROWS * COLS;
    for p in [0.05, 0.25, 0.5] {
        let kept = ones([1, 2], 3, p);
        let scale = (1.0 / (1.0 - p)) as f32;
        assert!(kept.iter().all(|x| *x == 0.0 || *x == scale));
        let dropped = kept.iter().filter(|x| **x == 0.0).count() as f64;
        assert!((dropped - p * n as f64).abs() < bound(n, p), "{dropped} of {n} with p = {p}");
        // No column is special: the count of each has mean p · rows, and all together the variance of such a count.
        let counts = (0..COLS).map(|c| (0..ROWS).filter(|r| kept[r * COLS + c] == 0.0).count() as f64);
        let (mean, variance) = (p * ROWS as f64, p * (1.0 - p) * ROWS as f64);
        let spread = counts.map(|c| (c - mean).powi(2) / variance).sum::<f64>() / COLS as f64;
        // χ² over 4096 columns: 1 ± √(2/4096) each standard deviation.
        assert!((spread - 1.0).abs() < 5.0 * (2.0 / COLS as f64).sqrt(), "{spread}");
    }
}

#[test]
fn other_steps_and_other_sites_draw_other_masks() {
    let (n, p) = (ROWS * COLS, 0.25);
    let first = ones([1, 2], 3, p);
    assert_eq!(first, ones([1, 2], 3, p));
    // Two independent masks agree with probability p² + (1 − p)².
    let agree = p * p + (1.0 - p) * (1.0 - p);
    for (seed, site) in [([1, 3], 3), ([2, 2], 3), ([1, 2], 4), ([3, 1], 2)] {
        let second = ones(seed, site, p);
        let same = first.iter().zip(&second).filter(|(a, b)| a == b).count() as f64;
        assert!((same - agree * n as f64).abs() < bound(n, agree), "{seed:?} {site}: {same} of {n}");
    }
}

#[test]
fn a_step_depends_on_its_seed_only_through_dropout() {
    for (dropout, depends) in [(0.25, true), (0.0, false)] {
        let mut spec = spec(true, DType::F32, true);
        spec.dropout = dropout;
        let mut s = session(spec, CpuOptions::default());
        s.begin().expect("begin");
        let (batch, items) = batch(&[6, 7], 1);
        let mut loss = |seed| s.micro(&batch, items, seed).expect("micro").loss;
        let (a, again, b, c) = (loss([1, 1]), loss([1, 1]), loss([1, 2]), loss([2, 1]));
        assert_eq!(a, again);
        assert_eq!([a != b, a != c, b != c], [depends; 3]);
    }
}

#[test]
fn evaluation_does_not_drop() {
    let with = |dropout| {
        let mut spec = spec(false, DType::F32, true);
        spec.dropout = dropout;
        let mut s = session(spec, CpuOptions::default());
        s.begin().expect("begin");
        s.eval(&batch(&[6, 7], 1).0, true).expect("eval")
    };
    assert_eq!(with(0.5), with(0.0));
}
