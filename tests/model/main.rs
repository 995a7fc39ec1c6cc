//! Properties of whole recorded programs: gradients against central differences, what must be bit-identical, plans of
//! real model sizes, and what each op reads and writes.

mod audit;
mod gradients;
mod invariants;
mod plans;
mod rig;
