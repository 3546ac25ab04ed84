use crate::config::DeviceChoice;
use burn::prelude::Device;
pub struct OpenDevice {
    pub device: Device,
    pub name: String,
    pub is_cpu: bool,
    pub description: serde_json::Value,
    pub why: String,
}
pub fn open(_choice: DeviceChoice) -> anyhow::Result<OpenDevice> {
    Ok(OpenDevice {
        device: Device::flex(),
        name: "CPU".into(),
        is_cpu: true,
        description: serde_json::json!({"name": "CPU"}),
        why: "provisional".into(),
    })
}
