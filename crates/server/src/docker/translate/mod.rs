//! Between the wire's types and the engine's, both ways. Nothing here decides anything.

pub(crate) mod container;
pub(crate) mod create;
pub(crate) mod image;
pub(crate) mod layers;
pub(crate) mod reach;
pub(crate) mod rest;
pub(crate) mod upkeep;
pub(crate) mod working;
