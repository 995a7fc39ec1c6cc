//! Numbers recorded with the Hugging Face stack, compared at the tolerances measured when they were recorded.
//! Its own harness, so that every case's line is printed. `cargo test --test golden -- nf4` runs a part.

mod adam8bit;
mod adapters;
mod chat;
mod device;
mod facts;
mod forward;
mod models;
mod nf4;
mod rig;
mod schedule;
mod tensors;
mod train;
mod walk;

fn main() {
    let filter: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let areas: &[(&str, walk::Collect)] = &[
        ("nf4", nf4::cases),
        ("adam8bit", adam8bit::cases),
        ("schedule", schedule::cases),
        ("chat", chat::cases),
        ("models", models::cases),
        ("facts", facts::cases),
        ("adapters", adapters::cases),
        ("forward", forward::cases),
        ("train", train::cases),
    ];
    if !walk::run(areas, &filter) {
        std::process::exit(1);
    }
}
