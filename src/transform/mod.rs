//! What happens to a picture between the source and the network.

pub mod align;
