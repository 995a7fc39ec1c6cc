//! Fills a session: base weights from a checkpoint, adapters from a folder or from the random initialisation.

use super::session::Session;
use crate::config::recipe::LoadDtype;
use crate::device::cpu::adamw::State8;
use crate::device::cpu::pointwise::philox;
use crate::dtype::Scheme;
use crate::error::Result;
use crate::model::{AdapterTensor, Fill, Half};
use crate::op::{AdamState, View};
use crate::tape::Quantized as Place4;
use crate::weights::adapter::LoraWeights;
use crate::weights::quantize::{Absmax, Quantized, load, load_dtype};
use crate::weights::safetensors::Checkpoint;
use std::collections::HashMap;

/// Loads every base weight, casting and quantising as transformers does. Weights that the checkpoint holds quantised
/// are taken as they are. `said` is the recipe's `torch_dtype`.
pub fn load_base(session: &mut Session, checkpoint: &Checkpoint, said: LoadDtype) -> Result<()> {
    let config = session.model.spec.config.clone();
    let quantised = !session.model.spec.base.is_empty();
    let dtype = load_dtype(said, &config, checkpoint, quantised);
    for tensor in session.model.params.weights.clone() {
        let (rows, cols) = tensor.shape;
        match tensor.fill {
            Fill::Dense(view) => {
                let shape = if tensor.name.ends_with("norm.weight") { vec![cols] } else { vec![rows, cols] };
                let values = load(&checkpoint.shaped(&tensor.name, &shape)?, dtype)?;
                write_f32(session, view, &values)?;
            }
            Fill::Quantized(place) => {
                let module = tensor.name.trim_end_matches(".weight");
                let shape = [rows, cols];
                let scheme = Scheme { kind: place.kind, blocksize: place.block, double: place.nested.is_some() };
                let weight = match Quantized::read(checkpoint, module, shape)? {
                    Some(weight) => weight,
                    None => Quantized::from_checkpoint(checkpoint, module, shape, dtype, scheme)?,
                };
                write_quantized(session, &place, &weight)?;
            }
        }
    }
    Ok(())
}

fn write_quantized(session: &mut Session, place: &Place4, weight: &Quantized) -> Result<()> {
    session.write_bytes(place.codes, &weight.codes)?;
    match (&weight.absmax, place.nested) {
        (Absmax::Plain(absmax), None) => write_f32(session, place.absmax, absmax),
        (Absmax::Nested(from), Some(to)) => {
            session.write_bytes(place.absmax, &from.codes)?;
            write_f32(session, to.absmax, &from.absmax)?;
            write_f32(session, to.offset, &[from.offset])
        }
        _ => unreachable!("the program was recorded for the scheme of the weight"),
    }
}

/// Writes f32 values in the type of the buffer.
fn write_f32(session: &mut Session, view: View, values: &[f32]) -> Result<()> {
    let dtype = session.model.program.info(view.buf).dtype;
    session.write_bytes(view, &dtype.store(values))
}

/// The initialisation of PEFT: A uniform within 1/√in (Kaiming with a = √5), B zero. A function of the seed and of the
/// place of the tensor in the adapter.
pub fn init_adapter(session: &mut Session, seed: u64) -> Result<()> {
    let Some((master, _)) = session.model.params.master else { return Ok(()) };
    let mut values = vec![0.0; master.cols];
    for tensor in session.model.params.adapter.iter().filter(|t| t.half == Half::A) {
        let bound = (tensor.cols as f64).sqrt().recip();
        for (i, value) in values[tensor.offset..][..tensor.rows * tensor.cols].iter_mut().enumerate() {
            let random =
                philox([(i / 4) as u32, tensor.offset as u32, (tensor.offset >> 32) as u32, u32::MAX], halves(seed));
            let unit = f64::from(random[i % 4]) / f64::from(u32::MAX);
            *value = bound * (2.0 * unit - 1.0);
        }
    }
    session.write(master, &values)
}

/// A seed as the key of the random function.
pub fn halves(seed: u64) -> [u32; 2] {
    [seed as u32, (seed >> 32) as u32]
}

/// Fresh optimizer state: everything zero, which for 8-bit codes of the first moment is a code of its own.
pub fn init_optimizer(session: &mut Session) -> Result<()> {
    let Some(optimizer) = session.model.params.optimizer.clone() else { return Ok(()) };
    for group in &optimizer.groups {
        if let AdamState::Blockwise8 { m, .. } = group.state {
            session.write_bytes(m, &vec![State8::ZERO1; m.cols])?;
        }
    }
    Ok(())
}

/// Puts the matrices of `weights`, by module name, into the adapter.
pub fn write_adapter(session: &mut Session, weights: &HashMap<String, LoraWeights>) -> Result<()> {
    let Some((master, _)) = session.model.params.master else { return Ok(()) };
    for tensor in session.model.params.adapter.clone() {
        let Some(found) = weights.get(&tensor.module) else {
            unreachable!("adapters are resolved to modules before a program is recorded")
        };
        let values = if tensor.half == Half::A { &found.a } else { &found.b };
        let wide: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
        session.write(part(master, &tensor), &wide)?;
    }
    Ok(())
}

/// The matrices of the adapter by module name.
pub fn read_adapter(session: &mut Session) -> Result<HashMap<String, LoraWeights>> {
    let flat = session.model.params.master.map(|(master, _)| master);
    split(session, flat)
}

/// The gradients of the adapter by module name.
pub fn read_gradients(session: &mut Session) -> Result<HashMap<String, LoraWeights>> {
    let flat = session.model.params.master.map(|(_, gradient)| gradient);
    split(session, flat)
}

fn split(session: &mut Session, flat: Option<View>) -> Result<HashMap<String, LoraWeights>> {
    let mut found: HashMap<String, LoraWeights> = HashMap::new();
    let Some(flat) = flat else { return Ok(found) };
    for tensor in session.model.params.adapter.clone() {
        let values: Vec<f32> = session.read(part(flat, &tensor), 0)?.iter().map(|&v| v as f32).collect();
        let entry = found.entry(tensor.module).or_insert_with(|| LoraWeights { a: Vec::new(), b: Vec::new() });
        match tensor.half {
            Half::A => entry.a = values,
            Half::B => entry.b = values,
        }
    }
    Ok(found)
}

fn part(flat: View, tensor: &AdapterTensor) -> View {
    flat.within(tensor.offset, tensor.rows, tensor.cols)
}
