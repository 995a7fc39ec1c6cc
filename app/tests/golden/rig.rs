//! Sessions for recorded models, recorded batches as streams of tokens, and how far two vectors are apart.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use halfbyte::config::recipe::LoadDtype;
use halfbyte::run::spec::{BLOCK, adapter_specs, base_schemes};
use halfbyte::weights::adapter::Adapter;
use halfbyte::weights::load::{load_base, write_adapter};
use halfbyte::weights::safetensors::Checkpoint;
use halfbyte_core::device::cpu::Written;
use halfbyte_core::dtype::DType;
use halfbyte_core::model::{LossSpec, OptimizerSpec, Spec, record};
use halfbyte_core::op::Phase;
use halfbyte_core::quant::QuantKind;
use halfbyte_core::quant::Scheme;
use halfbyte_core::session::Session;
use halfbyte_core::session::batch::{Document, IGNORED, MicroBatch};
use halfbyte_core::session::init::init_optimizer;
use serde_json::Value;

use crate::tensors::Tensors;

pub fn text(e: impl std::fmt::Display) -> String {
    e.to_string()
}

/// What varies between the sessions of the recorded cases.
pub struct Setup<'a> {
    pub compute: DType,
    /// The type in which the weights were loaded (and from which they were quantised).
    pub load_as: DType,
    pub scheme: Option<Scheme>,
    pub adapter: Option<&'a Adapter>,
    pub tokens: usize,
    pub checkpointing: bool,
    /// Coefficient of the auxiliary loss.
    pub aux: Option<f64>,
    pub optimizer: Option<OptimizerSpec>,
}

/// Everything floating that the ops of a phase wrote last, by phase and buffer name.
pub type Seen = Arc<Mutex<HashMap<(Phase, String), Vec<f64>>>>;

/// A session for the model in `folder`, loaded, with what it writes to the buffers that `watch` names. Capacity, chunks of the loss and selected
/// rows are such that a run has fewer tokens than planned, several chunks, the last one not full.
pub fn open(folder: &Path, setup: Setup, watch: fn(&str) -> bool) -> Result<(Session, Seen), String> {
    let config = halfbyte::config::config_json::open(folder).map_err(text)?;
    let checkpoint = Checkpoint::open(folder).map_err(text)?;
    let spec = Spec {
        compute: setup.compute,
        tokens: setup.tokens,
        base: base_schemes(&config, Some(&checkpoint), setup.scheme, &[]).map_err(text)?,
        adapters: setup.adapter.map_or_else(HashMap::new, |a| adapter_specs(&a.modules)),
        dropout: 0.0,
        neftune: None,
        checkpointing: setup.checkpointing,
        loss: LossSpec { chunk: 29, aux: setup.aux },
        optimizer: setup.optimizer,
        logits_rows: setup.tokens,
        config,
    };
    let seen = Seen::default();
    let sink = seen.clone();
    let observer = move |written: Written| {
        if watch(written.name) {
            let key = (written.phase, written.name.to_string());
            sink.lock().expect("no panic while it is held").insert(key, written.values());
        }
    };
    let device = crate::device::open(setup.compute, Box::new(observer))?;
    let mut session = Session::planned(record(spec).map_err(text)?, device).map_err(text)?;
    load_base(&mut session, &checkpoint, LoadDtype::Named(setup.load_as)).map_err(text)?;
    init_optimizer(&mut session).map_err(text)?;
    if let Some(adapter) = setup.adapter {
        put_adapter(&mut session, adapter)?;
    }
    Ok((session, seen))
}

/// Writes the adapter and casts it.
pub fn put_adapter(session: &mut Session, adapter: &Adapter) -> Result<(), String> {
    let names = adapter.modules.iter().map(|m| m.module.name.clone());
    let weights = names.zip(adapter.weights.iter().cloned()).collect();
    write_adapter(session, &weights).map_err(text)?;
    session.begin().map_err(text)
}

/// `{"type": "nf4", "double": true}`, or null.
pub fn scheme(quant: &Value) -> Result<Option<Scheme>, String> {
    if quant.is_null() {
        return Ok(None);
    }
    let kind = quant["type"].as_str().and_then(QuantKind::parse).ok_or("odd quant type")?;
    Ok(Some(Scheme { kind, blocksize: BLOCK, double: quant["double"].as_bool().ok_or("no quant.double")? }))
}

/// How far a dense model may be off in `compute`, as a share of what it may be in bf16: f16 has three more bits, of which
/// two are asked for.
pub fn share(compute: DType) -> f64 {
    if compute == DType::F16 { 0.25 } else { 1.0 }
}

/// `float32`, `bfloat16`.
pub fn dtype(name: &Value) -> Result<DType, String> {
    let name = name.as_str().ok_or("no type")?;
    DType::from_torch_name(name).ok_or(format!("odd type {name}"))
}

/// A recorded batch as a stream: padding dropped, documents one after the other.
pub struct Stream {
    pub documents: Vec<Document>,
    pub batch: MicroBatch,
    /// Where each token of the stream is in the recorded `[batch · T]`.
    pub rows: Vec<usize>,
}

impl Stream {
    /// Reads `{name}.input_ids`, `.labels`, and where they are `.attention_mask` and `.position_ids`. Documents are the
    /// rows without their padding; with positions, what lies between restarts.
    pub fn read(file: &Tensors, name: &str, window: Option<usize>) -> Result<Self, String> {
        let ids = file.i64(&format!("{name}.input_ids"))?;
        let labels = file.i64(&format!("{name}.labels"))?;
        let length = *file.shape(&format!("{name}.input_ids"))?.last().ok_or("no shape")?;
        let optional = |key: &str| match file.has(&format!("{name}.{key}")) {
            true => file.i64(&format!("{name}.{key}")).map(Some),
            false => Ok(None),
        };
        let (mask, positions) = (optional("attention_mask")?, optional("position_ids")?);
        let rows: Vec<usize> = (0..ids.len()).filter(|&i| mask.as_ref().is_none_or(|m| m[i] != 0)).collect();
        let mut documents: Vec<Document> = Vec::new();
        for &i in &rows {
            let starts = positions.as_ref().map_or(i % length == 0, |p| p[i] == 0);
            if starts {
                documents.push(Document::default());
            }
            let document = documents.last_mut().ok_or("the first token starts no document")?;
            document.ids.push(ids[i] as u32);
            document.labels.push(labels[i] as i32);
        }
        let batch = MicroBatch::new(&documents.iter().collect::<Vec<_>>(), window);
        Ok(Self { documents, batch, rows })
    }

    /// The rows of a recorded `[batch · T, cols]` that are in the stream.
    pub fn pick(&self, recorded: &[f32], cols: usize) -> Vec<f32> {
        self.rows.iter().flat_map(|&row| &recorded[row * cols..][..cols]).copied().collect()
    }
}

/// The whole text as a document without labels.
pub fn unlabelled(ids: &[u32]) -> Document {
    Document { labels: vec![IGNORED; ids.len()], ids: ids.to_vec() }
}

/// Non-negative integers as token ids.
pub fn ids(values: &[i64]) -> Vec<u32> {
    values.iter().map(|&id| id as u32).collect()
}

/// How far `ours` is from `golden`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Distance {
    /// Largest absolute difference.
    pub worst: f64,
    /// Root mean square of the differences, divided by that of `golden`.
    pub relative: f64,
}

/// Distance of two vectors; infinite where one is not finite or the lengths differ.
pub fn distance(ours: &[f64], golden: &[f32]) -> Distance {
    if ours.len() != golden.len() || ours.iter().any(|x| !x.is_finite()) {
        return Distance { worst: f64::INFINITY, relative: f64::INFINITY };
    }
    let pairs = || ours.iter().zip(golden).map(|(a, b)| (*a, f64::from(*b)));
    let worst = pairs().fold(0.0, |m: f64, (a, b)| m.max((a - b).abs()));
    let squares: f64 = pairs().map(|(a, b)| (a - b).powi(2)).sum();
    let size: f64 = pairs().map(|(_, b)| b * b).sum();
    Distance { worst, relative: if squares == 0.0 { 0.0 } else { (squares / size).sqrt() } }
}

/// |a − b| / |b|.
pub fn relative(ours: f64, golden: f64) -> f64 {
    if ours == golden { 0.0 } else { (ours - golden).abs() / golden.abs() }
}

/// Measurements of one case by name: the worst of each, checked against its limit when it is added.
#[derive(Default)]
pub struct Measured(Vec<(String, f64)>);

impl Measured {
    /// Notes `value`; an error if it is above `limit` (or not a number).
    pub fn within(&mut self, what: &str, value: f64, limit: f64, place: &str) -> Result<(), String> {
        match self.0.iter_mut().find(|(name, _)| name == what) {
            Some((_, worst)) => *worst = worst.max(value),
            None => self.0.push((what.into(), value)),
        }
        // Not `value > limit`, which lets NaN pass.
        if value <= limit { Ok(()) } else { Err(format!("{what} off by {value:.2e} (limit {limit:.0e}) {place}")) }
    }
}

impl std::fmt::Display for Measured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, (name, worst)) in self.0.iter().enumerate() {
            write!(f, "{}{name} {worst:.1e}", if i > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}
