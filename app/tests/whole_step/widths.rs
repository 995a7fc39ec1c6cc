//! One or two layers of models of real width, on each code path of the GPU, against the CPU device, and bit-equal
//! repetitions.

use crate::cases::Outcome;
use crate::ties::far_from_ties;
use crate::{Case, model, text};
use halfbyte::config::known::known;
use halfbyte_core::device::Device;
use halfbyte_core::device::cpu::{Cpu, CpuOptions, Written};
use halfbyte_core::device::cuda::{Arch, Cuda, CudaOptions};
use halfbyte_core::dtype::DType;
use halfbyte_core::model::record;
use halfbyte_core::op::Phase;
use halfbyte_core::session::Session;
use halfbyte_core::session::batch::{IGNORED, MicroBatch};
use halfbyte_core::tape::Policy;
use std::fmt;
use std::sync::{Arc, Mutex};

/// Smallest share of the tokens that must remain for a comparison to be meaningful.
const SHARE: f64 = 0.25;

/// One comparison of GPU and CPU.
struct Width {
    name: &'static str,
    /// Name of a known architecture.
    model: &'static str,
    layers: usize,
    /// Lengths of the texts.
    texts: &'static [usize],
    /// Whether all tokens are equal, so that two experts receive all of them and the others none.
    same: bool,
}

const MIXTRAL: &str = "mixtral-8x7b-v0.1";
const MISTRAL: &str = "mistral-7b-v0.1";
const WIDTHS: [Width; 6] = [
    Width { name: "Mistral-7B, one layer, ragged texts", model: MISTRAL, layers: 1, texts: &[100, 1, 91], same: false },
    Width {
        name: "Mixtral-8x7B, one layer, ragged texts",
        model: MIXTRAL,
        layers: 1,
        texts: &[100, 1, 91],
        same: false,
    },
    Width { name: "Mixtral-8x7B, two layers", model: MIXTRAL, layers: 2, texts: &[128], same: false },
    Width {
        name: "Mixtral-8x7B, one layer, all tokens to two experts",
        model: MIXTRAL,
        layers: 1,
        texts: &[150],
        same: true,
    },
    Width {
        name: "Mixtral-8x7B, one layer, two tokens, empty experts",
        model: MIXTRAL,
        layers: 1,
        texts: &[2],
        same: false,
    },
    Width {
        name: "Mixtral-8x7B, one layer, one-token text and three tokens",
        model: MIXTRAL,
        layers: 1,
        texts: &[1, 3],
        same: false,
    },
];

fn session(case: &Width, compute: DType, device: Box<dyn Device>) -> Result<Session, String> {
    let (_, mut config) = known(case.model).map_err(text)?;
    config.layers = case.layers;
    let tokens = case.texts.iter().sum::<usize>() + 5;
    let spec = model::spec(config, compute, tokens, Policy::Recompute, 4).map_err(text)?;
    let mut session = Session::planned(record(spec).map_err(text)?, device).map_err(text)?;
    model::fill(&mut session).map_err(text)?;
    // B is zero initially, which makes the gradient of A zero. This gives every adapter tensor nonzero values.
    let master = session.model.params.master.ok_or("no adapter")?.0;
    let values: Vec<f64> = (0..master.cols).map(|i| ((i * 2_654_435_761) % 2001) as f64 / 1e5 - 0.01).collect();
    session.write(master, &values).map_err(text)?;
    Ok(session)
}

/// Removes the targets of tokens whose choice of experts is close to a tie in any layer. Returns the number of
/// remaining targets.
fn drop_near_ties(batch: &mut MicroBatch, experts: usize, routers: &[Vec<f64>]) -> Result<usize, String> {
    let predicted = |batch: &MicroBatch| batch.targets.iter().filter(|&&target| target != IGNORED).count();
    let of = predicted(batch);
    for logits in routers {
        for (target, far) in batch.targets.iter_mut().zip(far_from_ties(logits, experts, 2)) {
            if !far {
                *target = IGNORED;
            }
        }
    }
    let left = predicted(batch);
    if (left as f64) < SHARE * of as f64 {
        Err(format!("only {left} of {of} targets can be compared"))
    } else {
        Ok(left)
    }
}

/// The result of one micro-step.
#[derive(PartialEq)]
struct Micro {
    loss: f64,
    /// Gradient of all adapter tensors.
    gradient: Vec<f64>,
}

fn micro(session: &mut Session, batch: &MicroBatch, items: usize) -> Result<Micro, String> {
    session.begin().map_err(text)?;
    let loss = session.micro(batch, items, [1, 0]).map_err(text)?.loss;
    let gradient = session.model.params.master.ok_or("no adapter")?.1;
    Ok(Micro { loss, gradient: session.read(gradient, 0).map_err(text)? })
}

/// Distance of a micro-step from the exact one: 1 − cosine of the gradients, and the relative errors of norm and loss.
struct Distance([f64; 3]);

impl Distance {
    /// The tolerances for whole steps.
    const LIMITS: [f64; 3] = [1e-3, 1e-2, 5e-3];

    fn of(ours: &Micro, exact: &Micro) -> Self {
        let dot = |a: &Micro, b: &Micro| a.gradient.iter().zip(&b.gradient).map(|(x, y)| x * y).sum::<f64>();
        let (a, b) = (dot(ours, ours).sqrt(), dot(exact, exact).sqrt());
        Self([1.0 - dot(ours, exact) / (a * b), (a / b - 1.0).abs(), (ours.loss / exact.loss - 1.0).abs()])
    }

    /// Whether the distance is within the limits, or within twice that of rounding alone.
    fn is_allowed(&self, rounding: &Self) -> bool {
        (0..3).all(|i| self.0[i] <= Self::LIMITS[i].max(2.0 * rounding.0[i]))
    }
}

impl fmt::Display for Distance {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let [angle, norm, loss] = self.0;
        write!(f, "1 − cosine {angle:.1e}, norm {norm:.1e}, loss {loss:.1e} off")
    }
}

/// Compares each code path of the GPU in bf16 with the CPU device in f32; the CPU device in bf16 measures the effect of
/// rounding alone. Then repetitions on the GPU must give the same bits.
fn compare(case: &Width) -> Outcome {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let routers = seen.clone();
    let observer = move |written: Written| {
        if matches!(written.phase, Phase::Eval { .. }) && written.name.ends_with(".router") {
            routers.lock().unwrap().push(written.values());
        }
    };
    let cpu = || Cpu::new(CpuOptions::default());
    let mut exact = session(case, DType::F32, Box::new(cpu().observed(Box::new(observer))))?;
    let config = exact.model.spec.config.clone();
    let (mut batch, items) = model::texts(case.texts, config.vocab_size, config.sliding_window, case.same);
    let mut targets = String::new();
    if let Some(experts) = &config.experts {
        exact.eval(&batch, true).map_err(text)?;
        let routers = seen.lock().unwrap();
        if routers.len() != config.layers {
            return Err(format!("{} routers in {} layers", routers.len(), config.layers));
        }
        targets = format!("; {} targets", drop_near_ties(&mut batch, experts.count, &routers)?);
    }
    let exactly = micro(&mut exact, &batch, items)?;
    drop(exact);
    let rounded = micro(&mut session(case, DType::Bf16, Box::new(cpu()))?, &batch, items)?;
    let rounding = Distance::of(&rounded, &exactly);
    let (mut measured, mut allowed) = (format!("rounding: {rounding}"), true);
    for arch in [None, Some(Arch::Sm80)] {
        let device = Cuda::new(CudaOptions { arch, ..CudaOptions::default() }).map_err(text)?;
        let path = device.arch();
        let mut gpu = session(case, DType::Bf16, Box::new(device))?;
        let first = micro(&mut gpu, &batch, items)?;
        for repeat in 0..10 {
            if micro(&mut gpu, &batch, items)? != first {
                return Err(format!("{path}: repetition {repeat} changed the bits"));
            }
        }
        let ours = Distance::of(&first, &exactly);
        allowed &= ours.is_allowed(&rounding);
        measured += &format!("; {path}: {ours}");
    }
    measured += &targets;
    if allowed { Ok(measured) } else { Err(measured) }
}

pub fn cases() -> Vec<Case> {
    WIDTHS.iter().map(|width| Case::on_gpu(format!("width/{}", width.name), || compare(width))).collect()
}
