//! Numbers recorded with the Hugging Face stack, compared at the tolerances measured when they were recorded.
//! Its own harness, so that every case's line is printed. `cargo test --test golden -- nf4` runs a part.

mod chat;
mod schedule;
mod walk;

fn main() {
    let filter: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let areas: &[(&str, walk::Collect)] = &[("chat", chat::cases), ("schedule", schedule::cases)];
    if !walk::run(areas, &filter) {
        std::process::exit(1);
    }
}
