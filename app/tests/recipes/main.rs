//! Tests the recipes of docs/recipes through the command line. Every recipe parses, plans and prepares data. The four
//! that follow tutorials format records and count steps as the tutorials do, and run from end to end on the CPU with a
//! tiny model. A custom harness prints a line for every case. `cargo test -p halfbyte --test recipes -- twins` runs the
//! cases that match.
//!
//! `HALFBYTE_DATA` names folders of real data sets, tokenizers and trained models, which are tested, too.

mod arithmetic;
#[path = "../../../tests/shared/cases.rs"]
mod cases;
#[allow(dead_code, reason = "its hub helpers serve the cli tests")]
#[path = "../cli/folder.rs"]
mod folder;
mod full_size;
mod pages;
#[path = "../../../tests/shared/project.rs"]
mod project;
mod real;
mod rig;
#[path = "shapes.rs"]
mod shapes;
mod twins;
mod vectors;
#[path = "../golden/walk.rs"]
mod walk;

fn main() {
    let own: &walk::Areas = &[
        ("pages", pages::cases),
        ("vectors", vectors::cases),
        ("arithmetic", arithmetic::cases),
        ("full_size", full_size::cases),
        ("twins", twins::cases),
    ];
    let data: &walk::Areas = &[("real data", real::data), ("real models", real::models)];
    let named = walk::named("HALFBYTE_DATA");
    if named.is_empty() {
        println!("HALFBYTE_DATA is not set: real data sets and trained models are SKIPPED");
    }
    let sets = std::iter::once((project::project().join("docs/recipes"), own))
        .chain(named.into_iter().map(|root| (root, data)));
    if !walk::run(&sets.collect::<Vec<_>>()) {
        std::process::exit(1);
    }
}
