//! Two updates of a tiny model, an evaluation and logits, repeated from the same state: the bits must not change.

use crate::cases::{Outcome, gpu_is_required};
use crate::fixtures::{batch, spec};
use crate::{Case, device, text};
use halfbyte::weights::dummy::fill_base;
use halfbyte_core::device::DeviceName;
use halfbyte_core::dtype::DType;
use halfbyte_core::model::{Spec, record};
use halfbyte_core::op::{Buf, Control, Place, Purpose, Rows};
use halfbyte_core::session::Session;
use halfbyte_core::session::init::init_optimizer;
use std::collections::HashMap;

const ON_GPU: usize = 200;
const ON_CPU: usize = 5;

pub fn cases() -> Vec<Case> {
    let kinds = [("dense", false), ("experts", true)].into_iter();
    let all = kinds.flat_map(|(name, moe)| [DType::Bf16, DType::F16].map(|compute| (name, moe, compute)));
    all.map(|(name, moe, compute)| {
        Case::anywhere(format!("repeats/{name}, {}", compute.torch_name()), move || repeat(moe, compute))
    })
    .collect()
}

/// The tiny model, in widths that the GPU supports.
fn wide(moe: bool, compute: DType) -> Spec {
    let mut spec = spec(moe, compute, true);
    let c = &mut spec.config;
    // Wide enough for the kernels of large products.
    (c.hidden_size, c.intermediate_size, c.head_dim, c.vocab_size) = (128, 160, 32, 200);
    if let Some(experts) = &mut c.experts {
        // Doubles the experts (and the router's outputs): the new ones are adapted and quantized like the first four.
        experts.count = 8;
        spec.adapters.extend(doubled(&spec.adapters));
        spec.base.extend(doubled(&spec.base));
    }
    spec
}

/// The settings of experts 0 to 3, copied for experts 4 to 7.
fn doubled<T: Clone>(modules: &HashMap<String, T>) -> Vec<(String, T)> {
    let renamed = |name: &String| {
        let (before, rest) = name.split_once(".experts.")?;
        let (number, leaf) = rest.split_once('.')?;
        Some(format!("{before}.experts.{}.{leaf}", number.parse::<usize>().ok()? + 4))
    };
    modules.iter().filter_map(|(name, value)| Some((renamed(name)?, value.clone()))).collect()
}

fn repeat(moe: bool, compute: DType) -> Outcome {
    let on_cpu = device::named()? == DeviceName::Cpu;
    if on_cpu && gpu_is_required() {
        return Err("REQUIRE_GPU=1, and HALFBYTE_DEVICE does not name a GPU".into());
    }
    let model = record(wide(moe, compute)).map_err(text)?;
    let mut s = Session::planned(model, device::open(compute, Box::new(|_| ()))?).map_err(text)?;
    start(&mut s).map_err(text)?;
    let beginning = state(&mut s).map_err(text)?;
    let first = pass(&mut s).map_err(text)?;
    if state(&mut s).map_err(text)? == beginning {
        return Err("nothing was trained".into());
    }
    let times = if on_cpu { ON_CPU } else { ON_GPU };
    for repetition in 2..=times {
        for (buf, bytes) in &beginning {
            s.device().write(*buf, 0, bytes).map_err(text)?;
        }
        let again = pass(&mut s).map_err(text)?;
        if let Some((name, _)) = first.iter().zip(&again).find(|(a, b)| a != b).map(|(a, _)| a) {
            return Err(format!("repetition {repetition}: the bits of {name} differ"));
        }
    }
    let remark = if on_cpu { format!(" (the CPU; on a GPU {ON_GPU})") } else { String::new() };
    let bytes: usize = first.iter().map(|(_, bytes)| bytes.len()).sum();
    Ok(format!("the same {bytes} bytes {times} times{remark}"))
}

/// Initializes the weights, an adapter without zeros, the optimizer state and the learning rates.
fn start(s: &mut Session) -> halfbyte_core::error::Result<()> {
    fill_base(s, 5)?;
    init_optimizer(s)?;
    if let Some((master, _)) = s.model.params.master {
        let values: Vec<f64> = (0..master.cols).map(|i| ((i * 7919) % 2001) as f64 / 1e4 - 0.1).collect();
        s.write(master, &values)?;
    }
    if let Some(schedule) = s.model.params.optimizer.as_ref().map(|o| o.schedule) {
        s.write(schedule, &vec![0.01; schedule.cols])?;
    }
    let mut control = s.control()?;
    if s.model.spec.compute == DType::F16 {
        // With the default initial scale, the first update may overflow and be skipped.
        control[Control::LossScale as usize] = 256.0;
    }
    s.write(s.model.params.exchange.control, &control)
}

/// The buffers of fixed size that a step changes, with their contents.
fn state(s: &mut Session) -> halfbyte_core::error::Result<Vec<(Buf, Vec<u8>)>> {
    let program = s.model.program.clone();
    let kept = |place| !matches!(place, Place::Resident(Purpose::Weight | Purpose::Constant) | Place::Arena);
    let bufs =
        program.all().filter(|buf| kept(program.info(*buf).place) && matches!(program.info(*buf).rows, Rows::Fixed(_)));
    bufs.map(|buf| {
        let mut bytes = vec![0; program.bytes(buf)];
        s.device().read(buf, 0, &mut bytes)?;
        Ok((buf, bytes))
    })
    .collect()
}

/// Two updates of two micro-steps each, an evaluation and logits. Returns all results and the final state, by name.
fn pass(s: &mut Session) -> halfbyte_core::error::Result<Vec<(String, Vec<u8>)>> {
    let batches = [batch(&[5, 1, 7], 1), batch(&[9, 4], 2), batch(&[1, 1, 6, 1], 3), batch(&[13], 4)];
    let mut numbers = Vec::new();
    for (i, pair) in batches.chunks(2).enumerate() {
        s.begin()?;
        for (j, (batch, _)) in pair.iter().enumerate() {
            let micro = s.micro(batch, pair.iter().map(|b| b.1).sum(), [i as i32, j as i32])?;
            numbers.extend([micro.loss, micro.aux]);
        }
        numbers.push(s.update()?.grad_norm);
    }
    let eval = s.eval(&batches[0].0, true)?;
    numbers.extend(eval.logp);
    numbers.push(eval.aux);
    numbers.extend(s.logits(&batches[1].0, &[0, 12], true)?);
    let left = state(s)?;
    let named = |(buf, bytes): (Buf, Vec<u8>)| (s.model.program.info(buf).name.clone(), bytes);
    let mut left: Vec<_> = left.into_iter().map(named).collect();
    left.push(("losses and logits".into(), numbers.iter().flat_map(|n| n.to_le_bytes()).collect()));
    Ok(left)
}
