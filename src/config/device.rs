use std::str::FromStr;
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    Auto,
    Cpu,
    Gpu,
    Vulkan(Option<usize>),
    Metal,
    Dx12,
    Gl,
}
impl FromStr for DeviceChoice {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        Ok(match s {
            "auto" => Self::Auto,
            "cpu" => Self::Cpu,
            "gpu" => Self::Gpu,
            "vulkan" => Self::Vulkan(None),
            "metal" => Self::Metal,
            "dx12" => Self::Dx12,
            "gl" => Self::Gl,
            o => return Err(format!("unknown device {o}")),
        })
    }
}
