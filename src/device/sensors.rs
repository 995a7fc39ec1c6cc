//! Readings of a device while it works.

/// One reading of a GPU's sensors.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Sensors {
    /// Percent of the driver's last sampling period in which a kernel ran.
    pub utilization: Option<u32>,
    /// Bytes in use, by all processes and the driver.
    pub memory: Option<u64>,
    /// Degrees Celsius.
    pub temperature: Option<u32>,
    /// Power draw in watts.
    pub power: Option<f64>,
    /// Clock of the multiprocessors in MHz.
    pub clock: Option<u32>,
}
