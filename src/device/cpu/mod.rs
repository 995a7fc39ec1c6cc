//! The CPU device: written to be read. It is the definition of every operation and the oracle of every kernel test.
//!
//! * [`nf4`]: 4-bit blocks (NF4, FP4) and their doubly quantised scales.
//! * [`quant8`]: 8-bit blocks in bitsandbytes' dynamic maps.
//! * [`adamw`]: AdamW, torch's and bitsandbytes'.

pub mod adamw;
pub mod nf4;
pub mod quant8;
