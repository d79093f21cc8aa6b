//! Properties of the whole packet path.

mod bounds;
mod nat;
mod support;
