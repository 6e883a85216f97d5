//! One node as the registry knows it.
