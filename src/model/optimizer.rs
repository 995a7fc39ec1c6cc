//! The buffers of AdamW: which tensor is where, and its moments.

use super::linear::{AdapterTensor, LoraFactor};
use super::spec::{OptimizerKind, OptimizerSpec, Paging};
use crate::dtype::DType;
use crate::op::{AdamState, Place, Purpose, Rows, SEGMENT_FIELDS, Segment, View};
use crate::quant::blockwise8::BLOCK;
use crate::tape::Tape;

/// bitsandbytes keeps the moments of tensors with fewer elements in f32 (`min_8bit_size`).
const MIN_8BIT: usize = 4096;

/// One AdamW op's tensors: all with state of one kind, or a page of them.
#[derive(Clone, Debug)]
pub struct AdamGroup {
    /// Buffers of the moments, resident or in host memory.
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
    /// One for each kind of state, or for each page.
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
    let kinds = [(&in_32, 32), (&in_8, 8)].into_iter();
    let pages = kinds.flat_map(|(tensors, bits)| pages(tensors, spec.paging).into_iter().map(move |page| (page, bits)));
    for (number, (tensors, bits)) in pages.enumerate() {
        let (mut table, mut rates) = (Vec::<i64>::new(), Vec::<f32>::new());
        let (mut state, mut blocks) = (0, 0);
        for a in tensors {
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
        let name = |what: &str| match spec.paging {
            Some(_) => format!("adam{bits}.{what}.{number}"),
            None => format!("adam{bits}.{what}"),
        };
        let segments = t.constant(&name("segments"), n, SEGMENT_FIELDS, DType::I64, bytes);
        let bytes = rates.iter().flat_map(|x| x.to_le_bytes()).collect();
        let rates = t.constant(&name("rates"), n, 2, DType::F32, bytes);
        let on_host = spec.paging.is_some_and(|paging| number < paging.on_host);
        let place = if on_host { Place::Host } else { Place::Resident(Purpose::Optimizer) };
        let mut moment = |what: &str, cols, dtype| t.buf(&name(what), Rows::Fixed(1), cols, dtype, place);
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
        let steps = t.resident(&name("steps"), n, 1, DType::I32, Purpose::Optimizer);
        groups.push(AdamGroup { state, segments, rates, steps });
    }
    OptimizerState {
        groups,
        schedule: t.resident("schedule", 1, spec.updates.max(1), wide, Purpose::Exchange),
        norm: t.resident("gradient_norm", 1, 1, wide, Purpose::Exchange),
    }
}

/// The tensors in runs of one page each; without paging, in one.
fn pages<'a>(tensors: &'a [&'a AdapterTensor], paging: Option<Paging>) -> Vec<&'a [&'a AdapterTensor]> {
    let most = paging.map_or(usize::MAX, |paging| paging.elements);
    let (mut pages, mut start, mut elements) = (Vec::new(), 0, 0_usize);
    for (i, a) in tensors.iter().enumerate() {
        let length = a.rows * a.cols;
        if i > start && elements + length > most {
            pages.push(&tensors[start..i]);
            (start, elements) = (i, 0);
        }
        elements += length;
    }
    pages.extend((start < tensors.len()).then(|| &tensors[start..]));
    pages
}
