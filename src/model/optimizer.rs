//! The buffers of AdamW: which tensor is where, and its moments.

use super::linear::{AdapterTensor, LoraFactor};
use super::spec::{OptimizerKind, OptimizerSpec};
use crate::dtype::DType;
use crate::op::{AdamState, Purpose, SEGMENT_FIELDS, Segment, View};
use crate::quant::blockwise8::BLOCK;
use crate::tape::Tape;

/// bitsandbytes keeps the moments of tensors with fewer elements in f32 (`min_8bit_size`).
const MIN_8BIT: usize = 4096;

/// One AdamW op's tensors.
#[derive(Clone, Debug)]
pub struct AdamGroup {
    /// Buffers of the moments.
    pub state: AdamState,
    /// The segment table.
    pub segments: View,
    /// F32 `[n,2]`.
    pub rates: View,
    /// I32 `[n,1]`.
    pub steps: View,
}

/// Buffers of the update.
#[derive(Clone, Debug)]
pub struct OptimizerState {
    /// One for each kind of state.
    pub groups: Vec<AdamGroup>,
    /// `[1, updates]`: the learning rate of each update.
    pub schedule: View,
    /// `[1,1]`.
    pub norm: View,
}

/// Declares state for the tensors of an adapter.
pub fn declare_optimizer(t: &mut Tape, spec: &OptimizerSpec, adapter: &[AdapterTensor]) -> OptimizerState {
    let wide = t.wide();
    let small = |a: &&AdapterTensor| spec.state != OptimizerKind::Bitsandbytes8 || a.rows * a.cols < MIN_8BIT;
    let (in_32, in_8): (Vec<_>, Vec<_>) = adapter.iter().partition(small);
    let mut groups = Vec::new();
    for (tensors, bits) in [(in_32, 32), (in_8, 8)] {
        if tensors.is_empty() {
            continue;
        }
        let (mut table, mut rates) = (Vec::<i64>::new(), Vec::<f32>::new());
        let (mut state, mut blocks) = (0, 0);
        for a in &tensors {
            let length = a.rows * a.cols;
            let mut row = [0i64; SEGMENT_FIELDS];
            row[Segment::Offset as usize] = a.offset as i64;
            row[Segment::Length as usize] = length as i64;
            row[Segment::State as usize] = state as i64;
            row[Segment::Block as usize] = blocks as i64;
            row[Segment::Touched as usize] = a.touched.map_or(-1, |i| i as i64);
            table.extend(row);
            let factor = if a.factor == LoraFactor::B { spec.lora_b_factor } else { 1.0 };
            rates.extend([factor as f32, spec.weight_decay as f32]);
            state += length;
            blocks += length.div_ceil(BLOCK);
        }
        let n = tensors.len();
        let bytes = table.iter().flat_map(|x| x.to_le_bytes()).collect();
        let segments = t.constant(&format!("adam{bits}.segments"), n, SEGMENT_FIELDS, DType::I64, bytes);
        let bytes = rates.iter().flat_map(|x| x.to_le_bytes()).collect();
        let rates = t.constant(&format!("adam{bits}.rates"), n, 2, DType::F32, bytes);
        let mut moment =
            |name: &str, cols, dtype| t.resident(&format!("adam{bits}.{name}"), 1, cols, dtype, Purpose::Optimizer);
        let state = if bits == 8 {
            AdamState::Blockwise8 {
                m: moment("m", state, DType::U8),
                v: moment("v", state, DType::U8),
                absmax_m: moment("absmax_m", blocks, DType::F32),
                absmax_v: moment("absmax_v", blocks, DType::F32),
            }
        } else {
            let (m, v) = (moment("m", state, wide), moment("v", state, wide));
            match spec.state {
                OptimizerKind::Torch => AdamState::Torch { m, v },
                OptimizerKind::Bitsandbytes32 | OptimizerKind::Bitsandbytes8 => AdamState::Bitsandbytes { m, v },
            }
        };
        let steps = t.resident(&format!("adam{bits}.steps"), n, 1, DType::I32, Purpose::Optimizer);
        groups.push(AdamGroup { state, segments, rates, steps });
    }
    OptimizerState {
        groups,
        schedule: t.resident("schedule", 1, spec.updates.max(1), wide, Purpose::Exchange),
        norm: t.resident("gradient_norm", 1, 1, wide, Purpose::Exchange),
    }
}
