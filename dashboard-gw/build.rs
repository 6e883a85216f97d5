//! Makes cargo look at the built page, so that `make web` is followed by a new binary.

use std::path::Path;

fn main() {
    // A folder that is not there would count as changed at each build.
    let dist = Path::new("web/dist");
    if let Err(error) = std::fs::create_dir_all(dist) {
        println!("cargo::warning={} can't be made: {error}", dist.display());
    }
    println!("cargo::rerun-if-changed={}", dist.display());
}
