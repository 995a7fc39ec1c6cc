//! Compares our numbers with numbers recorded from the Hugging Face stack, at tolerances measured during the recording.
//! A custom harness prints a line for every case. `cargo test -p halfbyte --test golden -- nf4` runs the cases that
//! match.

#[path = "../../../tests/shared/cases.rs"]
mod cases;
#[path = "../../../tests/shared/device.rs"]
mod device;
#[path = "../../../tests/shared/ties.rs"]
mod ties;

mod adam8bit;
mod adapters;
mod chat;
mod facts;
mod forward;
mod generate;
mod models;
mod nf4;
#[path = "../../../tests/shared/project.rs"]
mod project;
mod reference;
mod rig;
mod schedule;
mod tensors;
mod train;
mod walk;

use std::path::PathBuf;

/// The project's own golden set and those that `HALFBYTE_GOLDEN` names.
fn golden_roots() -> Vec<PathBuf> {
    let own = project::project().join("app/tests/data/golden");
    std::iter::once(own).chain(walk::named("HALFBYTE_GOLDEN")).collect()
}

fn main() {
    let goldens: &walk::Areas = &[
        ("nf4", nf4::cases),
        ("adam8bit", adam8bit::cases),
        ("schedule", schedule::cases),
        ("chat", chat::cases),
        ("models", models::cases),
        ("facts", facts::cases),
        ("adapters", adapters::cases),
        ("forward", forward::cases),
        ("train", train::cases),
        ("generate", generate::cases),
    ];
    let data: &walk::Areas = &[("reference", reference::cases), ("chat", chat::cases)];
    let goldens = golden_roots().into_iter().map(|root| (root, goldens));
    let data = walk::named("HALFBYTE_DATA").into_iter().map(|root| (root, data));
    if !walk::run(&goldens.chain(data).collect::<Vec<_>>()) {
        std::process::exit(1);
    }
}
