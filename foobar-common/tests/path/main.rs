//! Properties of the whole packet path.

mod bounds;
mod express;
mod held;
mod members;
mod moves;
mod nat;
mod replies;
mod sockets;
mod support;
