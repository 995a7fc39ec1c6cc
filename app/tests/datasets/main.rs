//! The public functions of the data layer: files, hub ids, rows, formats, masks, reports; with good and bad data.

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
