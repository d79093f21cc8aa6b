//! Properties of the whole packet path.

mod bounds;
mod express;
mod held;
mod members;
mod nat;
mod sockets;
mod support;
