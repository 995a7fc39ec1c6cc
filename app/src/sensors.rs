//! The GPU's sensors, through NVIDIA's management library. It comes with the driver, but containers may lack it: it is
//! loaded at run time, and a run without it only logs less.

use halfbyte_core::device::Device;
use libloading::Library;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};

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

/// `NVML_SUCCESS`.
const SUCCESS: c_int = 0;
/// `NVML_TEMPERATURE_GPU`.
const TEMPERATURE_GPU: c_uint = 0;
/// `NVML_CLOCK_SM`.
const CLOCK_SM: c_uint = 1;
/// The names of the library: a development package has the one without a version.
const NAMES: [&str; 3] = ["libnvidia-ml.so.1", "libnvidia-ml.so", "nvml.dll"];

/// `nvmlDevice_t`.
type Handle = *mut c_void;
type Function<Arguments> = unsafe extern "C" fn(Handle, Arguments) -> c_int;
/// A function that reads one of several sensors or clocks.
type Which = unsafe extern "C" fn(Handle, c_uint, *mut c_uint) -> c_int;

/// `nvmlUtilization_t`: percent.
#[repr(C)]
#[derive(Default)]
struct Utilization {
    gpu: c_uint,
    memory: c_uint,
}

/// `nvmlMemory_t`: bytes.
#[repr(C)]
#[derive(Default)]
struct Memory {
    total: u64,
    free: u64,
    used: u64,
}

/// The management library, started, and the handle of one GPU in it.
pub struct Nvml {
    handle: Handle,
    utilization: Option<Function<*mut Utilization>>,
    memory: Option<Function<*mut Memory>>,
    temperature: Option<Which>,
    clock: Option<Which>,
    power: Option<Function<*mut c_uint>>,
    /// Keeps the functions' code loaded; never shut down, since another user in the process may have started it too.
    _library: Library,
}

impl Nvml {
    /// The sensors of a GPU. An error says in words why there are none; a CPU has none.
    pub fn of(device: &dyn Device) -> Result<Self, String> {
        let bus = device.about().bus.ok_or("the device has no place on the bus")?;
        Self::open(&CString::new(bus).map_err(|e| e.to_string())?)
    }

    /// The sensors of the GPU on this bus (`0000:65:00.0`): the library counts GPUs in another order than CUDA does.
    fn open(bus: &CStr) -> Result<Self, String> {
        // SAFETY: loading the driver's library runs its initializers, which have no requirements.
        let library = NAMES.iter().find_map(|name| unsafe { Library::new(*name) }.ok());
        let library = library.ok_or_else(|| format!("{} was not found", NAMES[0]))?;
        // SAFETY: the types of all functions here are those of nvml.h, which NVIDIA keeps under these names.
        unsafe {
            let start = symbol::<unsafe extern "C" fn() -> c_int>(&library, "nvmlInit_v2")?;
            done("nvmlInit_v2", start())?;
            type Find = unsafe extern "C" fn(*const c_char, *mut Handle) -> c_int;
            let find = symbol::<Find>(&library, "nvmlDeviceGetHandleByPciBusId_v2")?;
            let mut handle = std::ptr::null_mut();
            done("nvmlDeviceGetHandleByPciBusId_v2", find(bus.as_ptr(), &raw mut handle))?;
            Ok(Self {
                handle,
                utilization: symbol(&library, "nvmlDeviceGetUtilizationRates").ok(),
                memory: symbol(&library, "nvmlDeviceGetMemoryInfo").ok(),
                temperature: symbol(&library, "nvmlDeviceGetTemperature").ok(),
                clock: symbol(&library, "nvmlDeviceGetClockInfo").ok(),
                power: symbol(&library, "nvmlDeviceGetPowerUsage").ok(),
                _library: library,
            })
        }
    }

    /// Reads the sensors; a GPU may lack some of them.
    pub fn read(&self) -> Sensors {
        let mut utilization = Utilization::default();
        let mut memory = Memory::default();
        let (mut degrees, mut milliwatts, mut megahertz) = (0, 0, 0);
        let ok = |status: Option<c_int>| status == Some(SUCCESS);
        // SAFETY: the handle came from this library, which is still loaded, and the pointers are valid for the call.
        let [has_utilization, has_memory, has_temperature, has_power, has_clock] = unsafe {
            [
                ok(self.utilization.map(|read| read(self.handle, &raw mut utilization))),
                ok(self.memory.map(|read| read(self.handle, &raw mut memory))),
                ok(self.temperature.map(|read| read(self.handle, TEMPERATURE_GPU, &raw mut degrees))),
                ok(self.power.map(|read| read(self.handle, &raw mut milliwatts))),
                ok(self.clock.map(|read| read(self.handle, CLOCK_SM, &raw mut megahertz))),
            ]
        };
        Sensors {
            utilization: has_utilization.then_some(utilization.gpu),
            memory: has_memory.then_some(memory.used),
            temperature: has_temperature.then_some(degrees),
            power: has_power.then_some(f64::from(milliwatts) / 1000.0),
            clock: has_clock.then_some(megahertz),
        }
    }
}

/// # Safety
/// `T` must be the type of the function called `name`, and be used only while the library is loaded.
unsafe fn symbol<T: Copy>(library: &Library, name: &str) -> Result<T, String> {
    // SAFETY: the caller knows the type.
    unsafe { library.get::<T>(name.as_bytes()) }.map(|found| *found).map_err(|_| format!("{name} is missing"))
}

fn done(name: &str, status: c_int) -> Result<(), String> {
    if status == SUCCESS { Ok(()) } else { Err(format!("{name} failed with status {status}")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfbyte_core::device::cpu::{Cpu, CpuOptions};
    use halfbyte_core::device::cuda::{Cuda, CudaOptions, list};

    #[test]
    fn every_gpu_has_sensors_and_a_bus_without_one_has_none() {
        assert!(Nvml::open(c"ffff:ff:1f.7").is_err(), "no GPU is there");
        assert!(Nvml::of(&Cpu::new(CpuOptions::default())).is_err(), "a CPU has none");
        let Ok(gpus) = list() else {
            assert!(std::env::var_os("REQUIRE_GPU").is_none(), "REQUIRE_GPU is set and there is no driver");
            eprintln!("skipped: there is no NVIDIA driver");
            return;
        };
        for gpu in gpus {
            let device = Cuda::new(CudaOptions { ordinal: gpu.ordinal, ..CudaOptions::default() }).expect("a GPU");
            let sensors = Nvml::of(&device).expect("sensors").read();
            assert!(sensors.utilization.is_some_and(|percent| percent <= 100), "{sensors:?}");
            assert!(sensors.memory.is_some_and(|bytes| bytes > 0 && bytes <= gpu.total as u64), "{sensors:?}");
            assert!(sensors.temperature.is_some_and(|degrees| (5..110).contains(&degrees)), "{sensors:?}");
            assert!(sensors.clock.is_some_and(|megahertz| (50..5000).contains(&megahertz)), "{sensors:?}");
            assert!(sensors.power.is_some_and(|watts| (1.0..2000.0).contains(&watts)), "{sensors:?}");
        }
    }
}
