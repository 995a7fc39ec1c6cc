//! The devices that replay a program.

pub mod cpu;
