//! The data layer through its public face: files, hub ids, rows, formats, masks, reports; good data and bad.

mod chat_templates;
mod formats;
mod hub;
#[path = "../shared/hub_server.rs"]
mod hub_server;
mod layouts;
mod prepare;
mod rows;
mod sources;
mod tiny;
