//! What `--device` takes. Parsing only: whether such a device exists is found out by the engine, and a build without it still
//! understands (and refuses) the words.

use crate::failure::Usage;
use std::fmt;
use std::str::FromStr;

/// The device that the user asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// A real GPU where there is one, else the CPU.
    #[default]
    Auto,
    Cpu,
    /// A real GPU, or an error.
    Gpu,
    /// The adapter of this number among Vulkan's, or the best of them. Software adapters count: whoever says `vulkan` means Vulkan.
    Vulkan(Option<usize>),
    Metal,
    Dx12,
    Gl,
}

/// The accepted words, as help and error messages print them.
pub const DEVICE_WORDS: &str = "auto, cpu, gpu, vulkan, vulkan:N, metal, dx12, gl";

impl FromStr for DeviceChoice {
    type Err = Usage;

    fn from_str(word: &str) -> Result<Self, Usage> {
        let choice = match word {
            "auto" => Self::Auto,
            "cpu" => Self::Cpu,
            "gpu" => Self::Gpu,
            "vulkan" => Self::Vulkan(None),
            "metal" => Self::Metal,
            "dx12" => Self::Dx12,
            "gl" => Self::Gl,
            _ => match word.strip_prefix("vulkan:").map(str::parse) {
                Some(Ok(index)) => Self::Vulkan(Some(index)),
                Some(Err(_)) => {
                    return Err(Usage(format!("{word:?}: after `vulkan:` comes the number of an adapter; `moue devices` lists them")));
                }
                None => return Err(Usage(format!("no device is called {word:?}; there are {DEVICE_WORDS}"))),
            },
        };
        Ok(choice)
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Gpu => f.write_str("gpu"),
            Self::Vulkan(None) => f.write_str("vulkan"),
            Self::Vulkan(Some(index)) => write!(f, "vulkan:{index}"),
            Self::Metal => f.write_str("metal"),
            Self::Dx12 => f.write_str("dx12"),
            Self::Gl => f.write_str("gl"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_round_trip() {
        for word in ["auto", "cpu", "gpu", "vulkan", "vulkan:0", "vulkan:12", "metal", "dx12", "gl"] {
            assert_eq!(word.parse::<DeviceChoice>().unwrap().to_string(), word);
        }
    }

    #[test]
    fn other_words_are_refused_with_the_list() {
        for word in ["", "cuda", "GPU", "metal:1", "vulkan0", " cpu"] {
            let message = word.parse::<DeviceChoice>().unwrap_err().to_string();
            assert!(message.contains(DEVICE_WORDS), "{message}");
        }
        for word in ["vulkan:", "vulkan:-1", "vulkan:a", "vulkan:99999999999999999999"] {
            assert!(word.parse::<DeviceChoice>().unwrap_err().to_string().contains("moue devices"));
        }
    }
}
