//! Properties of whole recorded programs: gradients against central differences, what must be bit-identical, plans of
//! real model sizes, and what each op reads and writes.

mod alone;
mod audit;
mod copies;
mod dropout;
mod few_rows;
mod fixtures;

mod gradients;
mod init;
mod invariants;
mod lies;
mod neftune;
mod ops_no_model_records;
mod plans;
mod shapes;
mod terms;
mod update;
