//! The state in which a fresh run starts: a random adapter and an empty optimizer.

use super::Session;
use crate::error::Result;
use crate::model::LoraFactor;
use crate::op::AdamState;
use crate::quant::blockwise8::SIGNED_ZERO;
use crate::random::philox;

/// PEFT's initialization: A uniform within 1/√in (Kaiming with a = √5), B zero. A function of the seed and of the
/// place of the tensor in the adapter.
pub fn init_adapter(session: &mut Session, seed: u64) -> Result<()> {
    let Some((master, _)) = session.model.params.master else { return Ok(()) };
    let mut values = vec![0.0; master.cols];
    for tensor in session.model.params.adapter.iter().filter(|t| t.factor == LoraFactor::A) {
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
            session.write_bytes(m, &vec![SIGNED_ZERO; m.cols])?;
        }
    }
    Ok(())
}
