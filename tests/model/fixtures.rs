//! Tiny models with random weights, and sessions on the CPU that run them.

use halfbyte_core::device::cpu::{Cpu, CpuOptions};
use halfbyte_core::dtype::DType;
use halfbyte_core::model::{AdapterSpec, Fill, LossSpec, Model, OptimizerKind, OptimizerSpec, Spec, record};
use halfbyte_core::model::{Architecture, Experts, HEAD, ModelConfig, Rope, RopeScaling, linears};
use halfbyte_core::op::{Betas, ControlRule, View};
use halfbyte_core::quant::{QuantKind, Scheme};
use halfbyte_core::session::Session;
use halfbyte_core::session::batch::{Document, IGNORED, MicroBatch};
use halfbyte_core::tape::Policy;
use std::collections::HashMap;

/// Random numbers by SplitMix64 (Steele et al. 2014).
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    /// Uniform in [-1, 1).
    pub fn signed(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }
    pub fn many(&mut self, n: usize, size: f64) -> Vec<f64> {
        (0..n).map(|_| size * self.signed()).collect()
    }
}

/// Two layers, width 8, grouped heads, a window of 4. If `moe`, 4 experts; if not, the window is in force in the second layer
/// only, q, k and v have biases, and the heads of q and k are normalized.
pub fn config(moe: bool) -> ModelConfig {
    ModelConfig {
        family: if moe { Architecture::Mixtral } else { Architecture::Mistral },
        vocab_size: 19,
        hidden_size: 8,
        intermediate_size: 12,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 4,
        rms_norm_eps: 1e-5,
        rope: Rope { theta: 100.0, scaling: RopeScaling::None },
        max_positions: 64,
        sliding_window: Some(4),
        full_layers: if moe { Vec::new() } else { vec![0] },
        qkv_bias: !moe,
        head_norms: !moe,
        tied: false,
        experts: moe.then_some(Experts {
            count: 4,
            per_token: 2,
            width: 12,
            renormalize: true,
            dense_layers: Vec::new(),
            aux_loss_coef: 0.001,
            output_router_logits: false,
        }),
        torch_dtype: None,
        quantization: None,
        bos_id: Some(1),
        eos_ids: vec![2],
    }
}

/// A mixture of experts as Qwen3-MoE's: 3 of 5 narrow experts, whose weights do not sum to 1, in the second layer only.
pub fn qwen_moe() -> ModelConfig {
    let experts = Experts {
        count: 5,
        per_token: 3,
        width: 6,
        renormalize: false,
        dense_layers: vec![0],
        aux_loss_coef: 0.001,
        output_router_logits: false,
    };
    ModelConfig { family: Architecture::Qwen3Moe, experts: Some(experts), ..config(false) }
}

/// [`spec_of`] one of the [`config`]s.
pub fn spec(moe: bool, compute: DType, checkpointing: bool) -> Spec {
    spec_of(config(moe), compute, checkpointing)
}

/// All linears adapted, head and router included; NF4 base; AdamW of torch.
pub fn spec_of(config: ModelConfig, compute: DType, checkpointing: bool) -> Spec {
    let modules = linears(&config).into_iter().filter(|m| m.leaf != HEAD).map(|m| m.name);
    let mut adapters: HashMap<String, AdapterSpec> = modules.map(|m| (m, AdapterSpec { r: 3, scale: 1.7 })).collect();
    // Everything adapted but the head is quantized, as in HF; one module stays in 16 bit.
    let scheme = Scheme { kind: QuantKind::Nf4, blocksize: 32, double: true };
    let quantized = adapters.keys().filter(|m| *m != "model.layers.1.self_attn.k_proj");
    let base = quantized.map(|m| (m.clone(), scheme)).collect();
    adapters.insert("lm_head".into(), AdapterSpec { r: 2, scale: 0.9 });
    let aux = config.experts.as_ref().map(|_| 0.05);
    Spec {
        config,
        compute,
        tokens: 16,
        base,
        adapters,
        dropout: 0.25,
        neftune: None,
        policies: vec![if checkpointing { Policy::Recompute } else { Policy::Keep }; 2],
        streamed: 0,
        loss: LossSpec { chunk: 5, aux },
        optimizer: Some(OptimizerSpec {
            state: OptimizerKind::Torch,
            betas: Betas { beta1: 0.9, beta2: 0.999, eps: 1e-8 },
            weight_decay: 0.01,
            rule: ControlRule { max_norm: Some(1.0), growth_interval: (compute == DType::F16).then_some(2000) },
            updates: 8,
            lora_b_factor: 1.0,
            paging: None,
        }),
        logits_rows: 4,
    }
}

/// A session on the CPU with random weights, adapters (B included) and learning rates.
pub fn session(spec: Spec, options: CpuOptions) -> Session {
    start(record(spec).expect("recordable"), options)
}

/// The same for a model that is recorded already.
pub fn start(model: Model, options: CpuOptions) -> Session {
    let mut s = Session::planned(model, Box::new(Cpu::new(options))).expect("a session");
    s.plan.check(&s.model.program).expect("a sound plan");
    let mut random = Random(7);
    for tensor in s.model.params.weights.clone() {
        let (rows, cols) = tensor.shape;
        match tensor.fill {
            Fill::Dense(view) if rows == 1 => {
                let near_one: Vec<f64> = random.many(cols, 0.3).iter().map(|x| 1.0 + x).collect();
                s.write(view, &near_one).expect("written");
            }
            Fill::Dense(view) => s.write(view, &random.many(rows * cols, 0.8)).expect("written"),
            Fill::Quantized(q) => {
                let bytes = |v: View, random: &mut Random| {
                    (0..v.rows.count(0) * v.cols).map(|_| random.bits() as u8).collect::<Vec<_>>()
                };
                let codes = bytes(q.codes, &mut random);
                s.write_bytes(q.codes, &codes).expect("written");
                match q.nested {
                    None => s.write(q.absmax, &vec![0.7; q.absmax.cols]).expect("written"),
                    Some(nested) => {
                        let codes = bytes(q.absmax, &mut random);
                        s.write_bytes(q.absmax, &codes).expect("written");
                        s.write(nested.absmax, &vec![0.2; nested.absmax.cols]).expect("written");
                        s.write(nested.offset, &[0.8]).expect("written");
                    }
                }
            }
        }
    }
    if let Some((master, _)) = s.model.params.master {
        s.write(master, &random.many(master.cols, 0.5)).expect("written");
    }
    if let Some(o) = s.model.params.optimizer.clone() {
        s.write(o.schedule, &vec![0.01; o.schedule.cols]).expect("written");
    }
    s
}

/// Documents of these lengths, with some labels masked.
pub fn documents(lengths: &[usize], seed: u64) -> Vec<Document> {
    let mut random = Random(seed);
    let document = |&n: &usize| {
        let ids: Vec<u32> = (0..n).map(|_| random.below(19) as u32).collect();
        let labels = ids.iter().map(|&id| if random.below(4) == 0 { IGNORED } else { id as i32 }).collect();
        Document { ids, labels }
    };
    lengths.iter().map(document).collect()
}

/// These documents as a micro-batch.
pub fn packed(documents: &[&Document]) -> MicroBatch {
    MicroBatch::new(documents, Some(4))
}

/// A micro-batch of documents of these lengths, and by how many labels its loss is divided.
pub fn batch(lengths: &[usize], seed: u64) -> (MicroBatch, usize) {
    let documents = documents(lengths, seed);
    let all: Vec<&Document> = documents.iter().collect();
    (packed(&all), halfbyte_core::session::batch::num_items(all).max(1))
}
