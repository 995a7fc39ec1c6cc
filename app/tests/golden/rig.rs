//! Fixtures of the golden tests: sessions for recorded models, recorded batches as streams of tokens, and distances
//! between vectors.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use halfbyte::config::recipe::LoadDtype;
use halfbyte::run::ladder::first;
use halfbyte::run::spec::{BLOCK, adapter_specs, base_schemes};
use halfbyte::weights::adapter::Adapter;
use halfbyte::weights::load::{load_base, write_adapter};
use halfbyte::weights::safetensors::TensorFiles;
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

/// The reason why the program refuses a model by name, if it does.
pub fn refused(model: &Path) -> Option<String> {
    let error = halfbyte::config::config_json::open(model).err()?.to_string();
    error
        .contains("architecture is not supported")
        .then(|| format!("refused by name: {}", error.lines().next().unwrap_or_default()))
}

/// The settings that vary between the sessions of the recorded cases.
pub struct Setup<'a> {
    pub compute: DType,
    /// The type in which the weights were loaded, and from which they were quantized.
    pub load_as: DType,
    pub scheme: Option<Scheme>,
    pub adapter: Option<&'a Adapter>,
    pub tokens: usize,
    pub checkpointing: bool,
    /// Coefficient of the auxiliary loss, if it is part of the loss.
    pub aux: Option<f64>,
    pub optimizer: Option<OptimizerSpec>,
}

/// The last values written to the watched float buffers, by phase and buffer name.
pub type Seen = Arc<Mutex<HashMap<(Phase, String), Vec<f64>>>>;

/// A session with the loaded model of `folder`, and the values that it writes to the buffers that `watch` selects. The
/// capacity exceeds the tokens of a run, and the loss runs in several chunks, of which the last is not full.
pub fn open(folder: &Path, setup: Setup, watch: fn(&str) -> bool) -> Result<(Session, Seen), String> {
    let config = halfbyte::config::config_json::open(folder).map_err(text)?;
    let checkpoint = TensorFiles::open(folder).map_err(text)?;
    let spec = Spec {
        compute: setup.compute,
        tokens: setup.tokens,
        base: base_schemes(&config, Some(&checkpoint), setup.scheme, &[]).map_err(text)?,
        adapters: setup.adapter.map_or_else(HashMap::new, |a| adapter_specs(&a.modules)),
        dropout: 0.0,
        neftune: None,
        policies: first(Some(setup.checkpointing), config.layers).policies,
        streamed: 0,
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

/// Writes the adapter to the session and casts it to the compute type.
pub fn put_adapter(session: &mut Session, adapter: &Adapter) -> Result<(), String> {
    let names = adapter.modules.iter().map(|m| m.module.name.clone());
    let weights = names.zip(adapter.weights.iter().cloned()).collect();
    write_adapter(session, &weights).map_err(text)?;
    session.begin().map_err(text)
}

/// Parses a scheme such as `{"type": "nf4", "double": true}`; null gives `None`.
pub fn scheme(quant: &Value) -> Result<Option<Scheme>, String> {
    if quant.is_null() {
        return Ok(None);
    }
    let kind = quant["type"].as_str().and_then(QuantKind::parse).ok_or("odd quant type")?;
    Ok(Some(Scheme { kind, blocksize: BLOCK, double: quant["double"].as_bool().ok_or("no quant.double")? }))
}

/// The tolerance of a dense model in `compute`, as a share of that in bf16. f16 has three more bits than bf16; we
/// demand two of them.
pub fn share(compute: DType) -> f64 {
    if compute == DType::F16 { 0.25 } else { 1.0 }
}

/// Parses the name of a type, such as `float32` or `bfloat16`.
pub fn dtype(name: &Value) -> Result<DType, String> {
    let name = name.as_str().ok_or("no type")?;
    DType::from_torch_name(name).ok_or(format!("odd type {name}"))
}

/// A recorded batch as a stream: concatenated documents without padding.
pub struct Stream {
    pub documents: Vec<Document>,
    pub batch: MicroBatch,
    /// The index of each token of the stream in the recorded `[batch · T]`.
    pub rows: Vec<usize>,
}

impl Stream {
    /// Reads `{name}.input_ids`, `.labels` and, if present, `.attention_mask` and `.position_ids`. A document is a row
    /// without its padding. With position ids, a document begins wherever they restart.
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

    /// Selects the rows of a recorded `[batch · T, cols]` that are in the stream.
    pub fn pick(&self, recorded: &[f32], cols: usize) -> Vec<f32> {
        self.rows.iter().flat_map(|&row| &recorded[row * cols..][..cols]).copied().collect()
    }
}

/// A document of all `ids`, without labels.
pub fn unlabeled(ids: &[u32]) -> Document {
    Document { labels: vec![IGNORED; ids.len()], ids: ids.to_vec() }
}

/// Converts nonnegative integers to token ids.
pub fn ids(values: &[i64]) -> Vec<u32> {
    values.iter().map(|&id| id as u32).collect()
}

/// The distance between our values and the golden ones.
#[derive(Clone, Copy, Debug, Default)]
pub struct Distance {
    /// Largest absolute difference.
    pub worst: f64,
    /// Root mean square of the differences, divided by that of the golden values.
    pub relative: f64,
}

/// The distance of two vectors. It is infinite if a value is not finite or the lengths differ.
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

/// The relative difference |ours − golden| / |golden|.
pub fn relative(ours: f64, golden: f64) -> f64 {
    if ours == golden { 0.0 } else { (ours - golden).abs() / golden.abs() }
}

/// The measurements of one case: the worst value under each name. Every value is checked against its limit when added.
#[derive(Default)]
pub struct Measured(Vec<(String, f64)>);

impl Measured {
    /// Adds `value`; an error if it exceeds `limit` or is NaN.
    pub fn within(&mut self, what: &str, value: f64, limit: f64, place: &str) -> Result<(), String> {
        match self.0.iter_mut().find(|(name, _)| name == what) {
            Some((_, worst)) => *worst = worst.max(value),
            None => self.0.push((what.into(), value)),
        }
        // `value > limit` would let NaN pass.
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
