//! The random adapter with which a run starts: PEFT's distribution, from the seed alone.

use crate::fixtures::{session, spec};
use halfbyte_core::device::cpu::CpuOptions;
use halfbyte_core::dtype::DType;
use halfbyte_core::model::LoraFactor;
use halfbyte_core::session::init::init_adapter;

/// Whether a tensor is an A, its place in the master, and its width.
type Tensor = (bool, std::ops::Range<usize>, usize);

/// The flat master after an initialization with `seed`, and its tensors.
fn started(seed: u64) -> (Vec<f64>, Vec<Tensor>) {
    let mut session = session(spec(false, DType::F32, false), CpuOptions::default());
    init_adapter(&mut session, seed).expect("initialized");
    let (master, _) = session.model.params.master.expect("an adapter");
    let tensors = session.model.params.adapter.iter();
    let places = tensors.map(|t| (t.factor == LoraFactor::A, t.offset..t.offset + t.rows * t.cols, t.cols)).collect();
    (session.read(master, 0).expect("read"), places)
}

#[test]
fn a_is_uniform_within_the_root_of_its_width_and_b_is_zero() {
    let (values, places) = started(7);
    let (mut squares, mut count) = (0.0, 0);
    for (is_a, place, cols) in places {
        let values = &values[place];
        if !is_a {
            assert!(values.iter().all(|v| *v == 0.0), "B is zero");
            continue;
        }
        // `kaiming_uniform_` with a = √5: bound = √(6 / ((1 + 5) · fan_in)).
        let bound = (cols as f64).powf(-0.5);
        assert!(values.iter().all(|v| v.abs() <= bound * (1.0 + 1e-6)));
        squares += values.iter().map(|v| (v / bound).powi(2)).sum::<f64>();
        count += values.len();
    }
    // The square of a uniform number in (−1, 1) has mean 1/3 and variance 4/45.
    let (mean, deviation) = (squares / count as f64, (4.0 / 45.0 / count as f64).sqrt());
    assert!((mean - 1.0 / 3.0).abs() < 5.0 * deviation, "{mean} of {count}");
}

#[test]
fn other_seeds_and_other_tensors_have_other_values() {
    let (one, places) = started(1);
    let (two, _) = started(2);
    assert_eq!(one, started(1).0);
    let mut seen: Vec<&[f64]> = Vec::new();
    for (_, place, _) in places.into_iter().filter(|(is_a, ..)| *is_a) {
        assert_ne!(one[place.clone()], two[place.clone()]);
        let start = &one[place.start..place.start + 4];
        assert!(!seen.contains(&start), "two tensors begin alike");
        seen.push(start);
    }
}
