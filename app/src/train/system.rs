//! A device's sensors as a record of the log.

use halfbyte_core::device::sensors::Sensors;
use serde::Serialize;

/// One reading of a GPU's sensors under the names of W&B's system metrics. `gpu.0` is the GPU of the run, whatever its
/// number.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct SystemMetrics {
    /// Percent of the driver's last sampling period in which a kernel ran.
    #[serde(rename = "system.gpu.0.gpu", skip_serializing_if = "Option::is_none")]
    pub utilization: Option<u32>,
    /// Bytes in use, by all processes and the driver.
    #[serde(rename = "system.gpu.0.memoryAllocatedBytes", skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Degrees Celsius.
    #[serde(rename = "system.gpu.0.temp", skip_serializing_if = "Option::is_none")]
    pub temperature: Option<u32>,
    /// Watts.
    #[serde(rename = "system.gpu.0.powerWatts", skip_serializing_if = "Option::is_none")]
    pub power: Option<f64>,
}

impl From<Sensors> for SystemMetrics {
    fn from(s: Sensors) -> Self {
        Self { utilization: s.utilization, memory: s.memory, temperature: s.temperature, power: s.power }
    }
}
