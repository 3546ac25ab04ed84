//! Kernels written for moue. Each has a CPU twin on plain slices under [`reference`]; so far the twins alone exist and the loader's
//! threads run them ahead of the device.

pub mod reference;
