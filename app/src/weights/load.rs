//! Fills a session with base weights and adapters, and reads adapters and their gradients back.

use crate::config::recipe::LoadDtype;
use crate::weights::adapter::{Adapter, LoraWeights};
use crate::weights::identity::{Identity, IdentityHasher};
use crate::weights::quantize::{Absmax, QuantizedWeight, load, load_dtype};
use crate::weights::safetensors::TensorFiles;
use halfbyte_core::error::Result;
use halfbyte_core::model::{AdapterTensor, Fill, LoraFactor};
use halfbyte_core::op::View;
use halfbyte_core::op::Weight4;
use halfbyte_core::quant::Scheme;
use halfbyte_core::session::Session;
use std::collections::HashMap;

/// Loads every base weight, casting and quantizing as transformers does. Weights that the checkpoint stores in 4 bits
/// are copied as they are. `stated` is the recipe's `torch_dtype`. Returns the identity of the weights: each is hashed
/// while it is loaded.
pub fn load_base(session: &mut Session, checkpoint: &TensorFiles, stated: LoadDtype) -> Result<Identity> {
    let config = session.model.spec.config.clone();
    let quantized = !session.model.spec.base.is_empty();
    let dtype = load_dtype(stated, &config, checkpoint, quantized);
    let mut identity = IdentityHasher::default();
    for tensor in session.model.params.weights.clone() {
        let (rows, cols) = tensor.shape;
        match tensor.fill {
            Fill::Dense(view) => {
                let vector = tensor.name.ends_with("norm.weight") || tensor.name.ends_with(".bias");
                let shape = if vector { vec![cols] } else { vec![rows, cols] };
                let read = || load(&checkpoint.shaped(&tensor.name, &shape)?, dtype);
                let ((), values) = rayon::join(|| identity.add(checkpoint, &tensor.name), read);
                write_f32(session, view, &values?)?;
            }
            Fill::Quantized(place) => {
                let module = tensor.name.trim_end_matches(".weight");
                let shape = [rows, cols];
                let scheme = Scheme { kind: place.kind, blocksize: place.block, double: place.nested.is_some() };
                let read = || match QuantizedWeight::read(checkpoint, module, shape)? {
                    Some(weight) => Ok(weight),
                    None => QuantizedWeight::from_checkpoint(checkpoint, module, shape, dtype, scheme),
                };
                let ((), weight) = rayon::join(|| identity.add(checkpoint, &tensor.name), read);
                write_quantized(session, &place, &weight?)?;
            }
        }
    }
    Ok(identity.finish(checkpoint))
}

fn write_quantized(session: &mut Session, place: &Weight4, weight: &QuantizedWeight) -> Result<()> {
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

/// Converts f32 values to the type of the buffer and writes them.
fn write_f32(session: &mut Session, view: View, values: &[f32]) -> Result<()> {
    let dtype = session.model.program.info(view.buf).dtype;
    session.write_bytes(view, &dtype.store(values))
}

/// Writes an adapter to a session that was recorded for its modules.
pub fn load_adapter(session: &mut Session, adapter: Adapter) -> Result<()> {
    let names = adapter.modules.iter().map(|m| m.module.name.clone());
    write_adapter(session, &names.zip(adapter.weights).collect())
}

/// Writes `weights`, keyed by module name, to the adapter's f32 master copy.
pub fn write_adapter(session: &mut Session, weights: &HashMap<String, LoraWeights>) -> Result<()> {
    let Some((master, _)) = session.model.params.master else { return Ok(()) };
    for tensor in session.model.params.adapter.clone() {
        let Some(found) = weights.get(&tensor.module) else {
            unreachable!("adapters are resolved to modules before a program is recorded")
        };
        let values = if tensor.factor == LoraFactor::A { &found.a } else { &found.b };
        let wide: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
        session.write(part(master, &tensor), &wide)?;
    }
    Ok(())
}

/// Reads the adapter's f32 master copy, keyed by module name.
pub fn read_adapter(session: &mut Session) -> Result<HashMap<String, LoraWeights>> {
    let flat = session.model.params.master.map(|(master, _)| master);
    split(session, flat)
}

/// Reads the accumulated gradients of the adapter, keyed by module name.
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
        match tensor.factor {
            LoraFactor::A => entry.a = values,
            LoraFactor::B => entry.b = values,
        }
    }
    Ok(found)
}

fn part(flat: View, tensor: &AdapterTensor) -> View {
    flat.within(tensor.offset, tensor.rows, tensor.cols)
}
