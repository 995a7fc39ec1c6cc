//! The recipes of docs/recipes, from the command line: every one parses, plans and prepares data; the four that follow
//! tutorials format records as the tutorials do, count steps as they do, and run from end to end on the CPU with a tiny
//! model. Its own harness, so that every case's line is printed: `cargo test --test recipes -- twins` runs a part.
//!
//! `HALFBYTE_DATA` names folders of real data sets, tokenizers and trained models, which are walked too.

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
