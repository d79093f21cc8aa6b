//! What the fuzz targets share: a small world, and rules and packets made of any bytes.
#![forbid(unsafe_code)]

pub mod rules;
pub mod world;
