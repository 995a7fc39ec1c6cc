//! Random weights in the shape of a real model, for benchmarks without its weights (`--dummy-weights`).
//!
//! Every weight has about the deviation with which models are initialized, norms are 1. Numbers come from two tables that
//! are repeated with a period that is a multiple of no width, so that filling a device takes as long as copying to it. The
//! same seed gives the same weights on every device.

use halfbyte_core::error::Result;
use halfbyte_core::model::Fill;
use halfbyte_core::op::{View, Weight4};
use halfbyte_core::quant::codebook4::levels;
use halfbyte_core::random::philox;
use halfbyte_core::session::init::halves;
use halfbyte_core::session::{Session, encode};

/// `initializer_range` of Llama, Mistral and Mixtral.
const DEVIATION: f64 = 0.02;

/// Largest deviation of block scales from their mean, relative to it, so that no two neighbors are alike.
const SPREAD: f64 = 0.2;

/// Length of the tables: odd, so that rows of a matrix differ.
const PERIOD: usize = (1 << 21) - 9;

/// Fills the base weights of a session.
pub fn fill_base(session: &mut Session, seed: u64) -> Result<()> {
    let normal = encode(session.model.spec.compute, &normal(seed));
    let bytes: Vec<u8> = words(seed, 1).flat_map(u32::to_le_bytes).take(PERIOD).collect();
    for (i, tensor) in session.model.params.weights.clone().into_iter().enumerate() {
        // Tensors begin at different places of a table.
        let start = i * 104_729;
        match tensor.fill {
            Fill::Dense(view) if tensor.name.ends_with("norm.weight") => session.write(view, &vec![1.0; view.cols])?,
            Fill::Dense(view) => repeat(session, view, &normal, start)?,
            Fill::Quantized(place) => {
                repeat(session, place.codes, &bytes, start)?;
                scales(session, &place, &bytes, start)?;
            }
        }
    }
    Ok(())
}

/// Block scales with which uniform codes give [`DEVIATION`].
fn scales(session: &mut Session, place: &Weight4, bytes: &[u8], start: usize) -> Result<()> {
    let levels = levels(place.kind);
    let square = levels.iter().map(|l| f64::from(l * l)).sum::<f64>() / levels.len() as f64;
    let absmax = DEVIATION / square.sqrt();
    match place.nested {
        None => session.write(place.absmax, &vec![absmax; place.absmax.cols]),
        Some(nested) => {
            repeat(session, place.absmax, bytes, start)?;
            session.write(nested.absmax, &vec![SPREAD * absmax; nested.absmax.cols])?;
            session.write(nested.offset, &[absmax])
        }
    }
}

/// Fills a contiguous operand with `table`, [`PERIOD`] of its elements, from element `start` of the table on.
fn repeat(session: &mut Session, view: View, table: &[u8], start: usize) -> Result<()> {
    let size = table.len() / PERIOD;
    let (mut done, elements) = (0, view.rows.count(0) * view.cols);
    while done < elements {
        let from = (start + done) % PERIOD;
        let count = (PERIOD - from).min(elements - done);
        let at = View { offset: view.offset + done, ..view };
        session.write_bytes(at, &table[from * size..][..count * size])?;
        done += count;
    }
    Ok(())
}

/// Random words of a stream.
fn words(seed: u64, stream: u32) -> impl Iterator<Item = u32> {
    (0..).flat_map(move |i| philox([i, stream, 0, u32::MAX - 1], halves(seed)))
}

/// Normal numbers (Box and Muller 1958).
fn normal(seed: u64) -> Vec<f64> {
    let unit = |word: u32| (f64::from(word) + 0.5) / 2f64.powi(32);
    let mut words = words(seed, 0);
    let mut next = || unit(words.next().unwrap_or_default());
    let mut values = Vec::with_capacity(PERIOD + 1);
    while values.len() < PERIOD {
        let (radius, angle) = (DEVIATION * (-2.0 * next().ln()).sqrt(), std::f64::consts::TAU * next());
        values.extend([radius * angle.cos(), radius * angle.sin()]);
    }
    values.truncate(PERIOD);
    values
}

#[cfg(test)]
#[path = "dummy_tests.rs"]
mod tests;
