//! What fuzzers attack, each behind a function that takes bytes and panics when something is wrong.
//!
//! Not part of any build but of tests and of the targets in `fuzz/` (cargo-fuzz sets the cfg
//! `fuzzing`). `make fuzz` explores; the corpus that it found is replayed with the other tests.

mod acl;
mod packets;
mod peer;
mod sessions;
pub(crate) mod world;

pub use self::acl::acl;
pub use self::packets::packets;
pub use self::sessions::sessions;

/// Bytes of an input, taken one by one; what is missing at the end is none.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    /// One of a table.
    fn pick<T: Copy>(&mut self, table: &[T]) -> Option<T> {
        let at = usize::from(self.byte()?) % table.len();
        table.get(at).copied()
    }

    /// Up to so many bytes.
    fn bytes(&mut self, most: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// Replays what was found, smallest first.
    fn replay(target: &str, entry: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz/corpus")
            .join(target);
        let files = std::fs::read_dir(&folder).expect("the corpus is there");
        let mut inputs: Vec<_> = files
            .map(|file| {
                let path = file.unwrap().path();
                (std::fs::read(&path).unwrap(), path)
            })
            .collect();
        assert!(!inputs.is_empty());
        inputs.sort_unstable_by_key(|(input, _)| input.len());
        for (input, path) in inputs {
            let survived = std::panic::catch_unwind(|| entry(&input));
            assert!(survived.is_ok(), "{} is not survived", path.display());
        }
    }

    #[test]
    fn the_corpus_of_packets_is_survived() {
        replay("packets", super::packets);
    }

    #[test]
    fn the_corpus_of_sessions_is_survived() {
        replay("sessions", super::sessions);
    }

    #[test]
    fn the_corpus_of_the_acl_is_survived() {
        replay("acl", super::acl);
    }
}
