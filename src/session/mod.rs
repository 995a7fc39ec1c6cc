//! A recorded model on a device: the few operations that a trainer, an evaluation or a test needs.

pub mod batch;
pub mod init;

use crate::device::Device;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::model::{Model, RopeScaling, Selected};
use crate::op::{CONTROL_FIELDS, Control, Phase, View};
use crate::plan::{Plan, plan};
use batch::MicroBatch;
use half::{bf16, f16};
use std::sync::Arc;

/// The loss scale at which f16 training starts (PyTorch's `GradScaler`).
const FIRST_LOSS_SCALE: f64 = 65536.0;

/// A model, its memory plan, and the device that holds it.
pub struct Session {
    /// The recorded model.
    pub model: Model,
    /// The address of every buffer.
    pub plan: Arc<Plan>,
    device: Box<dyn Device>,
}

/// Loss of a micro-batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MicroLoss {
    /// `−Σ weight · logp`.
    pub loss: f64,
    /// The router's auxiliary loss (already times its coefficient), 0 without.
    pub aux: f64,
    /// Targets that were the most probable token.
    pub hits: usize,
}

/// Loss of a batch in an evaluation.
#[derive(Clone, Debug, PartialEq)]
pub struct EvalLoss {
    /// Log-probabilities of the targets, 0 where there is none.
    pub logp: Vec<f64>,
    /// The router's auxiliary loss (already times its coefficient), 0 without.
    pub aux: f64,
    /// Targets that were the most probable token.
    pub hits: usize,
}

/// Results of an update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update {
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// The learning rate used.
    pub learning_rate: f64,
    /// f16: the gradient overflowed, nothing was changed.
    pub skipped: bool,
}

/// How the next token is chosen; see [`crate::op::SampleField`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// 0: the most probable token, always.
    pub temperature: f64,
    /// 0: all tokens take part.
    pub top_k: usize,
    /// 1: all tokens take part.
    pub top_p: f64,
    /// Seed of the random numbers.
    pub seed: u32,
}

impl Sampling {
    /// The most probable token.
    pub const GREEDY: Sampling = Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, seed: 0 };
}

impl Session {
    /// Plans the memory of `model` and starts a session with that plan.
    pub fn planned(model: Model, device: Box<dyn Device>) -> Result<Self> {
        let plan = plan(&model.program);
        Self::new(model, plan, device)
    }

    /// Allocates what `plan`, the plan of this model's program, says, and writes what does not depend on data. Weights are
    /// still zero.
    pub fn new(model: Model, plan: impl Into<Arc<Plan>>, mut device: Box<dyn Device>) -> Result<Self> {
        let plan = plan.into();
        assert_eq!(plan.address.len(), model.program.bufs.len(), "the plan is that of another program");
        device.allocate(Arc::new(model.program.clone()), plan.clone())?;
        let mut session = Self { model, plan, device };
        let mut control = [0.0; CONTROL_FIELDS];
        control[Control::LossScale as usize] =
            if session.model.spec.compute == DType::F16 { FIRST_LOSS_SCALE } else { 1.0 };
        session.write(session.model.params.exchange.control, &control)?;
        let config = &session.model.spec.config;
        let inv_freq = config.rope.inv_freq(config.head_dim, config.max_positions);
        session.write_inv_freq(&inv_freq)?;
        Ok(session)
    }

    /// Writes floats to a contiguous operand, in its type.
    pub fn write(&mut self, view: View, values: &[f64]) -> Result<()> {
        let dtype = self.model.program.info(view.buf).dtype;
        self.device.write(view.buf, view.offset * dtype.bytes(), &encode(dtype, values))
    }

    /// Reads floats from a contiguous operand.
    pub fn read(&mut self, view: View, live: usize) -> Result<Vec<f64>> {
        let dtype = self.model.program.info(view.buf).dtype;
        let mut bytes = vec![0; view.rows.count(live) * view.cols * dtype.bytes()];
        self.device.read(view.buf, view.offset * dtype.bytes(), &mut bytes)?;
        Ok(decode(dtype, &bytes))
    }

    /// Raw bytes into an operand, from its first element on.
    pub fn write_bytes(&mut self, view: View, bytes: &[u8]) -> Result<()> {
        let size = self.model.program.info(view.buf).dtype.bytes();
        self.device.write(view.buf, view.offset * size, bytes)
    }

    /// Raw bytes of a contiguous operand.
    pub fn read_bytes(&mut self, view: View) -> Result<Vec<u8>> {
        let size = self.model.program.info(view.buf).dtype.bytes();
        let mut bytes = vec![0; view.rows.count(self.model.program.tokens) * view.cols * size];
        self.device.read(view.buf, view.offset * size, &mut bytes)?;
        Ok(bytes)
    }

    /// Begins an update: casts the adapter, clears its gradient. Without an adapter there is nothing to do.
    pub fn begin(&mut self) -> Result<()> {
        if self.model.params.master.is_some() { self.device.run(Phase::Begin, 0) } else { Ok(()) }
    }

    /// Forward and backward. The loss of every target has the weight `1 / num_items`; `seed` is the key of this
    /// micro-step's random numbers.
    pub fn micro(&mut self, batch: &MicroBatch, num_items: usize, seed: [i32; 2]) -> Result<MicroLoss> {
        let weight = 1.0 / num_items as f64;
        self.write_batch(batch, weight)?;
        self.write_seed(seed)?;
        if let (Some(noise), Some(alpha)) = (self.model.params.exchange.noise, self.model.spec.neftune) {
            let elements = batch.longest_row * self.model.spec.config.hidden_size;
            self.write(noise, &[alpha / (elements as f64).sqrt()])?;
        }
        self.device.run(Phase::Micro, batch.tokens())?;
        let logp = self.read(self.model.params.exchange.logp, batch.tokens())?;
        let loss = -logp.iter().sum::<f64>() * weight;
        Ok(MicroLoss { loss, aux: self.aux()?, hits: self.hits(batch.tokens())? })
    }

    /// Clips and updates.
    pub fn update(&mut self) -> Result<Update> {
        self.device.run(Phase::Update, 0)?;
        let control = self.control()?;
        let at = |c: Control| control[c as usize];
        Ok(Update {
            grad_norm: at(Control::GradNorm),
            learning_rate: at(Control::LearningRate),
            skipped: at(Control::Skipped) != 0.0,
        })
    }

    /// Forward alone.
    pub fn eval(&mut self, batch: &MicroBatch, adapter: bool) -> Result<EvalLoss> {
        self.write_batch(batch, 0.0)?;
        self.device.run(Phase::Eval { adapter }, batch.tokens())?;
        let logp = self.read(self.model.params.exchange.logp, batch.tokens())?;
        Ok(EvalLoss { logp, aux: self.aux()?, hits: self.hits(batch.tokens())? })
    }

    /// Logits of the tokens `rows` of the batch, `[rows, V]`. Without an adapter in the model, `adapter` is the base.
    pub fn logits(&mut self, batch: &MicroBatch, rows: &[usize], adapter: bool) -> Result<Vec<f64>> {
        let selected = self.run_logits(batch, rows, adapter)?;
        let mut values = self.read(selected.logits, 0)?;
        values.truncate(rows.len() * selected.logits.cols);
        Ok(values)
    }

    /// The token that follows each of the tokens `rows` of the batch. `draw` tells the draws of one seed apart.
    pub fn next_tokens(
        &mut self,
        batch: &MicroBatch,
        rows: &[usize],
        adapter: bool,
        sampling: &Sampling,
        draw: u32,
    ) -> Result<Vec<u32>> {
        let selected = self.run_logits(batch, rows, adapter)?;
        let top_k = sampling.top_k.min(selected.logits.cols);
        self.write(selected.rule, &[sampling.temperature, top_k as f64, sampling.top_p])?;
        self.write_seed([sampling.seed as i32, draw as i32])?;
        self.device.run(Phase::Sample, 0)?;
        let mut bytes = vec![0; 4 * rows.len()];
        self.device.read(selected.token.buf, 0, &mut bytes)?;
        let tokens = bytes.as_chunks().0.iter().map(|b| u32::try_from(i32::from_le_bytes(*b)));
        tokens.collect::<Result<_, _>>().map_err(|_| {
            Error::run("the model's logits are not numbers")
                .hint("the weights or the adapter are damaged, or too large for the type: try --dtype float32")
        })
    }

    /// Runs the `Logits` phase for some rows.
    fn run_logits(&mut self, batch: &MicroBatch, rows: &[usize], adapter: bool) -> Result<Selected> {
        let Some(selected) = self.model.params.exchange.selected else {
            return Err(Error::run("this program was recorded without logits"));
        };
        let capacity = self.model.spec.logits_rows;
        assert!(rows.len() <= capacity && rows.iter().all(|r| *r < batch.tokens()));
        self.write_batch(batch, 0.0)?;
        let padded = rows.iter().copied().chain(std::iter::repeat(0)).take(capacity);
        let bytes: Vec<u8> = padded.flat_map(|r| (r as i32).to_le_bytes()).collect();
        self.write_bytes(selected.rows, &bytes)?;
        self.device.run(Phase::Logits { adapter }, batch.tokens())?;
        Ok(selected)
    }

    /// The control buffer, see [`Control`].
    pub fn control(&mut self) -> Result<Vec<f64>> {
        self.read(self.model.params.exchange.control, 0)
    }

    /// The device that holds the model.
    pub fn device(&mut self) -> &mut dyn Device {
        self.device.as_mut()
    }

    fn aux(&mut self) -> Result<f64> {
        match self.model.params.exchange.aux {
            Some(aux) => Ok(self.read(aux, 0)?[0]),
            None => Ok(0.0),
        }
    }

    /// Hits among the first `live` tokens.
    fn hits(&mut self, live: usize) -> Result<usize> {
        let mut bytes = vec![0; 4 * live];
        self.device.read(self.model.params.exchange.hit.buf, 0, &mut bytes)?;
        Ok(bytes.as_chunks().0.iter().filter(|b| i32::from_le_bytes(**b) != 0).count())
    }

    fn write_seed(&mut self, seed: [i32; 2]) -> Result<()> {
        self.write_bytes(self.model.params.exchange.seed, seed.map(i32::to_le_bytes).as_flattened())
    }

    fn write_inv_freq(&mut self, inv_freq: &[f32]) -> Result<()> {
        let values: Vec<f64> = inv_freq.iter().map(|&f| f64::from(f)).collect();
        self.write(self.model.params.exchange.inv_freq, &values)
    }

    fn write_batch(&mut self, batch: &MicroBatch, weight: f64) -> Result<()> {
        let tokens = batch.tokens();
        if tokens > self.model.program.tokens {
            let planned = self.model.program.tokens;
            return Err(Error::run(format!("a batch of {tokens} tokens in a program planned for {planned}")));
        }
        let x = self.model.params.exchange.clone();
        let config = &self.model.spec.config;
        if matches!(config.rope.scaling, RopeScaling::Dynamic { .. }) {
            let longest = batch.pos.iter().max().map_or(0, |p| *p as usize + 1);
            let inv_freq = config.rope.inv_freq(config.head_dim, longest);
            self.write_inv_freq(&inv_freq)?;
        }
        let full = x.full.map(|(lo, qhi)| [(lo, &batch.full_lo), (qhi, &batch.full_qhi)]);
        let columns = [
            (x.ids, &batch.ids),
            (x.targets, &batch.targets),
            (x.pos, &batch.pos),
            (x.lo, &batch.lo),
            (x.hi, &batch.hi),
            (x.qlo, &batch.qlo),
            (x.qhi, &batch.qhi),
        ];
        for (view, values) in columns.into_iter().chain(full.into_iter().flatten()) {
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            self.write_bytes(view, &bytes)?;
        }
        self.write(x.weight, &vec![weight; tokens])
    }
}

/// Floats as little-endian bytes of `dtype`, each rounded once.
pub fn encode(dtype: DType, values: &[f64]) -> Vec<u8> {
    let narrow = |v: &f64| *v as f32;
    match dtype {
        DType::F64 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::F32 => values.iter().flat_map(|v| narrow(v).to_le_bytes()).collect(),
        DType::Bf16 => values.iter().flat_map(|v| bf16::from_f64(*v).to_le_bytes()).collect(),
        DType::F16 => values.iter().flat_map(|v| f16::from_f64(*v).to_le_bytes()).collect(),
        DType::I64 | DType::I32 | DType::U8 => unreachable!("floats do not go into integer buffers"),
    }
}

/// The inverse of [`encode`].
pub fn decode(dtype: DType, bytes: &[u8]) -> Vec<f64> {
    match dtype {
        DType::F64 => bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
        DType::F32 => bytes.as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
        DType::Bf16 => bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f64()).collect(),
        DType::F16 => bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f64()).collect(),
        DType::I64 | DType::I32 | DType::U8 => unreachable!("floats do not come from integer buffers"),
    }
}
