//! Random weights in the shape of a model: their size, and that they are a function of the seed.

use super::fill_base;
use fixtures::spec;
use halfbyte_core::device::cpu::{Cpu, CpuOptions};
use halfbyte_core::dtype::DType;
use halfbyte_core::model::{Fill, record};
use halfbyte_core::quant::codebook4::{NestedScales, dequantize};
use halfbyte_core::session::Session;
use std::collections::BTreeMap;

#[path = "../../../tests/model/fixtures.rs"]
#[allow(dead_code, reason = "only its tiny models are used here")]
mod fixtures;

/// The values of every weight, by name.
fn filled(double: bool, seed: u64) -> BTreeMap<String, Vec<f64>> {
    let mut spec = spec(true, DType::Bf16, true);
    let c = &mut spec.config;
    (c.hidden_size, c.intermediate_size, c.head_dim, c.vocab_size) = (64, 96, 16, 200);
    spec.base.values_mut().for_each(|scheme| scheme.double = double);
    let mut s = Session::planned(record(spec).expect("recorded"), Box::new(Cpu::new(CpuOptions::default())))
        .expect("a session");
    fill_base(&mut s, seed).expect("filled");
    let mut values = BTreeMap::new();
    for tensor in s.model.params.weights.clone() {
        let read = match tensor.fill {
            Fill::Dense(view) => s.read(view, 0).expect("read"),
            Fill::Quantized(q) => {
                let absmax = match q.nested {
                    None => s.read(q.absmax, 0).expect("read").iter().map(|&x| x as f32).collect(),
                    Some(nested) => NestedScales {
                        codes: s.read_bytes(q.absmax).expect("read"),
                        absmax: s.read(nested.absmax, 0).expect("read").iter().map(|&x| x as f32).collect(),
                        offset: s.read(nested.offset, 0).expect("read")[0] as f32,
                    }
                    .restore(),
                };
                let mut out = vec![0.0; tensor.shape.0 * tensor.shape.1];
                let codes = s.read_bytes(q.codes).expect("read");
                dequantize(q.kind, q.block, &codes, &absmax, &mut out, f64::from);
                out
            }
        };
        values.insert(tensor.name, read);
    }
    values
}

#[test]
fn weights_have_the_size_that_models_begin_with() {
    for double in [false, true] {
        for (name, values) in filled(double, 3) {
            if name.ends_with("norm.weight") {
                assert!(values.iter().all(|v| *v == 1.0), "{name}");
                continue;
            }
            let deviation = (values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64).sqrt();
            // The smallest, a router, has 256 elements; its deviation is known to a twentieth or so.
            assert!((deviation / 0.02 - 1.0).abs() < 0.2, "{name}: {deviation}");
        }
    }
}

#[test]
fn weights_are_a_function_of_the_seed_and_no_two_are_alike() {
    let (a, b, c) = (filled(true, 3), filled(true, 3), filled(true, 4));
    assert_eq!(a, b);
    let matrices: Vec<_> = a.iter().filter(|(name, _)| !name.ends_with("norm.weight")).collect();
    for (i, (name, values)) in matrices.iter().enumerate() {
        assert_ne!(values, &&c[*name], "{name} does not depend on the seed");
        assert!(matrices[..i].iter().all(|(_, other)| other[..64] != values[..64]), "{name} is another's twin");
    }
}
